"""What a seam between tiles does to maps and scores: python -m tests.bench.seams --data DIR --weights FILE.

A detector of tiles is trained on large frames (`tests.support.large_frames`) and judges each test frame twice: cut as
it was trained, and into one row and one column of tiles more, which puts the seams elsewhere while every pixel keeps
its place in the frame. What the two maps differ by near a seam of either, against what they differ by elsewhere, is
the seam's. A defect on a seam of the one lies inside of tiles of the other: the ratio of its peaks says whether a seam
costs it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.images.labelled import labelled_images, read_mask
from export.model.cflow import CFlow, DetectorModule
from export.model.checkpoint import Checkpoint, load_checkpoint
from export.model.tiled import TiledDetector
from runtime.common.errors import run_command
from runtime.common.text_table import align
from runtime.images.preprocess import read_image
from runtime.images.tiles import TileGrid
from tests.bench.tiles import MODEL, run
from tests.support.large_frames import Layout, write_frames

NEAR = 16  # pixels on either side of the middle of a seam
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A frame judged by both cuts: maps (H, W), scores, and where its defects are (H, W), none in a good one."""

    maps: tuple[Map, Map]
    scores: tuple[float, float]
    mask: NDArray[np.bool_] | None


class OneMore(TileGrid):
    """The same tiles, with one more along each axis: they share more, and their seams lie elsewhere."""

    @cached_property
    def tops(self) -> tuple[int, ...]:
        return _spread(self.frame[0] - self.tile[0], len(super().tops))

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        return _spread(self.frame[1] - self.tile[1], len(super().lefts))


def _spread(room: int, gaps: int) -> tuple[int, ...]:
    return tuple(gap * room // gaps for gap in range(gaps + 1))


def cut_otherwise(checkpoint: Checkpoint, grid: TileGrid) -> TiledDetector:
    """Return the same detector with its frames cut by another grid of like tiles."""
    config = replace(checkpoint.model.config, tiles=grid)
    model = CFlow(config)
    model.load_state_dict(checkpoint.model.state_dict())
    return TiledDetector(DetectorModule(model.eval(), checkpoint.constants)).eval()


def near_a_seam(grid: TileGrid) -> NDArray[np.bool_]:
    """Return where a pixel lies within `NEAR` of the middle of a seam, (H, W)."""
    near = np.zeros(grid.frame, bool)
    for axis, (starts, tile) in enumerate(((grid.tops, grid.tile[0]), (grid.lefts, grid.tile[1]))):
        for first, second in pairwise(starts):
            middle = (second + first + tile) // 2
            place = slice(max(0, middle - NEAR), middle + NEAR)
            near[(place, slice(None)) if axis == 0 else (slice(None), place)] = True
    return near


def judged(detectors: tuple[TiledDetector, TiledDetector], folder: Path) -> list[Seen]:
    """Judge the test frames of a folder by both."""
    found = []
    for image in labelled_images(folder):
        frame = torch.from_numpy(read_image(image.path))[None]
        with torch.inference_mode():
            answers = [detector(frame) for detector in detectors]
        first, second = ((maps[0].numpy(), float(scores[0])) for maps, scores in answers)
        size = detectors[0].grid.frame
        mask = read_mask(image, size) if image.anomalous else None
        found.append(Seen((first[0], second[0]), (first[1], second[1]), mask))
    return found


def table(seen: Sequence[Seen], grids: tuple[TileGrid, TileGrid], threshold: float) -> str:
    """Return what was found, in shares of the threshold and as ratios."""
    seam = near_a_seam(grids[0]) | near_a_seam(grids[1])
    good = [one for one in seen if one.mask is None]
    differ = np.stack([np.abs(one.maps[0] - one.maps[1]) for one in good]) / threshold
    rows = [["good frames", "median", "99 %", "largest"]]
    for name, place in (("map, near a seam", seam), ("map, elsewhere", ~seam)):
        values = differ[:, place]
        numbers = (np.median(values), np.quantile(values, 0.99), values.max())
        rows.append([name, *(f"{number:.4f}" for number in numbers)])
    scores = np.array([abs(one.scores[0] - one.scores[1]) for one in good]) / threshold
    rows.append(["score", *(f"{n:.4f}" for n in (np.median(scores), np.quantile(scores, 0.99), scores.max()))])
    return f"{align(rows)}\n\n{_defects(seen, grids)}"


def _defects(seen: Sequence[Seen], grids: tuple[TileGrid, TileGrid]) -> str:
    """Return how high defects on a seam of one cut, and on none of the other, peak there against the other."""
    from scipy import ndimage

    first, second = (near_a_seam(grid) for grid in grids)
    ratios: dict[str, list[float]] = {"on a seam": [], "on none": []}
    for one in seen:
        if one.mask is None:
            continue
        labels, count = ndimage.label(one.mask)
        for defect in range(1, count + 1):
            place = labels == defect
            peaks = [float(each[place].max()) for each in one.maps]
            on = [bool(seam[place].any()) for seam in (first, second)]
            if on[0] != on[1]:
                ratios["on a seam"].append(peaks[0] / peaks[1] if on[0] else peaks[1] / peaks[0])
            elif not any(on):
                ratios["on none"].append(peaks[0] / peaks[1])
    rows = [["defects, peak against the other cut's", "number", "10 %", "median", "90 %"]]
    for name, values in ratios.items():
        numbers = [f"{np.quantile(values, q):.3f}" for q in (0.1, 0.5, 0.9)] if values else ["-"] * 3
        rows.append([name, str(len(values)), *numbers])
    return align(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge twice and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.seams", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="an MVTec-style set of small images")
    parser.add_argument("--weights", required=True, help="of the encoder, as train.fit takes them")
    parser.add_argument("--cells", type=int, nargs=3, default=(2, 3, 256), metavar=("ROWS", "COLUMNS", "SIDE"))
    parser.add_argument("--frames", type=int, nargs=3, default=(30, 12, 24), metavar=("TRAIN", "GOOD", "BAD"))
    parser.add_argument("--tile", type=int, default=256, help="a tile's side (default: %(default)s)")
    parser.add_argument("--overlap", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--passes", type=int, default=6, help="over the images (default: %(default)s)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        frames, out = Path(folder, "frames"), Path(folder, "tiles.pt")
        write_frames(options.data, frames, Path(folder, "parts"), Layout(*options.cells, *options.frames))
        cut = ["--tiles", options.tile, "--overlap", options.overlap, "--meta-epochs", options.passes]
        run("train.fit", "--data", frames, "--out", out, "--weights", options.weights, *MODEL, *cut)
        checkpoint = load_checkpoint(out)
        trained = checkpoint.model.config.tiles
        assert trained is not None
        grids = trained, OneMore(trained.frame, trained.tile, trained.overlap)
        detectors = cut_otherwise(checkpoint, grids[0]), cut_otherwise(checkpoint, grids[1])
        threshold = checkpoint.thresholds[checkpoint.default_threshold].value
        print(table(judged(detectors, frames), grids, threshold))


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
