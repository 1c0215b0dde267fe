"""Good images to a checkpoint: `python -m train.fit --data DIR --encoder resnet18 --out cable.pt`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, check_checkpoint_path, installed_versions, save_checkpoint
from export.model.encoder import ENCODERS, IMAGENET_MEAN, calibrate_batch_norm, check_taps, load_encoder_weights
from export.model.score import SCORES
from runtime.common.argument_types import count, white
from runtime.common.errors import UserError, run_command
from runtime.common.files import sweep
from runtime.common.locks import one_writer
from runtime.common.notices import say, say_once
from runtime.common.program import program_name
from runtime.images.bit_depth import FULL_SCALE
from runtime.images.folders import describe_use
from runtime.images.preprocess import ReadOptions
from train.data.brightness import say_if_dark
from train.data.facts import facts_of
from train.data.input_size import AUTO, check_size, choose_size, coarsest_stride
from train.data.open import Dataset, ImageCache, open_dataset, split_held_out, split_selection
from train.judging.fit_report import Standing, describe_images, poor_line
from train.judging.gaussian import gaussian_logps
from train.judging.scores import freeze
from train.judging.suspects import describe as describe_suspects
from train.judging.suspects import find_suspects, suspects_path, write_sheet
from train.loop.processes import Processes, one_process, processes
from train.loop.schedule import SCHEDULES, Recipe
from train.loop.training import Trainer, resume_path

GAUSSIAN = "gaussian_logp"  # in the last pass of a checkpoint's history
FINE = 4  # the stride of a tap whose features see so little that each is averaged with its neighbours
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
    dataset: Dataset,
    config: ModelConfig,
    recipe: Recipe,
    weights: str,
    out: Path,
    *,
    resume: bool = False,
    group: Processes | None = None,
    max_pixels: int | None = None,
) -> Checkpoint:
    """Train a detector on the dataset's good images and write its checkpoint to `out`.

    Of the images that are held out of training some choose the weights and freeze the score's constants, and others,
    where there are enough (`split_selection`), the threshold. An image may have `max_pixels` (`ReadOptions`). What is
    interrupted leaves `out` as it was and can be resumed from the training state beside it. Of the processes of a
    `group` the first writes the files.
    """
    check_checkpoint_path(out)
    group = group or one_process()
    with _only_writer(out) if group.first else nullcontext():
        return _fit(dataset, config, recipe, weights, out, resume=resume, group=group, max_pixels=max_pixels)


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Let no other process train to `out`; what a killed one has left beside it goes."""
    with one_writer(out, str(out), "wait for it to end, or name another --out"):
        sweep(out.parent)
        yield


def _fit(
    dataset: Dataset,
    config: ModelConfig,
    recipe: Recipe,
    weights: str,
    out: Path,
    *,
    resume: bool,
    group: Processes,
    max_pixels: int | None,
) -> Checkpoint:
    train, held_out = split_held_out(dataset.train, recipe.held_out, recipe.seed)
    selection, of_threshold = split_selection(held_out)
    read = ReadOptions(config.white, max_pixels)
    images, kept, apart = (
        ImageCache(paths, config.input_size, read=read) for paths in (train, selection, of_threshold)
    )
    if group.first:
        say_once(describe_use(dataset.train))
        say_if_dark(dataset.train, read)
    model, loaded = build_model(config, weights, images)
    trainer = Trainer(model, images, recipe, group)
    data_sha256 = dataset.sha256()
    state, sources = resume_path(out), {"data_sha256": data_sha256, "encoder_weights": loaded}
    if resume:
        trainer.restore(state, sources)
    trainer.run(state, kept, sources)
    standing = _standing(trainer, kept)
    trainer.history[-1] |= {"kept_logp": float(np.mean(standing.flow)), GAUSSIAN: float(np.mean(standing.gaussian))}
    constants, threshold = freeze(model, kept, recipe.false_alarm_rate, trainer.device, apart)
    if group.first:
        sheet = suspects_path(out)
        suspects = find_suspects(model, dataset.train, constants, trainer.device, read)
        write_sheet(sheet, suspects, threshold, len(config.taps), read)
        used = describe_images(dataset.train, len(train), len(selection), len(of_threshold))
        for line in (used, *standing.lines(), describe_suspects(suspects, sheet)):
            say(line)
    checkpoint = Checkpoint(
        model=model.cpu().eval(),
        constants=constants,
        thresholds={"good_quantile": threshold},
        default_threshold="good_quantile",
        encoder_weights=loaded,
        data_sha256=data_sha256,
        data_origin=dataset.origin,
        history=trainer.history,
        image_facts=facts_of(dataset.train, read),
        golden=torch.from_numpy(kept.image(0).copy()),
        versions=installed_versions("torch", "torchvision", "FrEIA", "pillow", "opencv-python-headless"),
    )
    if group.first:
        save_checkpoint(out, checkpoint)
        state.unlink(missing_ok=True)
    return checkpoint


def _standing(trainer: Trainer, held_out: ImageCache) -> Standing:
    """Hold what `trainer` kept against a normal distribution of the same features."""
    mended = sum(int(entry["taps_led_astray"] > 0) for entry in trainer.history)
    return Standing(
        trainer.model.config.taps,
        [kept.best_pass for kept in trainer.kept],
        [kept.logp for kept in trainer.kept],
        gaussian_logps(trainer.model, trainer.images, held_out, trainer.device),
        trainer.epoch,
        mended,
    )


def lead_of(checkpoint: Checkpoint) -> float:
    """Return by how many nats per dimension a detector's flow is above a normal distribution of the same features."""
    last = checkpoint.history[-1]
    return last["kept_logp"] - last[GAUSSIAN]


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of model and recipe; those left out are the schedule's."""
    model = parser.add_argument_group("model")
    names = ", ".join(ENCODERS)
    model.add_argument("--encoder", choices=list(ENCODERS), default="resnet18", metavar="NAME", help=names)
    model.add_argument(
        "--weights", default="imagenet", help="imagenet (installed by pip or downloaded), random, or a file"
    )
    model.add_argument("--taps", default="", help="comma-separated, e.g. layer1,layer2,layer3 (default: the paper's)")
    pooled = "taps whose features are averaged over 3 x 3 positions, or none (default: those at stride 4 or finer; with"
    pooled = f"{pooled} the paper's schedule none)"
    model.add_argument("--pool", default=AUTO, metavar="TAPS", help=pooled)
    model.add_argument("--blocks", type=int, default=8, help="coupling blocks per tap (default: 8)")
    model.add_argument("--unconditional", action="store_true", help="a flow that does not know its position (UFLOW)")
    model.add_argument("--hard-permutation", action="store_true", help="permute channels between blocks, not rotate")
    light = "white of 16-bit grey files that do not say it, such as 4095 for 12 bits (default: 65535)"
    model.add_argument("--white", type=white, default=FULL_SCALE, help=light)
    score = "tap_deviation: from what good positions show, tap by tap; deviation: the taps summed; paper: its map's "
    model.add_argument("--score", choices=SCORES, default=SCORES[0], help=f"{score}maximum (default: {SCORES[0]})")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--schedule", choices=list(SCHEDULES), default="paper", help="what the others default to")
    recipe.add_argument("--meta-epochs", type=int, help="of one learning rate each")
    recipe.add_argument("--sub-epochs", type=int, help="passes over the images in a meta-epoch")
    recipe.add_argument("--batch", type=int, help="images whose positions are shuffled together")
    recipe.add_argument("--fiber-batch", type=int, help="positions of an optimisation step")
    recipe.add_argument("--positions", type=int, help="of an image and tap, drawn anew in each pass; 0: all")
    recipe.add_argument("--learning-rate", type=float)
    recipe.add_argument("--rotation", type=float, dest="rotation_degrees", help="largest random rotation, degrees")
    recipe.add_argument("--held-out", type=float, help="fraction of good images not trained on")
    recipe.add_argument("--false-alarm-rate", type=float, help="of the threshold chosen from good images")
    recipe.add_argument("--precision", dest="matmul_precision", help="of products on a GPU: highest, high, medium")
    recipe.add_argument("--seed", type=int, help="of all that is drawn")


def add_size_argument(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add `--size`; `more` names what else it may be."""
    words = f"input size in pixels: 256, HEIGHTxWIDTH, {more}or auto: the images' shape, as many pixels as 256x256"
    parser.add_argument("--size", default=AUTO, help=f"{words} (auto:512: as 512x512) (default: auto)")


def add_acceptance_argument(parser: argparse.ArgumentParser) -> None:
    """Add what takes a detector that is worse than the simplest one."""
    words = "exit with 0 even where the flow stays below a normal distribution of the same features"
    parser.add_argument("--accept-poor", action="store_true", help=words)


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what bounds the files that are read."""
    most = "most pixels of an image file (default: what a quarter of this machine's memory takes)"
    parser.add_argument("--max-pixels", type=count, metavar="N", help=most)


def recipe_from(options: argparse.Namespace) -> Recipe:
    """Return the schedule with what `add_training_arguments`' options change of it."""
    given = {field.name: getattr(options, field.name, None) for field in fields(Recipe)}
    return replace(SCHEDULES[options.schedule], **{name: value for name, value in given.items() if value is not None})


def taps_from(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the taps that the options name, the encoder's default for none; `UserError` for one it has not."""
    return check_taps(options.encoder, tuple(filter(None, map(str.strip, options.taps.split(",")))))


def pooled_from(options: argparse.Namespace, taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the taps whose features are pooled; `UserError` for one that is not among `taps`."""
    if options.pool == AUTO:
        return pooled_by_default(options.encoder, taps, options.schedule)
    named = [] if options.pool == "none" else list(filter(None, map(str.strip, options.pool.split(","))))
    if unknown := [tap for tap in named if tap not in taps]:
        raise UserError(f"--pool must name taps among {', '.join(taps)}, or be none", ", ".join(unknown))
    return tuple(tap for tap in taps if tap in named)


def pooled_by_default(encoder: str, taps: tuple[str, ...], schedule: str) -> tuple[str, ...]:
    """Return the taps that a new detector pools: the fine ones, none where the paper's schedule is asked for."""
    strides = ENCODERS[encoder].taps
    return () if schedule == "paper" else tuple(tap for tap in taps if strides[tap].stride <= FINE)


def config_from(options: argparse.Namespace, dataset: Dataset, size: tuple[int, int] | None = None) -> ModelConfig:
    """Return the model that `add_training_arguments`' options describe, normalised as the dataset asks.

    Without a `size` it is the one of `--size`, which may have to look at the dataset's images.
    """
    taps = taps_from(options)
    if size is None:
        read = ReadOptions(options.white, getattr(options, "max_pixels", None))
        size = choose_size(options.size, dataset.train, coarsest_stride(options.encoder, taps), read)
    as_paper = ENCODERS[options.encoder].mean == IMAGENET_MEAN  # another encoder is lost on the paper's pixels
    return ModelConfig(
        options.encoder,
        taps,
        size,
        coupling_blocks=options.blocks,
        conditional=not options.unconditional,
        soft_permutation=not options.hard_permutation,
        mean=dataset.mean if as_paper else (),
        std=dataset.std if as_paper else (),
        seed=options.seed or 0,
        score=options.score,
        white=options.white,
        pooled=pooled_from(options, taps),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train from the command line; exit status 1 where the result is worse than the simplest model's."""
    parser = argparse.ArgumentParser(prog=program_name("cflow-train"), description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MVTec-style folder, or a folder of good images")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, e.g. cable.pt")
    add_size_argument(parser)
    add_acceptance_argument(parser)
    parser.add_argument("--resume", action="store_true", help="go on from an interrupted run's state beside --out")
    add_file_arguments(parser)
    add_training_arguments(parser)
    options = parser.parse_args(argv)
    check_checkpoint_path(options.out)
    recipe = recipe_from(options)
    check_size(options.size)
    pooled_from(options, taps_from(options))  # said before the data is looked at
    dataset = open_dataset(options.data)
    config = config_from(options, dataset)
    with processes() as group:
        checkpoint = fit(
            dataset,
            config,
            recipe,
            options.weights,
            options.out,
            resume=options.resume,
            group=group,
            max_pixels=options.max_pixels,
        )
    threshold = checkpoint.thresholds[checkpoint.default_threshold]
    if group.first:
        print(f"wrote {options.out}: {config.encoder} ({checkpoint.encoder_weights}), taps {', '.join(config.taps)}")
        print(f"threshold {threshold.value:.4f}: {threshold.method}")
        if lead_of(checkpoint) <= 0:
            say(poor_line(lead_of(checkpoint)))
    return 0 if options.accept_poor or lead_of(checkpoint) > 0 else 1


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
