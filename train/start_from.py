"""A training that begins with the weights of an older detector: `train.fit --start-from OLD.pt`.

The new detector is the old one's: encoder, taps, decoders, size, normalisation and white. What the command line leaves
out is as the old one has it, the noise and the variation that it was trained with too; what it names must agree.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from export.model.cflow import ModelConfig
from export.model.checkpoint import Checkpoint
from runtime.common.errors import UserError
from train.data.input_size import AUTO
from train.data.open import Dataset
from train.fit_options import DECODERS, config_from, factored_by, halved_by
from train.loop.schedule import HISTORY, Recipe

KEPT = (*HISTORY, "seed")  # of a recipe, unless they are given
# the option that names what of a model's configuration
OPTIONS = {
    "input_size": "--size",
    "tiles": "--tiles",
    "coupling_blocks": "--blocks",
    "conditional": "--unconditional",
    "soft_permutation": "--hard-permutation",
    "pooled": "--pool",
    "halved": "--decoder",
    "hidden_units": "--hidden",
    "factored": "--decoder",
}
_MISSING = object()


def add_start_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--start-from`."""
    words = "begin with this detector's weights; what is left out of the model is as it has it"
    parser.add_argument("--start-from", type=Path, metavar="OLD.pt", help=words)


def given_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None, known: argparse.Namespace) -> set[str]:
    """Return the names of the options that stand on the command line; `known` is what it was parsed to."""
    bare = argparse.Namespace(**dict.fromkeys(vars(known), _MISSING))  # no default takes the place of what is there
    return {name for name, value in vars(parser.parse_args(argv, bare)).items() if value is not _MISSING}


def config_like(
    old: ModelConfig, options: argparse.Namespace, given: set[str], dataset: Dataset, where: Path
) -> ModelConfig:
    """Return `old`, the configuration of the detector at `where`, which the options that were `given` must not change.

    Raises `UserError` naming the first one that does.
    """
    if "weights" in given:
        raise UserError(
            f"--start-from {where} has the encoder's weights in it", "--weights too", "leave one of them out"
        )
    wanted = _wanted(old, options, given, dataset)
    for field in sorted(fields(ModelConfig), key=lambda field: field.name != "tiles"):  # what --size is depends on them
        mine, theirs = getattr(wanted, field.name), getattr(old, field.name)
        if mine != theirs:
            option = OPTIONS.get(field.name, f"--{field.name}")
            expected = f"--start-from {where} needs a detector with its own {field.name} {_shown(theirs)}"
            raise UserError(expected, _shown(mine), f"leave {option} out, or train without --start-from")
    return old


def _wanted(old: ModelConfig, options: argparse.Namespace, given: set[str], dataset: Dataset) -> ModelConfig:
    """Return the configuration that the command line asks for, with `old` in the place of what it leaves out."""
    like_old = {
        "encoder": old.encoder,
        "taps": ",".join(old.taps),
        "size": f"{old.input_size[0]}x{old.input_size[1]}",
        "pool": ",".join(old.pooled) or "none",
        "decoder": _decoder_of(old),
        "blocks": old.coupling_blocks,
        "unconditional": not old.conditional,
        "hard_permutation": not old.soft_permutation,
        "score": old.score,
        "white": old.white,
    }
    if old.tiles is not None:
        tile, frame = (f"{size[0]}x{size[1]}" for size in (old.tiles.tile, old.tiles.frame))
        like_old |= {"tiles": tile, "size": frame, "overlap": old.tiles.overlap}
    if getattr(options, "tiles", None) == AUTO:  # chooses the frames' size, and what they share
        like_old = {name: value for name, value in like_old.items() if name not in ("size", "overlap")}
    merged = {name: value for name, value in like_old.items() if name not in given}
    if "encoder" in given and options.encoder != old.encoder:  # its taps have other names
        return replace(old, encoder=options.encoder)
    wanted = config_from(argparse.Namespace(**{**vars(options), **merged}), dataset)
    own = {name: getattr(old, name) for name in ("clamp", "mean", "std", "seed")}
    if "hidden" not in given and not {"taps", "unconditional"} & given:
        own["hidden_units"] = old.hidden_units
    if not {"decoder", "taps", "pool"} & given:
        own |= {"halved": old.halved, "factored": old.factored}
    return replace(wanted, **own)


def _decoder_of(old: ModelConfig) -> str:
    """Return which `--decoder` halves and factors the taps that `old` does."""
    own = (old.halved, old.factored)
    made = {
        name: (halved_by(name, old.encoder, old.pooled), factored_by(name, old.encoder, old.taps)) for name in DECODERS
    }
    return next((name for name, taps in made.items() if taps == own), DECODERS[0])


def recipe_like(recipe: Recipe, old: Checkpoint, given: set[str]) -> Recipe:
    """Return `recipe` with the noise, the variation, the seed and the share of held-out images of `old`'s training.

    What was `given` on the command line stays. So the same good images are held out of both trainings.
    """
    known = {**(old.history[-1] if old.history else {}), "seed": old.model.config.seed}
    kept: dict[str, Any] = {name: known[name] for name in KEPT if name in known and name not in given}
    return replace(recipe, **kept)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
