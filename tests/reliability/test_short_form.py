"""`make reliability` in its short form, and that its checks see what they look for."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from tests.reliability import fuzz_child, kills, writers
from tests.reliability.checks import NAMES
from tests.reliability.mutations import bytes_changed, json_changed
from tests.reliability.readers import Reader, image_seeds
from tests.reliability.result import Result
from tests.reliability.table import as_json, as_markdown, as_text
from tests.reliability.victims import Victim
from tests.support.paths import ROOT

# hostile files are tests of their own and run with the others; the page's load is a rate, which no test asserts
ELSEWHERE = {"hostile", "page_load"}


@pytest.mark.slow
def test_the_short_form_finds_nothing_wrong(tmp_path: Path) -> None:
    only = [word for name in NAMES if name not in ELSEWHERE for word in ("--only", name)]
    command = [sys.executable, "-m", "tests.reliability", "--short", "--out", str(tmp_path), *only]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert run.returncode == 0, f"{run.stderr}\n{run.stdout}"
    rows = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row for row in rows if row["wrong"]] == []
    assert {"kills", "sinks", "sources", "writers", "fuzzing", "soak"} <= {row["group"] for row in rows if row["tries"]}


def careless(folder: Path) -> Victim:
    """A command that writes its file where it stands, in two steps."""
    place = folder / "out" / "file"

    def main(argv: "Sequence[str] | None") -> None:
        place.write_text("half")
        time.sleep(0.2)
        place.write_text("whole")

    def check() -> None:
        assert not place.exists() or place.read_text() == "whole"

    place.parent.mkdir()
    return Victim("careless", main, lambda number: [], check, place.parent)


def test_a_file_that_is_half_written_is_found_by_kills(tmp_path: Path) -> None:
    result = kills.at_random_moments(careless(tmp_path), 8, random.Random(0))
    assert result.tries == 8 and result.wrong > 0 and "what stood is not whole" in result.details


def test_two_writers_that_do_not_know_of_each_other_are_found(tmp_path: Path) -> None:
    victim = careless(tmp_path)
    (victim.folder / ".file.part-x").touch()
    wrong: list[str] = []
    assert writers.at_once(victim, 1, wrong) == 2
    assert wrong == ["careless: left .file.part-x"]


def fuzzed(folder: Path, read: object) -> "tuple[dict[str, int], list[dict[str, str]]]":
    reader = Reader("broken", {"x.json": b'{"a": [1, 2]}'}, (bytes_changed, json_changed), read)  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    return fuzz_child.fuzz(reader, folder, random.Random(0), 0.5)


def test_fuzzing_tells_refusals_from_exceptions(tmp_path: Path) -> None:
    def refuses(path: Path) -> None:
        raise UserError("a file", "another")

    counts, failures = fuzzed(tmp_path, refuses)
    assert counts["refused"] > 10 and counts["failed"] == 0 and failures == []
    counts, failures = fuzzed(tmp_path, lambda path: json.loads(path.read_bytes()))
    assert counts["value"] > 10 and counts["failed"] > 10
    assert any("JSONDecodeError" in failure["what"] and Path(failure["file"]).is_file() for failure in failures)


def test_mutations_change_files_and_repeat_with_their_seed() -> None:
    for data in image_seeds().values():
        changed = [bytes_changed(random.Random(seed), data) for seed in range(20)]
        assert len(set(changed)) > 15
        assert changed == [bytes_changed(random.Random(seed), data) for seed in range(20)]


def test_the_table_in_three_forms() -> None:
    rows = [Result("kills", "a | b", 1234, 0, "fine"), Result("disks", "full disk", 5, 1, "lost x")]
    assert as_text(rows).splitlines()[1] == "kills: a | b      1,234              0  fine"
    assert "| kills: a \\| b | 1,234 | 0 | fine |" in as_markdown(rows)
    assert json.loads(as_json(rows))[1]["wrong"] == 1
