import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.overlay import draw
from runtime.sinks.delivery import Delivery
from runtime.sinks.event_ring import Ring, Shot, Window
from runtime.sinks.events import EventOptions, EventSink
from runtime.sinks.json_lines import as_json
from tests.support.judgements import FRAME_S, TIME_S, judgement
from tests.support.small_disk import fill, small_disk


def _events(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _summary(event: Path) -> dict:
    return json.loads((event / "event.json").read_text())


def _kept(event: Path) -> list[int]:
    lines = [json.loads(line)["frame"] for line in (event / "frames.jsonl").read_text().splitlines()]
    frames = sorted(int(path.name[1:7]) for path in (event / "frames").iterdir())
    assert sorted(lines) == frames
    return lines


def _run(sink: EventSink, count: int, anomalous: tuple[int, ...], source: str = "camera:0") -> None:
    for i in range(count):
        sink.write(judgement(i, 1.5 + 0.01 * i if i in anomalous else 0.5, source))


def _options(before: int = 3, after: int = 2, cap_bytes: int = 10**9, max_frames: int = 500) -> EventOptions:
    return EventOptions(Window(before), Window(after), cap_bytes, max_frames)


def test_an_event_has_the_frames_around_it_an_overlay_and_its_story(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options()) as sink:
        _run(sink, 20, (10,))
    (event,) = _events(tmp_path)
    assert event.name.startswith("20231114T221320.650Z_") and event.name.endswith("_000010")
    assert _kept(event) == [7, 8, 9, 10, 11, 12]
    assert [path.name for path in (event / "overlays").iterdir()] == ["f000010.jpg"]
    assert _summary(event) == {
        "schema": "cflow-edge/event/1",
        "complete": True,
        "source": "camera:0",
        "frames": 6,
        "anomalous": 1,
        "none": 0,
        "threshold": 1.0,
        "peak_score": 1.6,
        "began": "2023-11-14T22:13:20.650+00:00",
        "last_anomalous": "2023-11-14T22:13:20.650+00:00",
    }
    assert json.loads((event / "frames.jsonl").read_text().splitlines()[3]) == as_json(judgement(10, 1.6))


def test_frames_and_overlays_are_the_pictures_as_far_as_jpeg_keeps_them(tmp_path: Path):
    ramp = np.linspace(0, 255, 80)
    smooth = np.broadcast_to(np.stack([ramp, 0.5 * ramp, 60 - 0.2 * ramp], 1).astype(np.uint8), (60, 80, 3))
    one = judgement(0, 2.0)
    one = replace(one, frame=replace(one.frame, image=np.ascontiguousarray(smooth)))
    with EventSink(tmp_path, 3.0, _options()) as sink:
        sink.write(one)
    (event,) = _events(tmp_path)
    for name, expected in (("frames", smooth), ("overlays", draw(one.frame.image, one.result, 3.0))):
        read = np.asarray(Image.open(event / name / "f000000.jpg")).astype(int)
        assert read.shape == (60, 80, 3)
        # JPEG at 95: below one step on a ramp; letters and lines of one pixel cost more, colour swapped far more
        assert np.abs(read - expected).mean() < 6


def test_anomalies_close_to_each_other_are_one_event_and_far_ones_are_two(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options()) as sink:
        _run(sink, 30, (5, 6, 8, 20))
    first, second = _events(tmp_path)
    assert _kept(first) == list(range(2, 11)) and _kept(second) == list(range(17, 23))
    assert _summary(first)["anomalous"] == 3 and _summary(first)["peak_score"] == 1.58
    assert _summary(first)["last_anomalous"] == as_json(judgement(8))["time"]


def test_what_an_event_has_taken_is_not_before_the_next_one(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options(3, 0)) as sink:
        _run(sink, 10, (5, 7))
    assert [_kept(event) for event in _events(tmp_path)] == [[2, 3, 4, 5], [6, 7]]


def test_windows_in_seconds(tmp_path: Path):
    options = EventOptions(Window.parse("0.1s"), Window.parse("0.09s"))  # 2 frames of 0.04 s each
    with EventSink(tmp_path, 3.0, options) as sink:
        _run(sink, 20, (10,))
    assert _kept(_events(tmp_path)[0]) == [8, 9, 10, 11, 12]


def test_nothing_before_and_after_is_the_anomalous_frame_alone(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options(0, 0)) as sink:
        _run(sink, 10, (4, 5))
    assert [_kept(event) for event in _events(tmp_path)] == [[4, 5]]


def test_every_camera_has_its_own_ring_and_events(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options(1, 1)) as sink:
        for i in range(10):
            for source in ("left", "right"):
                anomalous = (source, i) in (("left", 3), ("right", 4))
                sink.write(judgement(i, 2.0 if anomalous else 0.5, source))
    assert {_summary(event)["source"]: _kept(event) for event in _events(tmp_path)} == {
        "left": [2, 3, 4],
        "right": [3, 4, 5],
    }


def test_an_event_without_end_is_cut_into_folders(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options(max_frames=10)) as sink:
        _run(sink, 25, tuple(range(25)))
    assert [_kept(event) for event in _events(tmp_path)] == [list(range(10)), list(range(10, 20)), list(range(20, 25))]


def test_an_event_is_on_disk_while_it_lasts(tmp_path: Path):
    sink = EventSink(tmp_path, 3.0, _options())
    _run(sink, 6, (5,))
    (event,) = _events(tmp_path)
    assert _kept(event) == [2, 3, 4, 5] and _summary(event)["complete"] is False
    sink.close()
    sink.close()
    assert _summary(event)["complete"] is True


def test_the_oldest_events_go_first_also_those_of_the_run_before(tmp_path: Path):
    with EventSink(tmp_path, 3.0, _options(0, 0)) as sink:
        _run(sink, 3, (0, 2))
    first, second = _events(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (second / "notes.txt").write_text("mine")
    size = sum(path.stat().st_size for path in first.rglob("*.*"))
    with EventSink(tmp_path, 3.0, _options(0, 0, cap_bytes=round(2.5 * size))) as sink:
        _run(sink, 9, (4, 6, 8))
    left = _events(tmp_path)
    assert first not in left and [path.name for path in second.iterdir()] == ["notes.txt"]
    assert [_kept(event) for event in left if event != second] == [[6], [8]]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_disk_that_is_full_at_an_events_end_takes_nothing_of_it(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        sink = EventSink(disk / "events", 3.0, _options())
        _run(sink, 12, (10,))
        fill(disk, disk / "events" / ".cflow-edge-events.jsonl")
        with contextlib.suppress(OSError):
            sink.close()
        (event,) = _events(disk / "events")
        assert _kept(event) == [7, 8, 9, 10, 11] and _summary(event)["source"] == "camera:0"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_neither_ends_an_event_nor_empties_what_was_before(tmp_path: Path, hours: int):
    options = EventOptions(Window(None, 0.09), Window(None, 0.09))
    with EventSink(tmp_path, 3.0, options) as sink:
        for i in range(20):
            one = judgement(i, 2.0 if i in (10, 12) else 0.5)
            set_s = 3600 * hours if i >= 9 else 0
            set_s += 3600 * hours if i >= 11 else 0
            sink.write(replace(one, frame=replace(one.frame, captured_s=one.frame.captured_s + set_s)))
    (event,) = _events(tmp_path)
    assert _kept(event) == [8, 9, 10, 11, 12, 13, 14]


def test_a_full_disk_is_counted_and_gains_no_empty_folders(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        said: list[str] = []
        delivery = Delivery(EventSink(disk, 3.0, _options()), say=said.append, patience_s=60)
        for i in range(200):  # 20 events of about 200 kB
            delivery.offer(judgement(i, 2.0 if i % 10 == 5 else 0.5, size=(160, 160)))
        delivery.close()
        counts = delivery.counts()
        assert counts.failed > 0 and counts.delivered + counts.failed == 200 and counts.lost == 0
        assert "No space left" in counts.last_error and sum("No space" in line for line in said) <= 2
        assert all(any(event.iterdir()) for event in _events(disk))
        for path in disk.rglob("*.jpg"):
            with Image.open(path) as image:
                image.load()  # whole or not at all


def _shot(index: int, kilobytes: int = 1) -> Shot:
    return Shot(f"f{index}", index, TIME_S + FRAME_S * index, FRAME_S * index, False, {}, bytes(1000 * kilobytes))


def test_the_ring_is_bounded_in_frames_time_and_bytes():
    for window, most_bytes, kept in (
        (Window(5), 10**6, 5),
        (Window(0), 10**6, 0),
        (Window(None, 0.1), 10**6, 3),  # 0, 0.04 and 0.08 s old
        (Window(10**6), 10_000, 10),
        (Window(10**6), 10**9, 2000),
    ):
        ring = Ring(window, most_bytes)
        for i in range(3000):
            ring.push(_shot(i))
        assert [shot.index for shot in ring] == list(range(3000 - kept, 3000))
        assert ring.nbytes == 1000 * kept and len(ring) == kept


def test_the_ring_holds_compressed_pictures():
    one = judgement()
    smooth = replace(one, frame=replace(one.frame, image=np.full((1080, 1920, 3), 90, np.uint8)))
    shot = Shot.of(smooth)
    assert len(shot.jpeg) < 0.02 * smooth.frame.image.nbytes
    assert Image.open(io.BytesIO(shot.jpeg)).size == (1920, 1080)


def test_a_picture_that_is_no_jpeg_fails_alone(tmp_path: Path):
    one = judgement(0, 2.0)
    wide = replace(one, frame=replace(one.frame, image=np.zeros((1, 70_000, 3), np.uint8)))
    with EventSink(tmp_path, 3.0) as sink, pytest.raises(OSError, match="70000x1 is no JPEG"):
        sink.write(wide)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "s", "-2s", "nans", "infs", "4000s", "two"])
def test_windows_that_are_none_are_refused(text: str):
    with pytest.raises(UserError, match="frames or of seconds"):
        Window.parse(text)
