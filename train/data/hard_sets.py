"""Good images that are hard to train on, drawn from a seed: what `train.benchmark robust` trains on.

metal   dark, nearly flat, brushed, 1024 x 370 pixels: elongated, hardly any contrast
flat    one grey with a camera's noise: nothing but noise to learn
still   the same picture again and again, one grey level of light apart: channels that hardly vary
lamp    black but for one bright disc that never moves: most positions are constant, a few are far off
few     ten cables
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from runtime.images.pixels import Image8
from train.data.cable_renderer import render

Draw = Callable[[np.random.Generator], Image8]
FEW = 10


def _metal(rng: np.random.Generator) -> Image8:
    height, width = 370, 1024
    brushed = rng.normal(0, 3, (height, 1)) + rng.normal(0, 2, (height, width // 64)).repeat(64, axis=1)
    light = np.linspace(-3, 3, width) * rng.uniform(-1, 1)
    scratches = Image.new("L", (width, height))
    pen = ImageDraw.Draw(scratches)
    for _ in range(rng.integers(5, 15)):
        x, y, length = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(20, 120)
        pen.line((x, y, x + length, y + rng.normal(0, 3)), fill=int(rng.integers(4, 12)))
    fine = np.asarray(scratches.filter(ImageFilter.GaussianBlur(0.6)), np.float64)
    return _grey(34 + 0.5 * brushed + light + fine + rng.normal(0, 1, (height, width)))


def _flat(rng: np.random.Generator) -> Image8:
    return _grey(60 + rng.normal(0, 1, (256, 256)))


def _still(rng: np.random.Generator) -> Image8:
    rows, columns = np.mgrid[:256, :256]
    return _grey(90 + 30 * np.sin(rows / 9) * np.cos(columns / 13) + rng.integers(0, 2))


def _lamp(rng: np.random.Generator) -> Image8:
    rows, columns = np.mgrid[:256, :256]
    disc = np.hypot(rows - 90, columns - 160) < 30
    return _grey(np.where(disc, 240, 2) + rng.normal(0, 0.5, (256, 256)))


def _cable(rng: np.random.Generator) -> Image8:
    return render(rng, 256, None)[0]


def _grey(values: NDArray[np.float64]) -> Image8:
    grey = values.round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


HARD_SETS: dict[str, Draw] = {"metal": _metal, "flat": _flat, "still": _still, "lamp": _lamp, "few": _cable}


def write_hard_set(folder: Path, name: str, images: int, seed: int = 0) -> None:
    """Write `images` good images of the hard set `name` into `folder`, of "few" at most ten."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = list(HARD_SETS).index(name)
    for number in range(min(images, FEW) if name == "few" else images):
        picture = HARD_SETS[name](np.random.default_rng([seed, kind, number]))
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
