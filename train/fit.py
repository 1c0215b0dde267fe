"""Good images to a checkpoint: `python -m train.fit --data DIR --encoder resnet18 --out cable.pt`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import (
    Checkpoint,
    check_checkpoint_path,
    installed_versions,
    load_checkpoint,
    network_sha256,
    save_checkpoint,
)
from export.model.encoder import calibrate_batch_norm, load_encoder_weights
from runtime.common.argument_types import output_file
from runtime.common.errors import run_command
from runtime.common.files import sweep
from runtime.common.locks import one_writer
from runtime.common.notices import say, say_once
from runtime.common.program import program_name
from runtime.engines.sidecar import Threshold
from runtime.images.folders import describe_use
from runtime.images.preprocess import ReadOptions
from train.data.brightness import say_if_dark
from train.data.facts import facts_of
from train.data.frame_tiles import open_inputs
from train.data.input_size import check_size
from train.data.open import Dataset, ImageCache, open_dataset, split_good
from train.fit_options import (
    add_acceptance_argument,
    add_file_arguments,
    add_size_argument,
    add_tile_arguments,
    add_training_arguments,
    config_from,
    hidden_units_from,
    pooled_from,
    recipe_from,
    taps_from,
    tiles_from,
)
from train.judging.fit_report import Standing, describe_images, is_poor, poor_line
from train.judging.gaussian import gaussian_logps
from train.judging.population import population_of
from train.judging.scores import freeze
from train.judging.suspects import describe as describe_suspects
from train.judging.suspects import find_suspects, suspects_path, write_sheet
from train.loop.processes import Processes, one_process, processes
from train.loop.schedule import HISTORY, Recipe
from train.loop.training import Trainer, resume_path
from train.start_from import add_start_argument, config_like, given_options, recipe_like

GAUSSIAN = "gaussian_logp"  # in the last pass of a checkpoint's history
DATA_HELP = "MVTec-style folder, a folder of good images, or a list of images (CSV, JSON)"
CALIBRATION_IMAGES = 64  # for the batch norms of a random encoder


def build_model(config: ModelConfig, weights: str, images: ImageCache) -> tuple[CFlow, str]:
    """Build a detector with its encoder filled from `weights`; return it with what was loaded."""
    model = CFlow(config)
    loaded = load_encoder_weights(model.encoder, config.encoder, weights, config.seed)
    if weights == "random":
        count = min(len(images), CALIBRATION_IMAGES)
        chosen = np.arange(count) if config.tiles is None else np.array(images.spread(count))
        batches = np.array_split(chosen, -(-count // 8))  # of like size: they are averaged with like weight
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
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Train a detector on the dataset's good images and write its checkpoint to `out`.

    Of the images that are held out of training some choose the weights and freeze the score's constants, and others,
    where there are enough (`split_selection`), the threshold. An image may have `max_pixels` (`ReadOptions`). What is
    interrupted leaves `out` as it was and can be resumed from the training state beside it. Of the processes of a
    `group` the first writes the files. With a `start`, whose configuration is `config`, training goes on from its
    weights, in its very model; `weights` are then its own.
    """
    check_checkpoint_path(out)
    group = group or one_process()
    with _only_writer(out) if group.first else nullcontext():
        return _fit(
            dataset, config, recipe, weights, out, resume=resume, group=group, max_pixels=max_pixels, start=start
        )


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
    start: Checkpoint | None,
) -> Checkpoint:
    train, selection, of_threshold = split_good(dataset, recipe.held_out, recipe.seed)
    read = ReadOptions(config.white, max_pixels)
    images, kept = (open_inputs(config, paths, read, scratch=out.parent) for paths in (train, selection))
    apart = open_inputs(config, of_threshold, read)
    if group.first:
        say_once(describe_use(dataset.good))
        say_if_dark(dataset.good, read)
    begun_with = "" if start is None else network_sha256(start)
    if start is None:
        model, loaded = build_model(config, weights, images)
    else:
        model, loaded = start.model, start.encoder_weights
        recipe = replace(recipe, standardised_start=False)  # it has begun
    trainer = Trainer(model, images, recipe, group)
    data_sha256 = dataset.sha256()
    state = resume_path(out)
    sources = {"data_sha256": data_sha256, "encoder_weights": loaded, "start_from": begun_with}
    if resume:
        trainer.restore(state, sources)
    trainer.run(state, kept, sources)
    standing = _standing(trainer, kept)
    trainer.history[-1] |= {"kept_logp": float(np.mean(standing.flow)), GAUSSIAN: float(np.mean(standing.gaussian))}
    trainer.history[-1] |= {name: float(getattr(recipe, name)) for name in HISTORY}
    trainer.history[-1]["bfloat16_products"] = float(trainer.recipe.matmul_precision == "medium")
    constants, threshold = freeze(model, kept, recipe.false_alarm_rate, trainer.device, apart, images)
    both = open_inputs(config, [*selection, *of_threshold], read)
    population = population_of(model, constants, both, trainer.device)
    if group.first:
        say(describe_images(dataset.good, len(train), len(selection), len(of_threshold)))
        for line in standing.lines():
            say(line)
        _show_suspects(model, dataset.good, (constants, threshold), out, (trainer.device, read))
    checkpoint = Checkpoint(
        model=model.cpu().eval(),
        constants=constants,
        thresholds={"good_quantile": threshold},
        default_threshold="good_quantile",
        encoder_weights=loaded,
        data_sha256=data_sha256,
        data_origin=dataset.origin,
        history=trainer.history,
        image_facts=facts_of(dataset.good, read),
        population=population,
        golden=torch.from_numpy(kept.image(kept.per_image // 2).copy()),
        versions=installed_versions("torch", "torchvision", "FrEIA", "pillow", "opencv-python-headless"),
    )
    if group.first:
        save_checkpoint(out, checkpoint)
        state.unlink(missing_ok=True)
    return checkpoint


def _show_suspects(
    model: CFlow,
    paths: Sequence[Path],
    judged_by: tuple[Tensor, Threshold],
    out: Path,
    how: tuple[torch.device, ReadOptions],
) -> None:
    """Write the sheet of training images that do not look like the others beside `out`, and name them."""
    (constants, threshold), (device, read), sheet = judged_by, how, suspects_path(out)
    suspects = find_suspects(model, paths, constants, device, read)
    write_sheet(sheet, suspects, threshold, len(model.config.taps), read)
    say(describe_suspects(suspects, sheet))


def _standing(trainer: Trainer, held_out: ImageCache) -> Standing:
    """Hold what `trainer` kept against a normal distribution of the same features."""
    mended = sum(int(entry["taps_led_astray"] > 0) for entry in trainer.history)
    return Standing(
        trainer.model.config.taps,
        [kept.best_pass for kept in trainer.kept],
        [kept.logp for kept in trainer.kept],
        gaussian_logps(trainer.model, trainer.normals, held_out, trainer.device),
        trainer.epoch,
        mended,
    )


def lead_of(checkpoint: Checkpoint) -> float:
    """Return by how many nats per dimension a detector's flow is above a normal distribution of the same features."""
    last = checkpoint.history[-1]
    return last["kept_logp"] - last[GAUSSIAN]


def faults_of(checkpoint: Checkpoint) -> list[str]:
    """Return why a detector is not to be trusted, in a line each; nothing where it may be."""
    lead, end = lead_of(checkpoint), float(len(checkpoint.model.config.taps))
    lines = [poor_line(lead)] if is_poor(lead) else []
    if checkpoint.thresholds[checkpoint.default_threshold].value >= end:
        lines.append(
            f"this detector calls nothing anomalous: a held-out good image scores {end:g}, the end of the scale; "
            "look at the images, or choose a threshold: train.set_threshold --good DIR"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Train from the command line; exit status 1 where the result is worse than the simplest model's."""
    parser = argparse.ArgumentParser(prog=program_name("cflow-train"), description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=DATA_HELP)
    parser.add_argument("--out", type=output_file, required=True, help="the checkpoint to write, e.g. cable.pt")
    add_size_argument(parser)
    add_tile_arguments(parser)
    add_acceptance_argument(parser)
    parser.add_argument("--resume", action="store_true", help="go on from an interrupted run's state beside --out")
    add_file_arguments(parser)
    add_training_arguments(parser)
    add_start_argument(parser)
    options = parser.parse_args(argv)
    check_checkpoint_path(options.out)
    recipe = recipe_from(options)
    start = None
    if options.start_from is not None:
        start, given = load_checkpoint(options.start_from), given_options(parser, argv, options)
        recipe = recipe_like(recipe, start, given)
    check_size(options.size)
    if start is None:
        pooled_from(options, taps_from(options))  # said before the data is looked at
        hidden_units_from(options, taps_from(options))
        tiles_from(options, taps_from(options))
    dataset = open_dataset(options.data)
    if start is None:
        config = config_from(options, dataset)
    else:
        config = config_like(start.model.config, options, given, dataset, options.start_from)
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
            start=start,
        )
    threshold = checkpoint.thresholds[checkpoint.default_threshold]
    if group.first:
        print(f"wrote {options.out}: {config.encoder} ({checkpoint.encoder_weights}), taps {', '.join(config.taps)}")
        print(f"threshold {threshold.value:.4f}: {threshold.method}")
        for line in faults_of(checkpoint):
            say(line)
    return 0 if options.accept_poor or not faults_of(checkpoint) else 1


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
