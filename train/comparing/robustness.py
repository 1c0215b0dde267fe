"""Whether training holds on sets that are hard on it: `python -m train.benchmark robust`, one row a set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.model.cflow import ModelConfig
from runtime.images.preprocess import PLAIN
from train.data.hard_sets import HARD_SETS, write_hard_set
from train.data.input_size import choose_size, coarsest_stride
from train.data.open import ImageCache, open_dataset, split_held_out
from train.fit import build_model
from train.judging.fit_report import is_poor
from train.judging.gaussian import gaussian_logps
from train.loop.schedule import Recipe
from train.loop.training import Trainer


@dataclass(frozen=True)
class Row:
    """One set: its size, held-out log-likelihoods at the start, by pass and of what is kept, and the normal
    distribution's; `mended` counts the passes of a tap that were taken back.
    """

    name: str
    images: int
    size: tuple[int, int]
    start: float
    by_pass: Sequence[float]
    mended: int
    kept: float
    gaussian: float

    @property
    def holds(self) -> bool:
        """Whether what is kept, each tap's best pass, is no worse than the normal distribution."""
        return not is_poor(self.kept - self.gaussian)

    def __str__(self) -> str:
        every = -(-len(self.by_pass) // MOST_SHOWN)
        passes = " ".join(f"{logp:.2f}" for logp in self.by_pass[every - 1 :: every])
        size = f"{self.size[0]}x{self.size[1]}"
        end = "" if self.holds else "  BELOW"
        return (
            f"{self.name:14} {self.images:>6} {size:>8} {self.start:>6.2f}  {passes:<44} {self.mended:>6} "
            f"{self.kept:>6.2f} {self.gaussian:>7.2f}{end}"
        )


HEADER = f"{'set':14} {'images':>6} {'size':>8} {'start':>6}  {'by pass':<44} {'mended':>6} {'kept':>6} {'normal':>7}"
MOST_SHOWN = 8  # passes of a row; of more, evenly spread ones


def hard_rows(
    folder: Path,
    real: Sequence[Path],
    encoder: tuple[str, tuple[str, ...], str],
    recipe: Recipe,
    images: int,
    size: str,
) -> Iterator[Row]:
    """Train by `recipe` on every hard set, drawn in `folder`, and on the sets `real`, with at most `images` of each.

    `encoder` is its name, its taps and where its weights come from, `size` as on the command line.
    """
    for name in HARD_SETS:
        write_hard_set(folder / name, name, images, recipe.seed)
        yield _row(name, folder / name, encoder, recipe, images, size)
    for root in real:
        yield _row(root.resolve().name, root, encoder, recipe, images, size)


def _row(
    name: str, root: Path, encoder: tuple[str, tuple[str, ...], str], recipe: Recipe, images: int, size: str
) -> Row:
    kind, taps, weights = encoder
    paths = open_dataset(root).train[:images]
    train, held_out = split_held_out(paths, recipe.held_out, recipe.seed)
    config = ModelConfig(kind, taps, choose_size(size, paths, coarsest_stride(kind, taps), PLAIN))
    cache, kept = ImageCache(train, config.input_size), ImageCache(held_out, config.input_size)
    trainer = Trainer(build_model(config, weights, cache)[0], cache, recipe)
    trainer.start(kept)
    start = _mean([tap.logp for tap in trainer.kept])
    while trainer.epoch < recipe.epochs:
        trainer.end_pass(trainer.train_pass(), kept)
    return Row(
        name,
        len(paths),
        config.input_size,
        start,
        [entry["held_out_logp"] for entry in trainer.history],
        sum(int(entry["taps_led_astray"]) for entry in trainer.history),
        _mean([tap.logp for tap in trainer.kept]),
        _mean(gaussian_logps(trainer.model, trainer.normals, kept, trainer.device)),
    )


def _mean(logps: Sequence[float]) -> float:
    return sum(logps) / len(logps)
