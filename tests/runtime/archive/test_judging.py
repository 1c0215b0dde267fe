"""A row says what `runtime.load` and `runtime.infer` say of the same image, to the bit; errors are rows."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.archive.judging import Judge
from runtime.archive.listing import list_archive
from runtime.archive.run import judge_shard
from runtime.images.preprocess import read_image
from runtime.images.regions import regions_above
from runtime.images.view import ViewOptions
from tests.support.archives import picture, reference, rows_of, run_of, setup_of, webdataset, write_pictures
from tests.support.marked_log import with_spots
from tests.support.paths import ROOT


def test_a_row_is_what_a_detector_says(engine: Path, folder: Path, tmp_path: Path):
    outcome = judge_shard(run_of(folder, engine, tmp_path / "scores"))
    rows = rows_of(outcome.file)
    broken = rows.pop("below/broken.png")
    (path := folder / "below" / "broken.png").unlink()
    try:
        expected = reference(engine, folder)
    finally:
        path.write_bytes(b"this is no picture")
    assert {name: (row["score"], row["verdict"]) for name, row in rows.items()} == expected
    assert {verdict for _, verdict in expected.values()} == {"good", "anomalous"}
    assert (broken["verdict"], broken["score"], broken["boxes"]) == ("none", None, [])
    assert broken["error"] == broken["reason"] and "below/broken.png must be a whole image" in broken["error"]
    assert (outcome.errors, outcome.verdicts["none"], outcome.new) == (1, 1, 22)
    digest = hashlib.sha256(engine.read_bytes()).hexdigest()
    for name, row in rows.items():
        content = (folder / name).read_bytes()
        assert (row["image_sha256"], row["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert (row["width"], row["height"], row["error"], row["threshold"]) == (60, 40, "", 1.0)
        assert (row["engine"], row["engine_sha256"]) == ("tiny.onnx", digest)
        sidecar = engine.with_suffix(".json").read_bytes()
        assert row["sidecar_sha256"] == hashlib.sha256(sidecar).hexdigest()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--threshold", "0.6"],
        ["--roi", "8,4,40,30", "--rotate", "90", "--flip", "h"],
        ["--mask", "{mask}", "--rotate", "270"],
        ["--mask", "{mask}", "--mask-fill", "--roi", "4,4,50,30", "--flip", "v"],
    ],
)
def test_a_row_is_what_the_line_says(engine: Path, tmp_path: Path, words: list[str]):
    """Boxes too: the camera's own, of a line with a view."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        spots = [(5 + 9 * number % 30, 8 + 13 * number % 40), (20, 40)]
        Image.fromarray(with_spots(*spots, size=(40, 60), level=250)).save(pictures / f"{number}.png")
    (pictures / "other size.png").write_bytes((pictures / "0.png").read_bytes())
    Image.fromarray(picture(1, (30, 30))).save(pictures / "other size.png")
    mask = np.full((40, 60), 255, np.uint8)
    mask[:, 36:48] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    view = [word.format(mask=tmp_path / "mask.png") for word in words]
    common = ["--engine", str(engine), "--backend", "onnxruntime", *view]

    def run(module: str, *more: str) -> str:
        command = [sys.executable, "-m", module, *common, *more]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode in (0, 1), ended.stderr  # 1: a frame got no verdict
        return ended.stdout

    line = run("runtime.infer", "--source", str(pictures), "--threads", "1", "--json")
    run("runtime.judge", str(pictures), "--out", str(tmp_path / "scores"), "--workers", "1")
    rows = rows_of(tmp_path / "scores" / "000001-of-000001.parquet")
    said = {frame["name"]: frame for frame in map(json.loads, line.splitlines())}
    assert set(said) == set(rows) and len(rows) == 5
    for name, frame in said.items():
        row = rows[name]
        assert (row["score"], row["verdict"], row["threshold"]) == (
            frame["score"],
            frame["verdict"],
            frame["threshold"],
        )
        assert row["boxes"] == frame.get("camera_boxes", frame["boxes"])
        assert row["reason"] == frame.get("reason", "")
    assert any(row["boxes"] for row in rows.values())


def test_boxes_are_where_the_map_is_above_its_threshold(engine: Path, tmp_path: Path):
    image = with_spots((10, 30), (30, 10), level=255, size=(40, 60))
    Image.fromarray(image).save(tmp_path / "a.png")
    with runtime.load(engine, threads=1, backend="onnxruntime") as detector:
        [row] = Judge(setup_of(tmp_path, engine), detector).rows(list_archive(str(tmp_path)))
        result = detector(image)
    assert [dict(vars(box)) for box in regions_above(result.anomaly_map, 1.0, (40, 60))] == row["boxes"]
    assert len(row["boxes"]) == 2


def test_tars_and_folders_and_urls_give_the_same_rows(engine: Path, tmp_path: Path):
    tar = webdataset(tmp_path / "shards" / "one.tar", range(7))
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(7):
        Image.fromarray(picture(number)).save(plain / f"{number:06d}.png")
    archives = {"tar": str(tar), "shards": str(tar.parent), "plain": str(plain)}
    if find_fsspec():
        archives["url"] = f"file://{tar.parent}"
    found = {}
    for name, archive in archives.items():
        rows = rows_of(judge_shard(run_of(archive, engine, tmp_path / "out" / name)).file)
        found[name] = {key.rpartition("/")[2]: (row["score"], row["verdict"]) for key, row in rows.items()}
    assert len(found["plain"]) == 7
    assert all(rows == found["plain"] for rows in found.values())


def find_fsspec() -> bool:
    import importlib.util

    return importlib.util.find_spec("fsspec") is not None


def test_a_library_that_chokes_on_one_file_is_a_row(engine: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def choking(path: str, *rest: object) -> object:
        if path == "002.png":
            raise RuntimeError("<decoder object at 0x7f00deadbeef> gave up")
        return read_image(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("runtime.archive.judging.read_image", choking)
    with runtime.load(engine, threads=1, backend="onnxruntime") as detector:
        rows = list(Judge(setup_of(folder, engine), detector).rows(list_archive(str(folder))))
    failed = {row["name"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"002.png", "below/broken.png"} and len(rows) == 22
    assert failed["002.png"] == "002.png: RuntimeError: <decoder object> gave up"


def test_a_view_that_does_not_fit_is_a_row_each(engine: Path, tmp_path: Path):
    folder = write_pictures(tmp_path / "archive", 3)
    setup = setup_of(folder, engine, view=ViewOptions(roi=(50, 0, 40, 40)))
    with runtime.load(engine, threads=1, backend="onnxruntime") as detector:
        rows = list(Judge(setup, detector).rows(list_archive(str(folder))))
    assert len(rows) == 3 and all("must lie within the camera's frame" in row["error"] for row in rows)
    assert all(row["image_sha256"] and row["verdict"] == "none" for row in rows)
