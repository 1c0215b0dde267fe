"""Training images that do not look like the others: bad ones that slipped in among the good, found by the result.

The flow is trained on them too, but a few cannot make themselves likely. What stands out is measured by the median and
the spread of all scores, which a few bad images do not move.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from export.model.cflow import CFlow
from runtime.common.files import write_bytes
from runtime.engines.sidecar import Threshold
from runtime.images.folders import evenly_spread
from runtime.images.overlay import Tile, contact_sheet, draw, thumbnail
from runtime.images.preprocess import ReadOptions, read_image
from runtime.images.reduced_map import reduced_map
from runtime.result import result_of
from train.data.frame_tiles import open_inputs
from train.judging.scores import Judge

MOST = 1000  # images that are scored, evenly spread: less than half a pass of training each
SHOWN = 12
COLUMNS = 4
WIDTH = 320  # pixels of a picture on the sheet
MAP_SIDE = 1024  # positions of a map that is kept: a frame's own may be of tens of MB
FAR = 5.0  # spreads above the median; of a normal distribution 1 in 3 million
NORMAL = 1.4826  # median absolute deviation to standard deviation


@dataclass(frozen=True, eq=False)
class Suspects:
    """The most suspicious training images, the worst first, with scores and maps; `standing_out` of them do so."""

    paths: list[Path]
    scores: list[float]
    maps: list[NDArray[np.float32]]
    standing_out: int
    looked_at: int


def suspects_path(out: Path) -> Path:
    """Return where the sheet of suspicious images stands: `cable.suspects.jpg` for `cable.pt`."""
    return out.with_suffix(".suspects.jpg")


def find_suspects(
    model: CFlow, paths: Sequence[Path], constants: Tensor, device: torch.device, read: ReadOptions
) -> Suspects:
    """Score the images `paths`, at most `MOST` of them, and return the highest `SHOWN`."""
    chosen = [paths[index] for index in evenly_spread(len(paths), MOST)]
    images = open_inputs(model.config, chosen, read, limit_bytes=0)
    best: list[tuple[float, int, NDArray[np.float32]]] = []
    scores: list[float] = []
    for scored, score in Judge(model, constants, device).each(images):
        best = sorted([*best, (score, len(scores), reduced_map(scored, MAP_SIDE).copy())], key=lambda entry: -entry[0])[
            :SHOWN
        ]
        scores.append(score)
    far = sum(score > _limit(scores) for score in scores)
    found = [images.paths[index] for _, index, _ in best]
    return Suspects(found, [score for score, _, _ in best], [kept for _, _, kept in best], far, len(scores))


def _limit(scores: Sequence[float]) -> float:
    median = float(np.median(scores))
    return median + FAR * NORMAL * float(np.median(np.abs(np.asarray(scores) - median)))


def write_sheet(path: Path, suspects: Suspects, threshold: Threshold, maximum: float, read: ReadOptions) -> None:
    """Write the suspicious images with their maps as one JPEG to `path`."""
    limits = (threshold.value, threshold.for_map)
    tiles = []
    for file, score, scores in zip(suspects.paths, suspects.scores, suspects.maps, strict=True):
        picture = draw(read_image(file, read), result_of(scores, score, limits, {}, maximum), maximum)
        tiles.append(Tile(thumbnail(picture, WIDTH), f"{file.name} {score:.3f}"))
    buffer = io.BytesIO()
    Image.fromarray(contact_sheet(tiles, min(COLUMNS, len(tiles)), WIDTH)).save(buffer, "JPEG", quality=90)
    write_bytes(path, buffer.getvalue())


def describe(suspects: Suspects, sheet: Path) -> str:
    """Return in one line which training images stand out, or that none does."""
    worst = [f"{path.name} ({score:.2f})" for path, score in zip(suspects.paths, suspects.scores, strict=True)]
    if suspects.standing_out:
        shown = min(suspects.standing_out, SHOWN)
        more = f" and {suspects.standing_out - shown} more" if suspects.standing_out > shown else ""
        return f"look before you trust it: {sheet}: {', '.join(worst[:shown])}{more} stand out of the good images"
    return f"no training image of {suspects.looked_at} stands out; the highest are in {sheet}: {', '.join(worst[:3])}"
