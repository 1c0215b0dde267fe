"""How soon a drift of a camera is found, and what it is called: python -m tests.bench.drift --data DIR [--data DIR].

DIR is a folder of good images (or MVTec-style); `--only "exp1*"` takes those whose names fit. Frames are drawn from
them at random, at the size of an engine, in light that flickers by 1 % with noise of one grey level; after `LEARNED`
frames they change in one of the ways of `CHANGES`.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from runtime.common.errors import run_command
from runtime.common.text_table import align
from runtime.drift.numbers import NUMBERS, numbers_of
from runtime.drift.source import BLOCK, Drift
from runtime.images.folders import list_images
from runtime.images.pixels import Image8
from runtime.images.preprocess import read_image, resize

LEARNED = 100 * BLOCK  # frames before a change
WITHIN = 240 * BLOCK  # frames in which it must be found
STATIONARY = 50_000  # frames
PICTURES, SHOTS = 40, 5  # different pictures, and frames of each
SIZE = (256, 256)
MARGIN = 0.03  # of a picture's sides that a frame does not show: so much the camera may move
MOVED = "camera moved by 3 % of the width"


def camera(picture: Image8, random: np.random.Generator, moved: bool = False) -> Image8:
    """Return a frame of `picture`: coloured a little, as all light is, in light that flickers, with noise.

    It shows all but a margin, another one where the camera was `moved`.
    """
    height, width = picture.shape[:2]
    margins = [round(MARGIN * side) for side in (height, width)]
    left = 0 if moved else margins[1]
    seen = picture[margins[0] : height - margins[0], left : left + width - 2 * margins[1]]
    warm = seen * np.array([1.0, 0.97, 0.9]) * random.normal(1, 0.01)
    return np.clip(warm + random.normal(0, 1, seen.shape), 0, 255).round().astype(np.uint8)


def same(image: Image8) -> Image8:
    return image


def darker(image: Image8) -> Image8:
    return (image * 0.95).round().astype(np.uint8)


def blurred(image: Image8) -> Image8:
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def jpeg(image: Image8) -> Image8:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def other_matrix(image: Image8) -> Image8:
    """Return what a decoder makes of colours of BT.709 that takes them for BT.601's."""
    matrix = np.array([[1.0864, -0.0724, -0.0141], [0.0965, 0.8448, 0.0588], [-0.0141, -0.0278, 1.0419]])
    return np.clip(image @ matrix.T, 0, 255).astype(np.uint8)


CHANGES: dict[str, tuple[Callable[[Image8], Image8], str]] = {
    "5 % darker": (darker, "light"),
    "blurred, sigma of 1 pixel": (blurred, "focus"),
    MOVED: (same, "position"),
    "JPEG of quality 75 instead of PNG": (jpeg, "compression"),
    "colours of BT.709 read as BT.601": (other_matrix, "colour"),
}


class Found(NamedTuple):
    """After how many frames a change was found (None: never), as what, and the drift's state then."""

    frames: int | None
    cause: str
    drift: Drift


def rows_of(pictures: Sequence[Image8], change: str = "") -> list[dict[str, float]]:
    """Return the numbers of `SHOTS` frames of each picture, after one of `CHANGES`."""
    random = np.random.default_rng(5)
    frames = [camera(picture, random, change == MOVED) for picture in pictures for _ in range(SHOTS)]
    changed = CHANGES[change][0] if change else same
    return [numbers_of(changed(frame), SIZE) for frame in frames]


def run(plain: Sequence[dict[str, float]], after: Sequence[dict[str, float]], frames: int, learned: int) -> Found:
    """Draw `frames` frames, a second apart, those behind the first `learned` from `after`, until an alarm."""
    random, drift = np.random.default_rng(7), Drift("camera:0", "", [*NUMBERS, "score"])
    drift._random = np.random.default_rng(1)  # a seed: the same run each time
    for number in range(frames):
        pool = plain if number < learned else after
        drift.add({**pool[random.integers(len(pool))], "score": float(random.gamma(2, 0.1))}, float(number))
        if drift.alarm is not None:
            return Found(number + 1 - learned, drift.alarm.cause, drift)
    return Found(None, "", drift)


def pictures_of(folder: Path, only: str = "*") -> list[Image8]:
    """Return up to `PICTURES` good images of a data set at the engine's size."""
    good = next((path for path in (folder / "train" / "good", folder / "good") if path.is_dir()), folder)
    paths = [path for path in list_images(good) if fnmatch(path.name, only)]
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(PICTURES, len(paths))).astype(int))]
    return [resize(read_image(path), SIZE) for path in chosen]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drift", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="a folder of good images")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="images whose file names fit (default: all)")
    args = parser.parse_args(argv)
    rows = [["data", "change", "found within, frames", "said as", "also"]]
    for folder in args.data:
        pictures = pictures_of(folder, args.only)
        plain = rows_of(pictures)
        found = run(plain, plain, STATIONARY, STATIONARY)
        rows.append(
            [folder.name, f"none, {STATIONARY} frames", "no alarm" if found.frames is None else "ALARM", "", ""]
        )
        for name in CHANGES:
            found = run(plain, rows_of(pictures, name), LEARNED + WITHIN, LEARNED)
            moved = () if found.drift.alarm is None else found.drift.alarm.moved[1:]
            also = ", ".join(f"{one.number} {one.sigmas:+.1f}" for one in moved)
            rows.append([folder.name, name, str(found.frames or "never"), found.cause, also])
    print(align(rows, 2))


def command() -> int:
    """Run as a program."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
