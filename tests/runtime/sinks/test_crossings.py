"""Every sink with every set of sources and whatever befalls a line: no verdict is lost or another source's.

What a sink says that it delivered is what can be read from where it went, and what was whole before stays so.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.common.files import safe_name
from runtime.detector import Detector, load
from runtime.images.overlay import draw
from runtime.inspection import Inspection
from runtime.records.read import Query, judgements
from runtime.sinks.arguments import add_arguments, only_writer, sinks_from
from runtime.sinks.console import ConsoleSink
from runtime.sinks.delivery import Deliveries
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Counts
from runtime.sources.frame import Frame, Source
from tests.support.broker import Broker, Listener, needs_broker
from tests.support.small_disk import fill, small_disk
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until
from tests.support.webhook_server import WebhookServer

SOURCES = {
    "one": ["camera:0"],
    "three": ["camera:0", "camera:1", "clip.mp4"],
    # what a file name cannot tell apart
    "alike": ["rtsp://line/?channel=1", "rtsp://line/?channel=2", "rtsp://line/ channel=2"],
}
FRAMES = 8  # a source and a run


class Seen(NamedTuple):
    """A verdict as it can be read from a sink's output; the score tells source and frame apart in these tests."""

    source: str
    frame: int
    score: float


class Line(Source):
    """Frames of one grey each, brighter and larger for the later sources; all sources name their frames alike."""

    live = False
    dropped = 0

    def __init__(self, name: str, place: int, first: int, at: dict[int, Callable[[], None]]) -> None:
        self.name, self._place, self._first, self._at = name, place, first, at

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._first, self._first + FRAMES):
            self._at.get(index, lambda: None)()
            image = np.full(
                (48 * (self._place + 1), 64 * (self._place + 1), 3), 100 + 48 * self._place + 2 * index, np.uint8
            )
            yield Frame(image, f"camera_{index:06d}", index, time.time())

    def close(self) -> None:
        pass


@dataclass
class Run:
    """What was judged, and what became of it."""

    judged: list[Judgement] = field(default_factory=list)
    counts: tuple[Counts, ...] = ()

    def offer(self, judgement: Judgement) -> None:
        self.judged.append(judgement)

    def seen(self) -> list[Seen]:
        return sorted(_seen(one) for one in self.judged)


def _seen(judgement: Judgement) -> Seen:
    return Seen(judgement.source, judgement.frame.index, round(judgement.result.image_score, 4))


@dataclass
class Place:
    """Where a sink writes to, and what helps to read it."""

    folder: Path
    sources: list[str]
    judged: list[Judgement] = field(default_factory=list)
    listener: Listener | None = None
    server: WebhookServer | None = None
    broker: Broker | None = None
    capsys: pytest.CaptureFixture[str] | None = None
    deliveries: Deliveries | None = None
    printed: str = ""

    def lines(self, path: Path) -> list[Seen]:
        text = path.read_text() if path.exists() else ""
        return _of_lines([json.loads(line) for line in text.split("\n") if line])

    def overlay(self, source: str, index: int) -> np.ndarray:
        (one,) = (one for one in self.judged if (one.source, one.frame.index) == (source, index))
        return draw(one.frame.image, one.result, 3.0)


def _of_lines(lines: list[dict]) -> list[Seen]:
    return sorted(Seen(line["source"], line["frame"], round(line["score"], 4)) for line in lines)


def _folder(place: Place) -> list[Seen]:
    found = place.lines(place.folder / "out" / "frames.jsonl")
    for source, index, _ in found:
        inside = safe_name(source) if len(place.sources) > 1 else ""
        path = place.folder / "out" / "overlays" / inside / f"camera_{index:06d}.png"
        assert np.array_equal(np.asarray(Image.open(path)), place.overlay(source, index)), path
    return found


def _video(place: Place) -> list[Seen]:
    """By the size of the pictures, which is a source's own, and their order; greys do not survive the codec."""
    found = []
    for source in place.sources:
        stem = f"line_{safe_name(source)}" if len(place.sources) > 1 else "line"
        mine = [one for one in place.judged if one.source == source]
        pictures = [picture for path in place.folder.glob(f"{stem}_0*.mp4") for picture in _decoded(path)]
        assert {picture.shape for picture in pictures} <= {one.frame.image.shape for one in mine}
        found += [_seen(one) for one in mine[: len(pictures)]]
    return sorted(found)


def _decoded(path: Path) -> list[np.ndarray]:
    capture, pictures = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        pictures.append(read[1])
    return pictures


def _events(place: Place) -> list[Seen]:
    found = []
    for event in (path for path in (place.folder / "events").iterdir() if path.is_dir()):
        lines = [json.loads(line) for line in (event / "frames.jsonl").read_text().split("\n") if line]
        assert len({line["source"] for line in lines}) <= 1
        for line in lines:
            grey = line["score"] / 3 * 255
            picture = np.asarray(Image.open(event / "frames" / f"{line['name']}.jpg"), float)
            assert abs(picture.mean() - grey) < 1, event
            Image.open(event / "overlays" / f"{line['name']}.jpg").load()
        found += lines
    return _of_lines(found)


def _log(place: Place) -> list[Seen]:
    path = place.folder / "inspections.db"
    if not path.exists():
        return []
    records = list(judgements(path, Query(), newest_first=False))
    assert [record["id"] for record in records] == sorted({record["id"] for record in records})
    return sorted(Seen(record["source"], record["frame"], round(record["score"], 4)) for record in records)


def _mqtt(place: Place) -> list[Seen]:
    assert place.listener is not None
    time.sleep(0.05)  # a second copy of a line would be on its way
    return _of_lines(place.listener.lines())


def _webhook(place: Place) -> list[Seen]:
    assert place.server is not None
    return _of_lines([body for _, body in place.server.got])


def _console(place: Place) -> list[Seen]:
    assert place.capsys is not None
    place.printed += place.capsys.readouterr().out
    source = r"(?P<source>.*)  " if len(place.sources) > 1 else ""
    pattern = re.compile(source + r"camera_(?P<frame>\d+)  (?P<score>[0-9.]+)  anomalous")
    matches = [pattern.fullmatch(line) for line in place.printed.splitlines()]
    found = [match.groupdict() for match in matches if match]
    assert len(found) == len(matches)
    return sorted(Seen(one.get("source", place.sources[0]), int(one["frame"]), float(one["score"])) for one in found)


class Kind(NamedTuple):
    options: Callable[[Place], list[str]]
    read: Callable[[Place], list[Seen]]


KINDS = {
    "folder": Kind(lambda place: ["--output", f"{place.folder}/out"], _folder),
    "lines": Kind(
        lambda place: ["--json-file", f"{place.folder}/all.jsonl"],
        lambda place: place.lines(place.folder / "all.jsonl"),
    ),
    "video": Kind(lambda place: ["--video", f"{place.folder}/line.mp4"], _video),
    "events": Kind(lambda place: ["--events", f"{place.folder}/events"], _events),
    "log": Kind(lambda place: ["--log", f"{place.folder}/inspections.db"], _log),
    "mqtt": Kind(lambda place: ["--mqtt", place.broker.url() if place.broker else ""], _mqtt),
    "webhook": Kind(lambda place: ["--webhook", place.server.url if place.server else ""], _webhook),
    "console": Kind(lambda place: [], _console),
}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
    with load(write_tiny_engine(tmp_path_factory.mktemp("engine")), backend="onnxruntime") as detector:
        yield detector


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.kill()


def _place(kind: str, folder: Path, sources: list[str], request: pytest.FixtureRequest, stack: ExitStack) -> Place:
    place = Place(folder, sources)
    if kind == "mqtt":
        place.broker = request.getfixturevalue("broker")
        place.listener = Listener(place.broker)
        stack.callback(place.listener.stop)
    if kind == "webhook":
        place.server = WebhookServer()
        stack.callback(place.server.stop)
    if kind == "console":
        place.capsys = request.getfixturevalue("capsys")
    return place


def _run(
    place: Place, kind: str, detector: Detector, first: int = 0, at: dict[int, Callable[[], None]] | None = None
) -> Run:
    """Judge `FRAMES` frames of each source from `first` on; `at` has what the first source does before a frame."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(KINDS[kind].options(place))
    run = Run()
    sources = [Line(name, i, first, at or {} if i == 0 else {}) for i, name in enumerate(place.sources)]
    with only_writer(args):
        sinks = sinks_from(args, 3.0, len(sources)) or [ConsoleSink(len(sources) > 1)]
        deliveries = place.deliveries = Deliveries(sinks, patience_s=60, close_timeout_s=60, say=lambda line: None)
        try:
            with deliveries, Inspection(sources, detector, [run, deliveries]) as inspection:
                inspection.run()
        finally:
            run.counts = deliveries.counts()
            place.judged += run.judged
    return run


crossed = pytest.mark.parametrize("named", SOURCES)
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[needs_broker] * (kind == "mqtt")) for kind in KINDS]
)


@every_kind
@crossed
def test_a_restart_adds_to_what_was_there(
    kind: str, named: str, tmp_path: Path, detector: Detector, request: pytest.FixtureRequest
):
    with ExitStack() as stack:
        place = _place(kind, tmp_path, SOURCES[named], request, stack)
        runs = [_run(place, kind, detector, first) for first in (0, FRAMES)]
        for run in runs:
            assert len(run.judged) == FRAMES * len(place.sources) == run.counts[0].delivered
            assert run.counts[0].undelivered == 0
        expected = sorted([*runs[0].seen(), *runs[1].seen()])
        wait_until(lambda: len(KINDS[kind].read(place)) >= len(expected))
        assert KINDS[kind].read(place) == expected


@every_kind
@crossed
def test_a_source_that_is_lost_takes_nothing_along(
    kind: str, named: str, tmp_path: Path, detector: Detector, request: pytest.FixtureRequest
):
    def lost() -> None:
        raise UserError("the camera must answer", "silence")

    with ExitStack() as stack:
        place = _place(kind, tmp_path, SOURCES[named], request, stack)
        with pytest.raises(UserError, match="must answer"):
            _run(place, kind, detector, 0, {5: lost})
        assert len(place.judged) == 5 + FRAMES * (len(place.sources) - 1)
        expected = sorted(_seen(one) for one in place.judged)
        wait_until(lambda: len(KINDS[kind].read(place)) >= len(expected))
        assert KINDS[kind].read(place) == expected


def _contents(folder: Path) -> dict[Path, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    ours = (path for path in found if ".cflow-edge" not in path.name and path.name != "filler")
    return {path: path.read_bytes() for path in ours if ".db" not in path.suffix}  # a database is no list of lines


@every_kind
@crossed
def test_a_full_disk_costs_what_is_counted_and_nothing_that_was_there(
    kind: str, named: str, tmp_path: Path, detector: Detector, request: pytest.FixtureRequest
):
    with ExitStack() as stack:
        # a video keeps 64 MB free for its own end
        disk = stack.enter_context(small_disk(tmp_path / "disk", "72m" if kind == "video" else "1m"))
        place = _place(kind, disk, SOURCES[named], request, stack)
        first = _run(place, kind, detector)
        assert first.counts[0].undelivered == 0
        before = _contents(disk)

        def fill_under_way() -> None:
            wait_until(lambda: place.deliveries and place.deliveries.counts()[0].delivered)
            fill(disk, *disk.rglob("*.jsonl"))

        full = _run(place, kind, detector, FRAMES, {FRAMES + 4: fill_under_way})
        counts = full.counts[0]
        assert counts.delivered + counts.failed == len(full.judged) and counts.lost == counts.queued == 0
        after = _contents(disk)
        assert all(after[path].startswith(content) for path, content in before.items())
        wait_until(lambda: len(KINDS[kind].read(place)) >= len(first.judged) + counts.delivered)
        found = KINDS[kind].read(place)
        assert len(found) == len(first.judged) + counts.delivered and set(found) <= set(map(_seen, place.judged))
        assert kind == "video" or set(found) >= set(first.seen())
        assert (counts.failed > 0) == (kind in ("folder", "lines", "video", "events", "log"))

        (disk / "filler").unlink()
        third = _run(place, kind, detector, 2 * FRAMES)
        assert third.counts[0].undelivered == 0
        wait_until(lambda: len(KINDS[kind].read(place)) >= len(found) + len(third.judged))
        last = KINDS[kind].read(place)
        assert len(last) == len(found) + len(third.judged) and (kind == "video" or set(last) >= set(third.seen()))
