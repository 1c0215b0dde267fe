"""Checkpoints of other implementations to ours: `python -m train.import_checkpoint FILE --good DIR --out cable.pt`.

FILE is a `.pt` of the paper's reference implementation or a Lightning `.ckpt` of anomalib's Cflow. What the weights
tell is detected. The score's constants and the threshold come from the good images in DIR, and the log-likelihoods
of the result are compared with an evaluation of FILE's own weights. Nothing in FILE can run code.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, check_checkpoint_path, installed_versions, save_checkpoint
from export.model.encoder import load_encoder_state
from export.model.flow import Clamp
from export.model.tensor_files import read_with_stand_ins
from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.files import printable, sha256_of
from runtime.common.notices import say_once
from runtime.common.program import program_name
from runtime.images.folders import describe_use
from runtime.images.preprocess import PLAIN
from train.data.facts import facts_of
from train.data.input_size import parse_size
from train.data.open import ImageCache, open_dataset, split_selection
from train.foreign.ambiguities import choose, fits_of, variants_of
from train.foreign.anomalib import is_lightning, read_anomalib
from train.foreign.detect import blocks_of, config_of
from train.foreign.proof import largest_difference
from train.foreign.reference import is_reference, read_reference
from train.foreign.weights import ForeignWeights, State, agreed
from train.judging.population import population_of
from train.judging.scores import freeze
from train.loop.schedule import Recipe

PROOF_IMAGES = 4
TOLERANCE = 1e-4  # relative; float32 against float64 leaves 1e-6 to 1e-5


@dataclass(frozen=True)
class ImportOptions:
    """What the user says; None where the file or the weights are to tell."""

    size: tuple[int, int] | None = None  # (height, width) in pixels
    clamp: Clamp | None = None
    false_alarm_rate: float = Recipe().false_alarm_rate


@dataclass(frozen=True)
class Imported:
    """A detector made of a foreign checkpoint, and what was found out on the way."""

    checkpoint: Checkpoint
    largest_difference: float  # relative, to the source's own weights in float64
    fits: Mapping[ModelConfig, float]  # mean log-likelihood of good images by what the model could have been
    not_loaded: tuple[str, ...]  # types and functions that the file names


def read_source(path: Path) -> tuple[ForeignWeights, list[str]]:
    """Read a foreign checkpoint; return it with the names of the types in it that were not loaded.

    Raises `UserError` where it is neither of the formats known here.
    """
    expected = "a checkpoint of the reference implementation or of anomalib's Cflow"
    try:
        content, names = read_with_stand_ins(path, expected)
    except FileNotFoundError:
        raise UserError(f"{path} must be {expected}", "no such file") from None
    if is_reference(content):
        return read_reference(content, path), names
    if is_lightning(content):
        return read_anomalib(content, path), names
    found = f"a {type(content).__name__}"
    if isinstance(content, dict):
        found = f"a file with {', '.join(map(str, list(content)[:4])) or 'nothing'}"
    raise UserError(f"{path} must be {expected}", found)


def build_model(config: ModelConfig, source: ForeignWeights, decoders: Sequence[State]) -> CFlow:
    """Build our detector around the source's weights."""
    model = CFlow(config).eval()
    load_encoder_state(model.encoder, source.encoder, source.origin)
    for ours, theirs in zip(model.decoders, decoders, strict=True):
        blocks = enumerate(blocks_of(theirs))
        ours.load_state_dict({f"blocks.{k}.{name}": value for k, block in blocks for name, value in block.items()})
    return model


def prove(model: CFlow, decoders: Sequence[State], frames: Tensor) -> float:
    """Return the largest relative difference from the source's own weights; `UserError` above `TOLERANCE` or if NaN."""
    difference = largest_difference(model, decoders, frames)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the log-likelihoods must equal those of the source's own weights within {TOLERANCE:.0e}",
            f"a relative difference of {difference:.1e}",
            "check that --good shows the parts that it was trained on",
        )
    return difference


def import_checkpoint(path: Path, good: Path, options: ImportOptions) -> Imported:
    """Turn the foreign checkpoint at `path` into a detector, its constants frozen from the good images in `good`.

    Raises `UserError` where something is unknown or contradictory, and where the result does not give the
    log-likelihoods of the source's weights.
    """
    source, names = read_source(path)
    clamp: Clamp | None = agreed("the soft clamp", option=options.clamp, file=source.stated.clamp)
    config, decoders = config_of(source, options.size)
    dataset = open_dataset(good)
    if not dataset.train:
        raise UserError(f"--good {good} must hold good images", "none")
    say_once(describe_use(dataset.train))
    selection, of_threshold = split_selection(dataset.train)
    images = ImageCache(selection, config.input_size)
    frames = torch.from_numpy(images.batch(range(min(len(images), PROOF_IMAGES))))
    fits = fits_of(variants_of(config, clamp), source, decoders, frames)
    model = build_model(choose(fits), source, decoders)
    difference = prove(model, decoders, frames)
    apart = ImageCache(of_threshold, config.input_size)
    constants, threshold = freeze(model, images, options.false_alarm_rate, torch.device("cpu"), apart)
    threshold = replace(threshold, method=f"{threshold.method}; only if the weights were not trained on these images")
    checkpoint = Checkpoint(
        model=model,
        constants=constants,
        thresholds={"good_quantile": threshold},
        default_threshold="good_quantile",
        encoder_weights=f"{source.origin}, {printable(path.name)} sha256 {sha256_of(path)[:12]}",
        data_sha256="",  # of what it was trained on: not in the file
        data_origin=source.stated.class_name or dataset.origin,
        image_facts=facts_of(dataset.train, PLAIN),
        population=population_of(model, constants, ImageCache(dataset.train, config.input_size), torch.device("cpu")),
        golden=torch.from_numpy(images.image(0).copy()),
        versions=installed_versions("torch", "torchvision", "FrEIA", "pillow", "opencv-python-headless"),
    )
    return Imported(checkpoint, difference, fits, tuple(names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program_name("python -m train.import_checkpoint"), description=__doc__)
    parser.add_argument("file", type=Path, help="a .pt of the reference implementation, or a .ckpt of anomalib's Cflow")
    parser.add_argument("--out", type=output_file, required=True, help="the checkpoint to write, e.g. cable.pt")
    parser.add_argument(
        "--good",
        type=Path,
        required=True,
        help="good images, best those not trained on: they freeze the score's constants and give the threshold",
    )
    parser.add_argument("--size", help="input size in pixels, 256 or HEIGHTxWIDTH, where the file does not say it")
    parser.add_argument(
        "--clamp",
        choices=get_args(Clamp),
        help="the coupling blocks' soft clamp: that of FrEIA 0.2 as released and pinned by the reference, or that of "
        "its later sources (default: anomalib's is known, the reference's is detected on the good images)",
    )
    parser.add_argument(
        "--false-alarm-rate",
        type=float,
        default=ImportOptions().false_alarm_rate,
        help="of the threshold chosen from the good images (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Import from the command line."""
    arguments = _parser().parse_args(argv)
    check_checkpoint_path(arguments.out)
    size = parse_size(arguments.size) if arguments.size else None
    options = ImportOptions(size, arguments.clamp, arguments.false_alarm_rate)
    imported = import_checkpoint(arguments.file, arguments.good, options)
    save_checkpoint(arguments.out, imported.checkpoint)
    _print_summary(imported, arguments.out)


def _print_summary(imported: Imported, out: Path) -> None:
    if imported.not_loaded:
        print(f"not loaded, not called: {', '.join(imported.not_loaded)}")
    for variant, fit in imported.fits.items():
        print(f"good images: {fit:.3f} nats per dimension if {variant.encoder} with clamp {variant.clamp}")
    print(f"log-likelihoods equal those of the source's weights in float64 within {imported.largest_difference:.1e}")
    checkpoint = imported.checkpoint
    config, threshold = checkpoint.model.config, checkpoint.thresholds[checkpoint.default_threshold]
    print(
        f"wrote {out}: {config.encoder}, taps {', '.join(config.taps)}, {config.coupling_blocks} "
        f"{'conditional' if config.conditional else 'unconditional'} coupling blocks, "
        f"{'soft' if config.soft_permutation else 'hard'} permutations, clamp {config.clamp}"
    )
    print(f"threshold {threshold.value:.4f}: {threshold.method}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
