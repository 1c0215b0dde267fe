"""Saves anomalies only: a folder per event, with the frames before and after it.

DIR/20250131T081500.250Z_camera_0-1a2b3c4d_000123/
    event.json      when, where, how many, the worst; "complete" once it has its end
    frames.jsonl    a line a frame, as `runtime.sinks.json_lines` writes them
    frames/         every frame as the camera gave it, JPEG
    overlays/       those that are anomalous or have no verdict, with map, contour and verdict, JPEG

Of a large frame both are reduced, and beside them stands

    crops/          the frame's own pixels around each box; its line says where in the frame each lies
"""

import contextlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from runtime.common.closing import Closing
from runtime.common.files import safe_name, write_bytes, write_json
from runtime.images.pixels import is_large
from runtime.sinks.disk_cap import DiskCap
from runtime.sinks.event_ring import OVERVIEW_WIDTH, Ring, Shot, Window, jpeg
from runtime.sinks.json_lines import JsonLines
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing

SCHEMA = "cflow-edge/event/1"
EVENT_FRAMES = 500  # a longer event goes on in a second folder, so that the cap can let its beginning go

AROUND = Window(10)


@dataclass(frozen=True)
class EventOptions:
    """`before` and `after`: what is kept around the alarming frames; `cap_bytes`: of all events in the folder.

    `frames` says whether frames are kept "full", or reduced with "crops" around the boxes; "auto": large ones so.
    """

    before: Window = AROUND
    after: Window = AROUND
    cap_bytes: int = 2_000_000_000
    max_frames: int = EVENT_FRAMES
    frames: Literal["auto", "full", "crops"] = "auto"

    def whole(self, judgement: Judgement) -> bool:
        """Whether all of a frame is kept at its own resolution."""
        return self.frames == "full" or (self.frames == "auto" and not is_large(judgement.frame.image))


class EventSink(Closing):
    """Writes events into `folder`, the oldest removed once all are over the cap; `maximum` is the largest score.

    An event begins with a frame that is anomalous or has no verdict, and ends when `after` has passed without
    another. Its files are written
    as they come: after a power cut only event.json lacks its end.
    """

    queueing = Queueing(capacity=128, keep="oldest")

    def __init__(self, folder: Path, maximum: float, options: EventOptions | None = None) -> None:
        self.name = f"events in {folder}"
        self._options = options or EventOptions()
        self._maximum = maximum
        self._cap = DiskCap(folder, self._options.cap_bytes, "events")
        self._rings: dict[str, Ring] = {}  # one a source
        self._events: dict[str, _Event] = {}  # those that have not ended, one a source at most

    def write(self, judgement: Judgement) -> None:
        """Keep one frame in memory or, during an event, on disk. Raises `OSError` for a full disk or cap."""
        source, shot = judgement.source, Shot.of(judgement, self._options.whole(judgement))
        event = self._events.get(source)
        if event is not None and event.ends_before(shot):
            self._end(source)
            event = None
        if event is None:
            ring = self._rings.setdefault(source, Ring(self._options.before))
            if not shot.alarming:
                ring.push(shot)
                return
            event = self._begin(source, shot, ring)
        event.add(shot, self._overlay(judgement) if shot.alarming else None)

    def _overlay(self, judgement: Judgement) -> bytes:
        if self._options.whole(judgement):
            return jpeg(judgement.overlay(self._maximum))
        return jpeg(judgement.small_overlay(self._maximum, OVERVIEW_WIDTH))

    def _begin(self, source: str, first: Shot, ring: Ring) -> "_Event":
        event = _Event(self._cap, source, first, self._options)
        self._events[source] = event
        try:
            for shot in ring.before(first):
                event.add(shot, None)
        finally:
            ring.clear()  # also on a full disk: these frames are not before the next event
        return event

    def _end(self, source: str) -> None:
        self._events.pop(source).close()

    def close(self) -> None:
        """End every event; a second call does nothing."""
        with contextlib.ExitStack() as stack:  # all of them, though one may fail
            for source in list(self._events):
                stack.callback(self._end, source)


class _Event:
    """One event on disk, from its first alarming frame on."""

    def __init__(self, cap: DiskCap, source: str, first: Shot, options: EventOptions) -> None:
        began = datetime.fromtimestamp(first.captured_s, timezone.utc)
        stamp = began.strftime("%Y%m%dT%H%M%S.%f")[:-3]
        self.folder = _new_folder(cap.folder, f"{stamp}Z_{safe_name(source)}_{first.index:06d}")
        self._cap, self._options, self._last = cap, options, first
        self._summary: dict[str, Any] = {"schema": SCHEMA, "complete": False, "source": source, "frames": 0}
        self._summary |= {
            "anomalous": 0,
            "none": 0,
            "threshold": first.line["threshold"],
            "peak_score": first.line["score"],
        }
        self._summary |= {"began": first.line["time"], "last_anomalous": first.line["time"]}
        self._recipe = first.line.get("recipe")
        self._since_last = 0  # frames after the last alarming one
        self._begun = False  # the frames from before come first
        cap.held.add(self.folder.name)
        with contextlib.ExitStack() as undo:  # or a full disk would gain an empty folder with every frame
            undo.callback(cap.held.discard, self.folder.name)
            undo.callback(_remove_empty, self.folder)
            for name in ("event.json", "frames.jsonl"):
                undo.callback(self._take_back, self.folder / name)
                cap.expect(self.folder.name, self.folder / name)
            self._write_summary()
            self._lines = JsonLines(self.folder / "frames.jsonl")
            undo.callback(self._lines.close)
            undo.pop_all()

    def _take_back(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._cap.drop(self.folder.name, path)

    def ends_before(self, shot: Shot) -> bool:
        """Whether `shot` is no longer part of this event."""
        if self._summary["frames"] >= self._options.max_frames or shot.line.get("recipe") != self._recipe:
            return True  # scores of another recipe are held against another threshold
        passed = self._options.after.covers(self._since_last + 1, shot.judged_s - self._last.judged_s)
        return not (shot.alarming or passed)

    def add(self, shot: Shot, overlay: bytes | None) -> None:
        """Write one frame and its line; `overlay` is a JPEG for alarming ones."""
        if shot.alarming:
            self._last, self._since_last, self._begun = shot, 0, True
        elif self._begun:
            self._since_last += 1
        name = f"{shot.name}.jpg"
        self._save(self.folder / "frames" / name, shot.jpeg)
        if overlay is not None:
            self._save(self.folder / "overlays" / name, overlay)
        for crop, data in shot.crops.items():
            self._save(self.folder / "crops" / crop, data)
        self._lines.append(shot.line)
        self._summary["frames"] += 1
        if shot.alarming:
            self._summary["anomalous"] += shot.line["verdict"] == "anomalous"
            self._summary["none"] += shot.line["verdict"] == "none"
            scores = [score for score in (self._summary["peak_score"], shot.line["score"]) if score is not None]
            self._summary["peak_score"] = max(scores, default=None)
            self._summary["last_anomalous"] = shot.line["time"]

    def close(self) -> None:
        """Write the end of event.json."""
        self._lines.close()
        self._summary["complete"] = True
        try:
            self._enter(self._lines.path)
            self._write_summary()
        finally:
            self._cap.held.discard(self.folder.name)

    def _write_summary(self) -> None:
        write_json(self.folder / "event.json", self._summary)
        self._enter(self.folder / "event.json")

    def _save(self, path: Path, data: bytes) -> None:
        write_bytes(path, data)
        self._enter(path)

    def _enter(self, path: Path) -> None:
        self._cap.add(self.folder.name, path)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _new_folder(parent: Path, name: str) -> Path:
    """Return `name` in `parent`, or with a number behind it where that exists, made new."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
