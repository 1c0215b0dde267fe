"""Shards put together, and two engines compared: against plain loops over the rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.archive.compare import QUANTILES, compare
from runtime.archive.items import Shard
from runtime.archive.merge import merge
from runtime.archive.run import judge_shard
from runtime.common.errors import UserError
from runtime.judge import main
from runtime.result import VERDICTS
from tests.support.archives import picture, rows_of, run_of, write_pictures
from tests.support.tiny_engine import write_tiny_engine


def _shards(archive: Path, engine: Path, out: Path, count: int, numbers: list[int], **more: object) -> Path:
    for number in numbers:
        judge_shard(run_of(archive, engine, out, shard=Shard(number, count), **more))
    return out


def test_the_shards_together_are_the_archive(engine: Path, folder: Path, tmp_path: Path):
    whole = rows_of(judge_shard(run_of(folder, engine, tmp_path / "whole")).file)
    for count in (2, 5, 40):  # more shards than images too: some are empty
        out = _shards(folder, engine, tmp_path / str(count), count, list(range(1, count + 1)), workers=1)
        assert merge(out, tmp_path / f"{count}.parquet") == (count, 22)
        assert rows_of(tmp_path / f"{count}.parquet") == whole


def test_missing_shards_are_named(engine: Path, folder: Path, tmp_path: Path):
    out = _shards(folder, engine, tmp_path / "scores", 30, [2, 17], workers=1)
    with pytest.raises(UserError) as error:
        merge(out, tmp_path / "all.parquet")
    named = ", ".join(f"{number}/30" for number in (1, 3, 4, 5, 6, 7, 8, 9, 10, 11))
    assert f"must hold all 30 shards, finished; found not {named} and 18 more" in str(error.value)
    assert not (tmp_path / "all.parquet").exists()
    with pytest.raises(UserError, match="found no shard that is finished"):
        merge(tmp_path / "nothing", tmp_path / "all.parquet")


def test_shards_of_two_engines_are_not_put_together(engine: Path, folder: Path, tmp_path: Path):
    one = _shards(folder, engine, tmp_path / "one", 2, [1])
    other = _shards(folder, write_tiny_engine(tmp_path, threshold=0.4), tmp_path / "other", 2, [2])
    (one / "000002-of-000002.parquet").write_bytes((other / "000002-of-000002.parquet").read_bytes())
    with pytest.raises(UserError, match="one and the same"):
        merge(one, tmp_path / "all.parquet")


def test_a_merged_file_is_no_folder_of_shards(engine: Path, folder: Path, tmp_path: Path):
    out = _shards(folder, engine, tmp_path / "scores", 1, [1])
    (tmp_path / "merged").mkdir()
    merge(out, tmp_path / "merged" / "all.parquet")
    with pytest.raises(UserError, match="which is merged already"):
        merge(tmp_path / "merged", tmp_path / "again.parquet")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two engines on different scales over an archive that changed meanwhile: one image more, one less, one other."""
    folder = tmp_path_factory.mktemp("sides")
    archive = write_pictures(folder / "archive", 40)
    (archive / "broken.png").write_bytes(b"nothing")
    (folder / "a").mkdir(), (folder / "b").mkdir()
    first = write_tiny_engine(folder / "a", threshold=1.0)
    second = write_tiny_engine(folder / "b", taps=("layer3", "layer4"), threshold=0.5)
    judge_shard(run_of(archive, first, folder / "scores a"))
    (archive / "001.png").unlink()
    Image.fromarray(picture(90)).save(archive / "002.png")
    Image.fromarray(picture(91)).save(archive / "new.png")
    _shards(archive, second, folder / "scores b", 3, [1, 2, 3])
    merge(folder / "scores b", folder / "b.parquet")
    return folder / "scores a", folder / "b.parquet"


def test_what_changes_from_one_engine_to_another(sides: tuple[Path, Path], tmp_path: Path):
    found = compare(*sides, worst=7)
    a, b = rows_of(next(sides[0].glob("*.parquet"))), rows_of(sides[1])
    both = sorted(name for name in a.keys() & b.keys() if a[name]["image_sha256"] == b[name]["image_sha256"])
    assert len(both) == 39 and "broken.png" in both
    counted = {of_a: dict.fromkeys(VERDICTS, 0) for of_a in VERDICTS}
    for name in both:
        counted[a[name]["verdict"]][b[name]["verdict"]] += 1
    assert found.verdicts() == counted and counted["none"]["none"] == 1
    assert counted["good"]["anomalous"] > 0  # the second threshold is lower on its scale: 0.25 of 1 against 0.33
    assert found.changes == sum(counted[x][y] for x in VERDICTS for y in VERDICTS if x != y)
    scored = [name for name in both if a[name]["score"] is not None]
    rises = {name: b[name]["score"] / 0.5 - a[name]["score"] / 1.0 for name in scored}
    plain = [b[name]["score"] - a[name]["score"] for name in scored]
    assert found.quantiles() == {
        "score": pytest.approx(np.quantile(plain, QUANTILES).tolist()),
        "score / threshold": pytest.approx(np.quantile(list(rises.values()), QUANTILES).tolist()),
    }
    largest = sorted(scored, key=lambda name: (-abs(rises[name]), name))[:7]
    assert [row["name"] for row in found.largest()] == largest
    assert [row["rise"] for row in found.largest()] == [pytest.approx(rises[name]) for name in largest]
    changed = sorted(name for name in both if a[name]["verdict"] != b[name]["verdict"])
    worst = sorted(changed, key=lambda name: (-abs(rises[name]), name))[:7]
    assert [row["name"] for row in found.changed()] == worst
    assert (found.only("a"), found.only("b"), found.others()) == (["001.png"], ["new.png"], ["002.png"])
    said = json.loads(json.dumps(found.fields()))
    assert said["compared"] == 39 and said["counts"] == {"only_a": 1, "only_b": 1, "others": 1}
    found.write(tmp_path / "changes.parquet")
    written = rows_of(tmp_path / "changes.parquet")
    assert set(written) == a.keys() | b.keys() and list(written) == sorted(written)
    assert {name: row["rise"] for name, row in written.items() if row["rise"] is not None} == pytest.approx(rises)


def test_the_command_tells_it(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    main(["compare", *map(str, sides), "--worst", "3"])
    told = capsys.readouterr().out
    assert "only in A: 1: 001.png" in told and "only in B: 1: new.png" in told
    assert "39 images compared" in told and "verdict changed" in told and "largest change" in told
    main(["compare", str(sides[0]), str(sides[0])])
    told = capsys.readouterr().out
    assert "41 images compared, 0 verdicts changed" in told and "largest change" not in told


def test_an_engine_without_any_score_is_compared_too(engine: Path, tmp_path: Path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.png").write_bytes(b"nothing")
    out = judge_shard(run_of(tmp_path / "archive", engine, tmp_path / "scores")).file.parent
    found = compare(out, out, 5)
    assert found.quantiles() == {"score": [], "score / threshold": []} and "1 images compared" in found.text()


def test_two_archives_are_not_compared(engine: Path, folder: Path, tmp_path: Path):
    one = judge_shard(run_of(folder, engine, tmp_path / "one")).file.parent
    other = judge_shard(run_of(write_pictures(tmp_path / "archive", 3), engine, tmp_path / "other")).file.parent
    with pytest.raises(UserError, match="must be of the same archive as"):
        compare(one, other, 5)
    with pytest.raises(UserError, match="must be a table that cflow judge wrote"):
        (tmp_path / "x.parquet").write_bytes(b"nothing")
        compare(one, tmp_path / "x.parquet", 5)
    with pytest.raises(UserError, match="found no such file"):
        compare(one, tmp_path / "none.parquet", 5)
