"""JSON lines: one object a frame, on stdout or in a file that is cut into pieces before it fills the disk."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from runtime.common.closing import Closing
from runtime.common.locks import is_at
from runtime.common.moments import utc
from runtime.common.pieces import PIECES, next_piece, pieces_of
from runtime.images.parts import Part
from runtime.images.regions import Region
from runtime.images.view import View
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.sinks.stdout import Stdout

TAIL_BYTES = 1 << 20  # longer than any line
BEGINNING = b'{"time":'  # of every line of ours


def as_json(judgement: Judgement) -> dict[str, Any]:
    """Return what a line says: time in UTC, scores, boxes in pixels of the judged frame, latencies in milliseconds.

    "tiles" says into how many tiles the frame was cut, where it was.
    "camera_s" is the time of capture by the camera's own clock, in seconds, where it says one.
    Where the verdict is "none", "reason" says why, and "score" is null where the engine gave no number.

    "boxes" are those of the map above its threshold, the highest peak first: "x", "y", "width", "height" and "peak".
    Where the camera's frame was cut, turned or masked before it was judged, "view" says how, and "camera_boxes" holds
    the same boxes in the same order in the pixels of the camera's own frame. Without "view" the judged frame is the
    camera's, and "boxes" are in its pixels already.

    "run" names the run, whose record (`runtime.records.run`) holds what is the same in all its lines. Where a trigger
    asked for it: "part", "trigger" (how it came), "asked" (when), "answer_ms" and "late". "answer" is false in a line
    that answers nobody, because its part was answered at the deadline. "decision" is the line's, of several frames.
    """
    frame, result = judgement.frame, judgement.result
    boxes = judgement.boxes
    line: dict[str, Any] = {
        "time": utc(frame.captured_s),
        "source": judgement.source,
        "name": frame.name,
        "frame": frame.index,
        "score": result.score,
        "threshold": result.threshold,
        "verdict": result.verdict,
        "boxes": [box.fields() for box in boxes],
        "age_ms": round(judgement.age_ms, 3),
        "latency_ms": {stage: round(ms, 3) for stage, ms in result.latency_ms.items()},
        **_of_run(judgement),
    }
    if judgement.tiles:
        line["tiles"] = judgement.tiles
    if frame.camera_s is not None:
        line["camera_s"] = round(frame.camera_s, 6)
    if result.reason:
        line["reason"] = result.reason
    if judgement.decision is not None:
        line["decision"] = judgement.decision
    line |= _of_trigger(judgement)
    if judgement.parts:
        line["parts"] = [_of_part(part) for part in judgement.parts]
    if judgement.view is not None and (said := judgement.view.describe()):
        line["view"] = said
        line["camera_boxes"] = [_in_camera(judgement.view, box, frame.image.shape[:2]).fields() for box in boxes]
    return line


def _of_part(part: Part) -> dict[str, Any]:
    """Return what a line says of one of several detectors or regions; its boxes are in the camera's pixels."""
    result = part.result
    said: dict[str, Any] = {
        "name": part.name,
        "verdict": result.verdict,
        "score": result.score,
        "threshold": result.threshold,
    }
    said["boxes"] = [box.fields() for box in part.boxes]
    return {**said, "reason": result.reason} if result.reason else said


def _of_run(judgement: Judgement) -> dict[str, Any]:
    """Return the fields of run and recipe: those that there are, with a recipe the hashes of what judged."""
    of_recipe = ("recipe", "engine_sha256", "sidecar_sha256") if judgement.recipe else ()
    return {name: value for name in ("run", *of_recipe) if (value := getattr(judgement, name))}


def _of_trigger(judgement: Judgement) -> dict[str, Any]:
    """Return what a line says of the trigger."""
    trigger, asked_s, answer_ms = judgement.trigger, judgement.asked_s, judgement.answer_ms
    if trigger is None or asked_s is None or answer_ms is None:
        return {}
    said: dict[str, Any] = {"part": trigger.part, "trigger": trigger.origin, "asked": utc(asked_s)}
    said |= {"answer_ms": round(answer_ms, 3), "late": judgement.late}
    return said if judgement.answers else {**said, "answer": False}


def _in_camera(view: View, region: Region, judged_size: tuple[int, int]) -> Region:
    box = view.to_camera((region.x, region.y, region.width, region.height), judged_size)
    return Region(*box, region.peak)


def encode(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8. Raises `ValueError` for NaN and infinities, which JSON has not."""
    return json.dumps(value, allow_nan=False).encode()


class JsonLines:
    """Appends objects to a file, one a line; a line is there as a whole or not at all.

    With `cap_bytes` the file `frames.jsonl` and its older pieces `frames.000001.jsonl`, ... together stay below that:
    the oldest piece is removed. A piece of a line that a power cut left behind is removed on opening. A file that was
    renamed, removed or emptied by others (logrotate) is begun anew with the next line.
    """

    def __init__(self, path: Path, cap_bytes: int | None = None) -> None:
        self.path = path
        self._piece_bytes = None if cap_bytes is None else max(1, cap_bytes // PIECES)
        self._is_new = not path.exists()
        self._file = self._open()

    def append(self, value: Any) -> None:
        """Write `value` as one line. Raises `OSError` for a full disk and takes a part of a line back."""
        line = encode(value) + b"\n"
        if self._file.closed or not is_at(self._file.fileno(), self.path):  # rotated, or removed
            self._open_again()
        self._append(line)
        if not os.fstat(self._file.fileno()).st_nlink:  # removed just now, and the line with it
            self._open_again()
            self._append(line)

    def _append(self, line: bytes) -> None:
        start = self._file.seek(0, os.SEEK_END) if self._file.seekable() else 0
        if self._piece_bytes is not None and start and start + len(line) > self._piece_bytes:
            self._begin_piece()
        append_whole(self._file, line, self.path)

    def close(self, keep_empty: bool = True) -> None:
        """Close the file; a second call does nothing.

        Without `keep_empty` a file goes that this run made and left empty.
        """
        if not (keep_empty or self._file.closed) and self._is_new:
            with contextlib.suppress(OSError):
                if self.path.is_file() and not self.path.stat().st_size:
                    self.path.unlink()
        self._file.close()

    def pieces(self) -> list[Path]:
        """Return the older pieces, the oldest first."""
        return pieces_of(self.path)

    def _open(self) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab", buffering=0)  # unbuffered: one write is one line on the disk, Ctrl-C or not
        _mend_end(self.path)
        return file

    def _open_again(self) -> None:
        before, self._file = self._file, self._open()
        before.close()

    def _begin_piece(self) -> None:
        older = self.pieces()
        self._file.close()
        try:
            self.path.replace(next_piece(self.path))
            for piece in older[: max(0, len(older) + 2 - PIECES)]:  # the new piece and the open file count
                piece.unlink()
        finally:
            self._file = self._open()


def append_whole(file: Any, line: bytes, path: Path) -> None:
    """Append `line` to an unbuffered file, or nothing of it. Raises `OSError` naming `path` for a full disk."""
    start = file.seek(0, os.SEEK_END) if file.seekable() else 0
    if file.write(line) != len(line):
        file.truncate(start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _mend_end(path: Path) -> None:
    """Remove what follows the last line's end if it is the beginning of a line of ours; close any other last line."""
    if not path.is_file():  # a pipe or a device has no end to mend
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read(TAIL_BYTES).rpartition(b"\n")[2]
        if tail and (tail.startswith(BEGINNING) or BEGINNING.startswith(tail)):
            file.truncate(size - len(tail))
        elif tail:
            file.write(b"\n")


class LinesSink(Closing):
    """One JSON line a frame, to the file `path` (see `JsonLines`) or, without one, to stdout."""

    queueing = Queueing(capacity=1024, max_bytes=256 << 20, keep="oldest", pictures=False)

    def __init__(self, path: Path | None = None, cap_bytes: int | None = None) -> None:
        self.name = "JSON lines" if path is None else str(path)
        self._stdout = Stdout()
        self._lines = None if path is None else JsonLines(path, cap_bytes)

    @property
    def gone(self) -> bool:
        """Whether the reader of stdout has gone."""
        return self._stdout.gone

    def write(self, judgement: Judgement) -> None:
        """Append one line. Raises `OSError` for a full disk or a reader that has gone."""
        if self._lines is None:
            self._stdout.write(encode(as_json(judgement)) + b"\n")
        else:
            self._lines.append(as_json(judgement))

    def close(self) -> None:
        """Close the file (stdout stays open); a second call does nothing."""
        if self._lines is not None:
            self._lines.close(keep_empty=False)
