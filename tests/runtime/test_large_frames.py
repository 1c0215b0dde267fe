"""`runtime.infer` with a tiled engine: what users run together, on frames of a size that tests can bear."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.images.tiles import TileGrid
from runtime.infer import main
from runtime.records.read import Query, judgements
from runtime.records.shadow_reading import compared
from tests.support.tiny_engine import write_tiny_engine

GRID = TileGrid((600, 800), (256, 256), 64)
SPOT = (404, 650)  # row, column of a defect of 5 x 7 pixels (rows x columns)


def _picture(seed: int, *spots: tuple[int, int], size: tuple[int, int] = GRID.frame) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(20, 60, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
    for row, column in spots:
        image[row : row + 5, column : column + 7] = 240
    return image


def _folder(path: Path, *pictures: np.ndarray) -> Path:
    path.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"p{index}.png")
    return path


def _run(engine: Path, *arguments: Any) -> int | None:
    return main(["--engine", str(engine), "--backend", "onnxruntime", *map(str, arguments)])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_engine(tmp_path_factory.mktemp("engine"), "tiled", tiles=GRID)


def _boxes(line: dict[str, Any], name: str = "boxes") -> list[tuple[int, ...]]:
    return [tuple(box[side] for side in ("y", "x", "height", "width")) for box in line[name]]


def test_a_run_twice_into_one_log_with_lines_overlays_and_events(tmp_path: Path, engine: Path):
    frames = _folder(tmp_path / "frames", _picture(0), _picture(1, SPOT), _picture(2))
    log = tmp_path / "log.db"
    for run in range(2):  # a restart goes on with the same log
        out = tmp_path / f"out{run}"
        kept = ["--log", log, "--output", out, "--events", tmp_path / "events", "--event-frames", "crops"]
        assert _run(engine, "--source", frames, *kept) is None
        good, bad, _ = _lines(out / "frames.jsonl")
        assert (good["verdict"], bad["verdict"]) == ("good", "anomalous")
        assert good["tiles"] == bad["tiles"] == GRID.count == 12
        assert _boxes(bad) == [(*SPOT, 5, 7)]
        assert Image.open(out / "overlays" / "p1.png").size == (800, 600)
    records = list(judgements(log, Query()))
    assert [record["verdict"] for record in records] == 2 * ["good", "anomalous", "good"]
    assert all(json.loads(record["boxes"])[0]["x"] == SPOT[1] for record in records[1::3])
    events = [path for path in (tmp_path / "events").iterdir() if path.is_dir()]
    assert len(events) == 2 and all(len(list(event.glob("crops/*.jpg"))) == 1 for event in events)


def test_a_mask_hides_defects_of_a_tiled_frame_and_no_others(tmp_path: Path, engine: Path):
    white = np.full(GRID.frame, 255, np.uint8)
    white[380:440, 600:720] = 0
    Image.fromarray(white).save(tmp_path / "mask.png")
    frames = _folder(tmp_path / "frames", _picture(0, SPOT), _picture(1, SPOT, (100, 100)), _picture(2))
    _run(engine, "--source", frames, "--mask", tmp_path / "mask.png", "--json-file", tmp_path / "lines")
    hidden, other, good = _lines(tmp_path / "lines")
    assert [line["verdict"] for line in (hidden, other, good)] == ["good", "anomalous", "good"]
    assert _boxes(hidden) == [] and _boxes(other) == [(100, 100, 5, 7)]
    # "paper" is exact: the frame's score is the largest value that the mask leaves
    left = np.where(white > 0, _picture(0, SPOT).mean(axis=2), 0).max() / 255 * 3
    assert hidden["score"] == pytest.approx(left, rel=1e-5)


@pytest.mark.parametrize("rotate", [0, 180])
def test_boxes_under_a_region_are_in_the_cameras_pixels(tmp_path: Path, engine: Path, rotate: int):
    camera = _picture(0, (900, 1000), size=(1100, 1500))
    frames = _folder(tmp_path / "frames", camera)
    seen = ["--roi", "550,400,800,600", "--rotate", rotate]
    _run(engine, "--source", frames, *seen, "--json-file", tmp_path / "lines")
    (line,) = _lines(tmp_path / "lines")
    assert _boxes(line, "camera_boxes") == [(900, 1000, 5, 7)]
    assert _boxes(line) == [(500, 450, 5, 7) if rotate == 0 else (600 - 505, 800 - 457, 5, 7)]


def test_a_frame_of_another_size_is_not_resized(tmp_path: Path, engine: Path):
    right, wrong = (
        _folder(tmp_path / name, _picture(0, SPOT, size=size)) for name, size in (("a", (600, 800)), ("b", (660, 880)))
    )
    status = _run(engine, "--source", right, "--source", wrong, "--json-file", tmp_path / "lines")
    lines = {Path(line["source"]).name: line for line in _lines(tmp_path / "lines")}
    assert status == 1 and lines["a"]["verdict"] == "anomalous"
    assert lines["b"]["verdict"] == "none" and lines["b"]["score"] is None
    assert "a frame must be 600x800 (height x width), which this engine cuts into 12 tiles" in lines["b"]["reason"]


def test_two_cameras_of_different_sizes_have_a_tiled_and_an_untiled_recipe(tmp_path: Path, engine: Path):
    small = write_tiny_engine(tmp_path, "small", size=(32, 48))
    text = "".join(f'[[recipe]]\nname = "{path.stem}"\nengine = "{path}"\n' for path in (engine, small))
    (tmp_path / "recipes.toml").write_text(text)
    frames = _folder(tmp_path / "frames", _picture(0, SPOT))
    found = {}
    for recipe in ("tiled", "small"):
        lines = tmp_path / f"{recipe}.jsonl"
        named = ["--recipes", tmp_path / "recipes.toml", "--recipe", recipe, "--backend", "onnxruntime"]
        main([*map(str, named), "--source", str(frames), "--json-file", str(lines)])
        (found[recipe],) = _lines(lines)
    assert found["tiled"]["verdict"] == "anomalous" and found["tiled"]["tiles"] == 12
    assert found["small"]["verdict"] == "good" and "tiles" not in found["small"]  # reduced, the spot is gone


def test_a_tiled_candidate_beside_an_engine_without_tiles(tmp_path: Path, engine: Path):
    small = write_tiny_engine(tmp_path, "small", size=(32, 48))
    frames = _folder(tmp_path / "frames", *(_picture(seed, SPOT) for seed in range(3)))
    log = tmp_path / "log.db"
    assert _run(small, "--source", frames, "--shadow", engine, "--log", log) is None
    pairs = [(pair, frames) for _, pair, frames, _ in compared(log, 0.0, 1e12)]
    assert pairs == [("candidate_only", 3)]
    assert _run(engine, "--source", frames, "--shadow", small, "--log", log) is None
    pairs = [(pair, frames) for _, pair, frames, _ in compared(log, 0.0, 1e12)]
    assert sorted(pairs) == [("candidate_only", 3), ("running_only", 3)]
    pictures = sorted((tmp_path / "log.shadow").glob("*.jpg"))
    assert len(pictures) == 6 and {Image.open(path).size for path in pictures} == {(480, 360)}


@pytest.mark.slow
def test_frames_of_twelve_megapixels_need_less_than_a_gigabyte(tmp_path: Path):
    """The engine is left out of the account: what it takes alone is measured first."""
    from tests.bench.large_frames import GRID as LARGE
    from tests.bench.large_frames import arguments_of, infer, write_frames

    tiled = write_tiny_engine(tmp_path, "tiled", tiles=LARGE)
    code = "import runtime, resource, numpy as np, sys; detector = runtime.load(sys.argv[1])"
    code += "; detector(np.ones((3000, 4096, 3), np.uint8)); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    alone = subprocess.run(
        [sys.executable, "-c", code, str(tiled)], capture_output=True, text=True, check=True, env=environment
    )
    write_frames(tmp_path / "frames", LARGE.frame, 5)
    measured = infer(tiled, arguments_of(tmp_path, tmp_path / "frames", "--contact-sheet"))
    assert measured.status == 0 and measured.frames == 5
    frame_and_map = 3000 * 4096 * 7 / 1e6  # 86 MB: four frames on their way, two overlays, and what decodes and encodes
    assert measured.peak_mb - int(alone.stdout) * 1024 / 1e6 < 7 * frame_and_map
