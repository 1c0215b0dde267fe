"""Events of large frames: a reduced picture and crops at the frame's own resolution, whose places are in the line."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.sinks.delivery import Delivery
from runtime.sinks.event_ring import Window
from runtime.sinks.events import EventOptions, EventSink
from runtime.sinks.judgement import Judgement
from tests.support.judgements import judgement
from tests.support.small_disk import small_disk

SIZE = (1000, 1500)
NOISE = 6.0  # grey levels that JPEG of quality 95 may move a smooth pixel


def _smooth(seed: int, size: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 200, (10, 15, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def _judged(index: int, *spots: tuple[int, int], size: tuple[int, int] = SIZE) -> Judgement:
    """A frame whose map is as large as itself, with defects of 6 x 4 pixels (rows x columns) at `spots`."""
    one = judgement(index, 1.5 if spots else 0.5, size=(4, 4))
    anomaly_map = np.full(size, 0.2, np.float32)
    for place, (row, column) in enumerate(spots):
        anomaly_map[row : row + 6, column : column + 4] = 2.5 - 0.1 * place
    frame = replace(one.frame, image=_smooth(index, size))
    return replace(one, frame=frame, result=replace(one.result, anomaly_map=anomaly_map))


def _lines(event: Path) -> list[dict]:
    return [json.loads(line) for line in (event / "frames.jsonl").read_text().splitlines()]


def _only_event(folder: Path) -> Path:
    (event,) = (path for path in folder.iterdir() if path.is_dir())
    return event


def _options(frames: str, before: int = 1) -> EventOptions:
    return EventOptions(Window(before), Window(1), frames=frames)


def test_crops_are_the_frames_own_pixels_where_their_line_says(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options("crops")) as sink:
        sink.write(_judged(0))
        shown = _judged(1, (500, 700), (20, 1490), (540, 690))
        sink.write(shown)
        sink.write(_judged(2))
    event = _only_event(tmp_path)
    before, line, after = _lines(event)
    assert before["crops"] == after["crops"] == []
    assert line["frame_size"] == {"width": 1500, "height": 1000} and len(line["boxes"]) == 3
    assert len(line["crops"]) == 2  # the third box lies in the first one's crop
    for crop, box in zip(line["crops"], line["boxes"], strict=False):
        pixels = np.asarray(Image.open(event / "crops" / crop["file"]))
        assert pixels.shape == (crop["height"], crop["width"], 3)
        own = shown.frame.image[crop["y"] : crop["y"] + crop["height"], crop["x"] : crop["x"] + crop["width"]]
        assert np.abs(pixels.astype(int) - own).max() <= NOISE
        assert crop["x"] <= box["x"] and box["x"] + box["width"] <= crop["x"] + crop["width"] <= 1500
        assert crop["y"] <= box["y"] and box["y"] + box["height"] <= crop["y"] + crop["height"] <= 1000
    for kind, count in (("frames", 3), ("overlays", 1)):
        pictures = list((event / kind).iterdir())
        assert len(pictures) == count and {Image.open(path).size for path in pictures} == {(1280, 853)}
    assert json.loads((event / "event.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("frames", "size", "cropped"),
    [("auto", (1000, 1500), False), ("auto", (1200, 1800), True), ("full", (1200, 1800), False)],
)
def test_only_large_frames_are_cropped_unless_asked_for(
    tmp_path: Path, frames: str, size: tuple[int, int], cropped: bool
):
    with EventSink(tmp_path, 3.0, _options(frames)) as sink:
        sink.write(_judged(0, (500, 700), size=size))
    event = _only_event(tmp_path)
    (line,) = _lines(event)
    assert ("crops" in line) == (event / "crops").exists() == cropped
    with Image.open(event / "frames" / f"{line['name']}.jpg") as picture:
        assert picture.size == ((1280, 853) if cropped else size[::-1])


def test_an_event_of_a_large_frame_takes_a_small_part_of_the_disk(tmp_path: Path):
    for frames in ("full", "crops"):
        with EventSink(tmp_path / frames, 3.0, _options(frames)) as sink:
            one = _judged(0, (500, 700), size=(1200, 1800))
            noise = np.random.default_rng(0).integers(0, 20, one.frame.image.shape, np.uint8)  # as a sensor has
            sink.write(replace(one, frame=replace(one.frame, image=cv2.add(one.frame.image, noise))))
    full, crops = (sum(path.stat().st_size for path in (tmp_path / name).rglob("*.jpg")) for name in ("full", "crops"))
    assert crops < full / 2


def test_a_disk_that_is_full_while_crops_are_written_costs_what_is_counted(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        delivery = Delivery(EventSink(disk / "events", 3.0, _options("crops")), say=lambda text: None, patience_s=60)
        for index in range(60):  # about 80 kB each
            delivery.offer(_judged(index, (500, 700), (20, 1490)))
        delivery.close(60.0)
        counts = delivery.counts()
        assert counts.failed > 0 and counts.delivered + counts.failed == 60 and "No space left" in counts.last_error
        lines = [line for event in disk.glob("events/*/") for line in _lines(event)]
        assert len(lines) == counts.delivered
        for line in lines:  # what a line tells of is there, and whole
            (event,) = {path.parent.parent for path in disk.rglob(f"frames/{line['name']}.jpg")}
            for crop in line["crops"]:
                with Image.open(event / "crops" / crop["file"]) as picture:
                    picture.load()
