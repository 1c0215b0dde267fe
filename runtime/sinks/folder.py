"""A folder with one JSON line and one overlay a frame, and a contact sheet of the worst."""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from runtime.common.closing import Closing
from runtime.common.files import safe_name, whole_file
from runtime.images.folders import IMAGE_SUFFIXES
from runtime.images.overlay import Tile, contact_sheet, thumbnail
from runtime.images.pixels import Image8
from runtime.result import Result, by_threshold
from runtime.sinks.disk_cap import DiskCap
from runtime.sinks.json_lines import JsonLines, as_json
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing

LINES_NAME = "frames.jsonl"
OVERLAYS_NAME = "overlays"
SHEET_NAME = "contact_sheet.png"
SHEET_TILES = 48  # the highest scores of a run: what a person looks at first
SHEET_COLUMNS = 6
SHEET_TILE_WIDTH = 320


class Worst:
    """Keeps thumbnails of the highest scores seen, so that a run of any length fits into memory.

    Scores are ranked by their thresholds, for recipes have one each; a frame without a score comes first.
    """

    def __init__(self, count: int = SHEET_TILES) -> None:
        self._count = count
        self._seen = 0
        self._heap: list[tuple[float, int, Tile]] = []  # the lowest rank kept is first; ties go to the earlier frame

    def add(self, name: str, result: Result, overlay: Image8) -> None:
        """Offer one overlay."""
        self._seen += 1
        score = result.score
        rank = math.inf if score is None else by_threshold(score, result.threshold)
        if len(self._heap) == self._count and rank <= self._heap[0][0]:
            return
        tile = Tile(thumbnail(overlay, SHEET_TILE_WIDTH), f"{name}  {'no score' if score is None else f'{score:.3f}'}")
        put = heapq.heappush if len(self._heap) < self._count else heapq.heapreplace
        put(self._heap, (rank, -self._seen, tile))

    def tiles(self) -> list[Tile]:
        """Return what was kept, the highest score first."""
        return [tile for _, _, tile in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


@dataclass(frozen=True)
class FolderOptions:
    """What is written beside the lines: `overlays`, and on closing a contact `sheet` of the highest scores.

    `lines_cap_bytes` bounds the lines (`JsonLines`), `cap_bytes` the overlays: the oldest go first. With `by_source`,
    for several sources in one process, each has a folder of its own inside `overlays`.
    """

    overlays: bool = True
    sheet: bool = False
    lines_cap_bytes: int | None = None
    cap_bytes: int | None = None
    by_source: bool = False


class FolderSink(Closing):
    """Writes into `folder`: `frames.jsonl`, `overlays/<name>.png` and, on closing, `contact_sheet.png`.

    `maximum` is the largest score the engine can give. An existing `frames.jsonl` is continued; an overlay of the
    same name is replaced.
    """

    queueing = Queueing(capacity=32, keep="oldest")

    def __init__(self, folder: Path, maximum: float, options: FolderOptions | None = None) -> None:
        self.name = str(folder)
        self.folder = folder
        self._maximum = maximum
        self._options = options or FolderOptions()
        self._worst = Worst() if self._options.sheet else None
        self._lines = JsonLines(folder / LINES_NAME, self._options.lines_cap_bytes)
        cap_bytes = self._options.cap_bytes if self._options.overlays else None
        self._cap = None if cap_bytes is None else DiskCap(folder / OVERLAYS_NAME, cap_bytes, "overlays")

    def write(self, judgement: Judgement) -> None:
        """Write one frame's overlay, then its line: a line's overlay is always there."""
        frame, result = judgement.frame, judgement.result
        if self._options.overlays or self._worst:
            overlay = judgement.overlay(self._maximum)
            if self._options.overlays:
                self._save(safe_name(judgement.source) if self._options.by_source else "", frame.name, overlay)
            if self._worst:
                self._worst.add(frame.name, result, overlay)
        self._lines.append(as_json(judgement))

    def _save(self, source: str, name: str, overlay: Image8) -> None:
        path = self.folder / OVERLAYS_NAME / source / overlay_name(name)
        save_png(path, overlay)
        if self._cap is not None:
            self._cap.add(f"{source}/{path.name}", path)

    def close(self) -> None:
        """Write the contact sheet, if any was asked for, and close the lines; a second call does nothing."""
        self._lines.close(keep_empty=False)
        worst, self._worst = self._worst, None
        if worst and (tiles := worst.tiles()):
            save_png(self.folder / SHEET_NAME, contact_sheet(tiles, min(SHEET_COLUMNS, len(tiles)), SHEET_TILE_WIDTH))


def overlay_name(name: str) -> str:
    """Return the overlay's file name, another for another: `a.jpg` becomes `a.jpg.png`, and that `a.jpg.png.png`."""
    stem = name.removesuffix(".png")
    return name if stem != name and Path(stem).suffix.lower() not in IMAGE_SUFFIXES else f"{name}.png"


def overlay_places(options: Mapping[str, Any], record: Mapping[str, Any]) -> list[Path]:
    """Return where the overlay of a record of the inspection log may lie, by the options of its run."""
    if "output" not in options:
        return []
    folder = Path(options["folder"], options["output"], OVERLAYS_NAME)
    return [place / overlay_name(record["name"]) for place in (folder / safe_name(record["source"]), folder)]


def save_png(path: Path, image: Image8) -> None:
    """Write uint8 (H, W, 3) RGB as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", compress_level=1)  # level 6 takes four times as long
