"""Where verdicts go: a folder with one JSON line and one overlay a frame."""

import errno
import heapq
import json
import os
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from runtime.detector import Result
from runtime.files import whole_file
from runtime.frame import Frame, Image8
from runtime.overlay import Tile, contact_sheet, draw, thumbnail
from runtime.regions import regions_above

LINES_NAME = "frames.jsonl"
OVERLAYS_NAME = "overlays"
SHEET_NAME = "contact_sheet.png"
SHEET_TILES = 48  # the highest scores of a run: what a person looks at first
SHEET_COLUMNS = 6
SHEET_TILE_WIDTH = 320


def as_json(frame: Frame, result: Result, source: str) -> dict[str, Any]:
    """Return what a line of `frames.jsonl` says: boxes in frame pixels, latencies in milliseconds, time in UTC."""
    captured = datetime.fromtimestamp(frame.captured_s, timezone.utc)
    return {
        "time": captured.isoformat(timespec="milliseconds"),
        "source": source,
        "name": frame.name,
        "frame": frame.index,
        "score": result.image_score,
        "threshold": result.threshold,
        "verdict": result.verdict,
        "boxes": [
            asdict(box) for box in regions_above(result.anomaly_map, result.map_threshold, frame.image.shape[:2])
        ],
        "latency_ms": {stage: round(ms, 3) for stage, ms in result.latency_ms.items()},
    }


class JsonLines:
    """Appends objects to a file, one a line; a line is there as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab", buffering=0)  # unbuffered: one write is one line on the disk, Ctrl-C or not

    def append(self, value: Any) -> None:
        """Write `value` as one line. Raises `OSError` for a full disk and takes a part of a line back."""
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) != len(line):
            self._file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


class Worst:
    """Keeps thumbnails of the highest scores seen, so that a run of any length fits into memory."""

    def __init__(self, count: int = SHEET_TILES) -> None:
        self._count = count
        self._seen = 0
        self._heap: list[tuple[float, int, Tile]] = []  # the lowest score kept is first; ties go to the earlier frame

    def add(self, name: str, score: float, overlay: Image8) -> None:
        """Offer one overlay."""
        self._seen += 1
        if len(self._heap) == self._count and score <= self._heap[0][0]:
            return
        tile = Tile(thumbnail(overlay, SHEET_TILE_WIDTH), f"{name}  {score:.3f}")
        put = heapq.heappush if len(self._heap) < self._count else heapq.heapreplace
        put(self._heap, (score, -self._seen, tile))

    def tiles(self) -> list[Tile]:
        """Return what was kept, the highest score first."""
        return [tile for _, _, tile in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class FolderSink:
    """Writes into `folder`: `frames.jsonl`, `overlays/<name>.png` and, on closing, `contact_sheet.png`.

    `source` is the source's name and `maximum` the largest score the engine can give. An existing
    `frames.jsonl` is continued; an overlay of the same name is replaced.
    """

    def __init__(self, folder: Path, source: str, maximum: float, overlays: bool = True, sheet: bool = False) -> None:
        self.folder = folder
        self._source = source
        self._maximum = maximum
        self._overlays = overlays
        self._worst = Worst() if sheet else None
        self._lines = JsonLines(folder / LINES_NAME)

    def write(self, frame: Frame, result: Result) -> None:
        """Write one frame's overlay, then its line: a line's overlay is always there."""
        if self._overlays or self._worst:
            overlay = draw(frame.image, result, self._maximum)
            if self._overlays:
                save_png(self.folder / OVERLAYS_NAME / overlay_name(frame.name), overlay)
            if self._worst:
                self._worst.add(frame.name, result.image_score, overlay)
        self._lines.append(as_json(frame, result, self._source))

    def close(self) -> None:
        """Write the contact sheet, if any was asked for, and close the lines; a second call does nothing."""
        self._lines.close()
        worst, self._worst = self._worst, None
        if worst and (tiles := worst.tiles()):
            save_png(self.folder / SHEET_NAME, contact_sheet(tiles, min(SHEET_COLUMNS, len(tiles)), SHEET_TILE_WIDTH))

    def __enter__(self) -> "FolderSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def overlay_name(name: str) -> str:
    """Return the overlay's file name; `a.jpg` becomes `a.jpg.png`, beside the overlay of an `a.png`."""
    return name if name.endswith(".png") else f"{name}.png"


def save_png(path: Path, image: Image8) -> None:
    """Write uint8 (H, W, 3) RGB as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1)  # level 6 takes four times as long
