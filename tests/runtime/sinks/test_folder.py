import json
import math
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.images.overlay import draw
from runtime.result import Result
from runtime.sinks.folder import FolderOptions, FolderSink, Worst, overlay_name
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame

TIME_S = 1_700_000_000.25  # 2023-11-14 22:13:20.250 UTC


def _frame(index: int, name: str | None = None) -> Frame:
    image = np.full((60, 80, 3), 40, np.uint8)
    return Frame(image, name or f"f{index}.png", index, TIME_S)


def _result(score: float) -> Result:
    anomaly_map = np.zeros((6, 8), np.float32)
    anomaly_map[2, 3] = score
    verdict = "anomalous" if score > 1 else "good"
    return Result(anomaly_map, score, verdict, 1.0, 1.0, {"execute": 1.23456, "total": 2.0})


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_a_frame_becomes_a_line_and_an_overlay(tmp_path: Path):
    frame, result = _frame(7), _result(2.5)
    with FolderSink(tmp_path / "out", 3.0) as sink:
        sink.write(Judgement("camera:0", frame, result, judged_s=frame.monotonic_s + 0.005))
    (line,) = _lines(tmp_path / "out")
    assert line == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "source": "camera:0",
        "name": "f7.png",
        "frame": 7,
        "score": 2.5,
        "threshold": 1.0,
        "verdict": "anomalous",
        "boxes": [{"x": 30, "y": 20, "width": 10, "height": 10, "peak": 2.5}],
        "age_ms": 5.0,
        "latency_ms": {"execute": 1.235, "total": 2.0},
    }
    assert datetime.fromisoformat(line["time"]).astimezone(timezone.utc).timestamp() == TIME_S
    written = np.asarray(Image.open(tmp_path / "out/overlays/f7.png"))
    np.testing.assert_array_equal(written, draw(frame.image, result, 3.0))


def test_lines_are_there_at_once_and_a_later_run_adds_to_them(tmp_path: Path):
    with FolderSink(tmp_path, 3.0, FolderOptions(overlays=False)) as sink:
        sink.write(Judgement("a", _frame(0), _result(0.5)))
        assert len(_lines(tmp_path)) == 1  # before closing
    with FolderSink(tmp_path, 3.0, FolderOptions(overlays=False)) as sink:
        sink.write(Judgement("b", _frame(0), _result(0.5)))
    assert [line["source"] for line in _lines(tmp_path)] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.jsonl"]


def test_images_that_differ_in_suffix_only_keep_their_overlays():
    assert [overlay_name(name) for name in ("a.png", "a.jpg", "clip_000001")] == [
        "a.png",
        "a.jpg.png",
        "clip_000001.png",
    ]


def test_several_sources_with_the_same_names_have_their_own_overlays(tmp_path: Path):
    with FolderSink(tmp_path, 3.0, FolderOptions(by_source=True)) as sink:
        for source in ("left/images", "right/images"):
            sink.write(Judgement(source, _frame(0), _result(0.5)))
    overlays = sorted(path.relative_to(tmp_path).parts for path in (tmp_path / "overlays").rglob("*.png"))
    assert len(overlays) == 2 and all(parts[0] == "overlays" and parts[2] == "f0.png" for parts in overlays)
    assert [line["source"] for line in _lines(tmp_path)] == ["left/images", "right/images"]


def test_overlays_stay_below_the_cap(tmp_path: Path):
    with FolderSink(tmp_path, 3.0, FolderOptions(cap_bytes=1)) as sink, pytest.raises(OSError, match="cap of 1 bytes"):
        sink.write(Judgement("a", _frame(0), _result(0.5)))
    with FolderSink(tmp_path, 3.0) as sink:
        sink.write(Judgement("a", _frame(0), _result(0.5)))
    size = (tmp_path / "overlays/f0.png").stat().st_size
    with FolderSink(tmp_path, 3.0, FolderOptions(cap_bytes=3 * size + size // 2)) as sink:
        for i in range(10, 20):
            sink.write(Judgement("a", _frame(i), _result(0.5)))
    # f0 was written without a cap, so it is not the cap's to remove
    kept = [path.name for path in (tmp_path / "overlays").glob("*.png")]
    assert sorted(kept) == ["f0.png", "f17.png", "f18.png", "f19.png"]


def test_a_contact_sheet_is_written_on_closing(tmp_path: Path):
    with FolderSink(tmp_path, 3.0, FolderOptions(overlays=False, sheet=True)) as sink:
        for i, score in enumerate((0.5, 2.0, 1.5)):
            sink.write(Judgement("a", _frame(i), _result(score)))
        assert not (tmp_path / "contact_sheet.png").exists()
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width == 3 * (320 + 8) + 8
    sink.close()


def test_a_run_without_frames_has_no_contact_sheet(tmp_path: Path):
    FolderSink(tmp_path, 3.0, FolderOptions(sheet=True)).close()
    assert not (tmp_path / "contact_sheet.png").exists()


def test_the_worst_are_kept_highest_first_by_their_thresholds_and_ties_in_order():
    worst = Worst(count=4)
    scores = [
        ("a", 1.0, 1),
        ("b", 3.0, 1),
        ("c", 0.5, 1),
        ("d", 2.0, 1),
        ("e", 1.0, 0.5),
        ("f", math.nan, 1),
        ("g", 2.9, 3),
    ]
    for name, score, threshold in scores:
        worst.add(name, replace(_result(score), threshold=threshold), np.zeros((4, 4, 3), np.uint8))
    assert [tile.caption for tile in worst.tiles()] == ["f  no score", "b  3.000", "d  2.000", "e  1.000"]


def test_no_two_images_of_a_folder_share_an_overlay():
    names = ["a.png", "a.jpg", "a.jpg.png", "a.png.png", "a.jpg.png.png", "A.JPG.png", "v_000001", "a.b.png"]
    assert len({overlay_name(name) for name in names}) == len(names)
    assert overlay_name("a.png") == "a.png" and overlay_name("a.b.png") == "a.b.png"
