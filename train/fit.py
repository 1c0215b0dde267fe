"""Good images to a checkpoint: `python -m train.fit --data DIR --encoder resnet18 --out cable.pt`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, installed_versions, save_checkpoint
from export.model.encoder import ENCODERS, calibrate_batch_norm, check_taps, load_encoder_weights
from runtime.errors import UserError, run_command
from train.data import Dataset, ImageCache, open_dataset, split_held_out
from train.schedule import Recipe
from train.score import freeze
from train.training import Trainer, resume_path

CALIBRATION_IMAGES = 64  # for the batch norms of a random encoder


def build_model(config: ModelConfig, weights: str, images: ImageCache) -> tuple[CFlow, str]:
    """Build a detector with its encoder filled from `weights`; return it with what was loaded."""
    model = CFlow(config)
    loaded = load_encoder_weights(model.encoder, config.encoder, weights, config.seed)
    if weights == "random":
        count = min(len(images), CALIBRATION_IMAGES)
        batches = np.array_split(np.arange(count), -(-count // 8))  # of like size: they are averaged with like weight
        frames = (torch.from_numpy(images.batch(batch.tolist())) for batch in batches)
        calibrate_batch_norm(model.encoder, (model.normalise(batch) for batch in frames))
    return model, loaded


def fit(
    dataset: Dataset, config: ModelConfig, recipe: Recipe, weights: str, out: Path, *, resume: bool = False
) -> Checkpoint:
    """Train a detector on the dataset's good images and write its checkpoint to `out`.

    The maxima and the threshold come from images that were held out of training. What is interrupted
    leaves `out` as it was and can be resumed from the training state beside it.
    """
    if out.is_dir():
        raise UserError("--out must be a file to write, e.g. cable.pt", f"the folder {out}")
    train, held_out = split_held_out(dataset.train, recipe.held_out, recipe.seed)
    images, kept = ImageCache(train, config.input_size), ImageCache(held_out, config.input_size)
    model, loaded = build_model(config, weights, images)
    trainer = Trainer(model, images, recipe)
    data_sha256 = dataset.sha256()
    state, sources = resume_path(out), {"data_sha256": data_sha256, "encoder_weights": loaded}
    if resume:
        trainer.restore(state, sources)
    trainer.run(state, kept, sources)
    maxima, threshold = freeze(model, kept, recipe.false_alarm_rate, trainer.device)
    checkpoint = Checkpoint(
        model=model.cpu().eval(),
        maxima=maxima,
        thresholds={"good_quantile": threshold},
        default_threshold="good_quantile",
        encoder_weights=loaded,
        data_sha256=data_sha256,
        data_origin=dataset.origin,
        history=trainer.history,
        versions=installed_versions("torch", "torchvision", "FrEIA"),
    )
    save_checkpoint(out, checkpoint)
    state.unlink(missing_ok=True)
    return checkpoint


def _parser() -> argparse.ArgumentParser:
    paper = Recipe()
    parser = argparse.ArgumentParser(prog="cflow-train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MVTec-style folder, or a folder of good images")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, e.g. cable.pt")
    parser.add_argument("--encoder", choices=list(ENCODERS), default="resnet18")
    parser.add_argument("--weights", default="imagenet", help="imagenet (downloaded), random, or a state-dict file")
    parser.add_argument("--taps", default="", help="comma-separated, e.g. layer1,layer2,layer3 (default: the paper's)")
    parser.add_argument("--size", default="256", help="input size in pixels: 256, or HEIGHTxWIDTH (default: 256)")
    parser.add_argument("--blocks", type=int, default=8, help="coupling blocks per tap (default: 8)")
    parser.add_argument("--meta-epochs", type=int, default=paper.meta_epochs)
    parser.add_argument("--sub-epochs", type=int, default=paper.sub_epochs)
    parser.add_argument("--batch", type=int, default=paper.batch, help="images whose positions are shuffled together")
    parser.add_argument("--fiber-batch", type=int, default=paper.fiber_batch, help="positions of an optimisation step")
    parser.add_argument("--learning-rate", type=float, default=paper.learning_rate)
    parser.add_argument(
        "--rotation", type=float, default=paper.rotation_degrees, help="largest random rotation, degrees"
    )
    parser.add_argument("--held-out", type=float, default=paper.held_out, help="fraction of good images not trained on")
    parser.add_argument("--false-alarm-rate", type=float, default=paper.false_alarm_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from an interrupted run's state beside --out")
    return parser


def parse_size(text: str) -> tuple[int, int]:
    """Read `256` or `HEIGHTxWIDTH` as (height, width) in pixels, each at least 32."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) >= 32 for side in sides):
        raise UserError("--size must be 256 or HEIGHTxWIDTH, each side at least 32", repr(text))
    return int(sides[0]), int(sides[-1])


def _recipe(options: argparse.Namespace) -> Recipe:
    return Recipe(
        learning_rate=options.learning_rate,
        meta_epochs=options.meta_epochs,
        sub_epochs=options.sub_epochs,
        batch=options.batch,
        fiber_batch=options.fiber_batch,
        rotation_degrees=options.rotation,
        held_out=options.held_out,
        false_alarm_rate=options.false_alarm_rate,
        seed=options.seed,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the command line."""
    options = _parser().parse_args(argv)
    recipe = _recipe(options)
    taps = check_taps(options.encoder, tuple(filter(None, map(str.strip, options.taps.split(",")))))
    config = ModelConfig(
        options.encoder, taps, parse_size(options.size), coupling_blocks=options.blocks, seed=options.seed
    )
    dataset = open_dataset(options.data)
    checkpoint = fit(dataset, config, recipe, options.weights, options.out, resume=options.resume)
    threshold = checkpoint.thresholds[checkpoint.default_threshold]
    print(f"wrote {options.out}: {config.encoder} ({checkpoint.encoder_weights}), taps {', '.join(taps)}")
    print(f"threshold {threshold.value:.4f}: {threshold.method}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
