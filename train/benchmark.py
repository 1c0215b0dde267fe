"""What training and encoders are worth: `python -m train.benchmark steps|schedules|robust|encoders|seeds`.

`steps` runs the same image batches through a plain transcription of the published loop and through ours, in
turn, and prints the ratio of their times; with `--against CHECKOUT` it runs passes of that checkout and of this one
in turn, each in a process of its own, and says how far their parameters are apart. `schedules` trains from the same
start by the paper's schedule and by the fast one, both with our steps, and prints when the latter reaches the
former's held-out likelihood. `robust`
trains on sets that are drawn to be hard (`train.data.hard_sets`), and on those of `--data`, and prints each pass's
held-out likelihood beside a normal distribution's; exit status 1 where one ends below it. With `--bad 0.05` it trains
on `--data` as it is, then with so many of its anomalous test images among the good ones, and prints what they cost
and whether they are found; exit status 1 where they cost more than a point of image AUROC. `encoders` holds a memory
bank of each encoder's features against the labelled test images: no training, one row an encoder. With `--detectors`
it trains a small detector of each, too, and prints what INT8 costs it and how fast it is.
`seeds` trains a detector for each of `--seeds` as `train.fit` does by default, and prints their figures, mean and
spread beside the memory bank's and the paper's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import ENCODERS, check_taps
from export.model.flow import CLAMP, CONDITION_DIMS, log_likelihood, position_code
from runtime.common.errors import UserError, run_command
from runtime.images.preprocess import PLAIN
from train.comparing.against import compare_with
from train.comparing.contamination import MIXED_HEADER, MOST_LOST, mix, mixed_rows
from train.comparing.encoder_table import print_detector_table, print_encoder_table
from train.comparing.robustness import HEADER, hard_rows
from train.comparing.seeds import print_seeds
from train.data.input_size import choose_size, coarsest_stride, parse_size
from train.data.open import Dataset, ImageCache, open_dataset, split_held_out
from train.fit import build_model
from train.fit_options import DECODERS, default_config
from train.loop.schedule import FAST, PAPER, SCHEDULES, Recipe
from train.loop.training import Trainer


class PublishedLoop:
    """The paper's training loop, transcribed plainly: FrEIA's blocks, one Adam, codes made anew for every batch."""

    def __init__(self, model: CFlow, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.decoders = nn.ModuleList(_published_decoder(decoder.dims, model.config) for decoder in model.decoders)  # type: ignore[arg-type]
        self.optimizer = torch.optim.Adam(self.decoders.parameters(), lr=recipe.learning_rate)

    def train_images(self, frames: Tensor) -> float:
        """Take all optimisation steps of one image batch, (B, H, W, 3) uint8; return the mean loss."""
        with torch.no_grad():
            features = self.model.encoder(self.model.normalise(frames))
        losses = []
        for tap, decoder in zip(features, self.decoders, strict=True):
            batch, channels, height, width = tap.shape
            codes = position_code(height, width).permute(2, 0, 1).unsqueeze(0).repeat(batch, 1, 1, 1)
            conditions = codes.reshape(batch, CONDITION_DIMS, -1).transpose(1, 2).reshape(-1, CONDITION_DIMS)
            fibers = tap.reshape(batch, channels, -1).transpose(1, 2).reshape(-1, channels)
            order = torch.randperm(len(fibers))
            for step in range(len(fibers) // self.recipe.fiber_batch):
                chosen = order[step * self.recipe.fiber_batch : (step + 1) * self.recipe.fiber_batch]
                given = [conditions[chosen]] if self.model.config.conditional else None
                u, log_det_jacobian = decoder(fibers[chosen], given)
                loss = -F.logsigmoid(log_likelihood(u, log_det_jacobian)).mean()
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                losses.append(loss.item())
        return statistics.mean(losses)


def _published_decoder(channels: int, config: ModelConfig) -> SequenceINN:
    decoder = SequenceINN(channels)
    condition = {"cond": 0, "cond_shape": (CONDITION_DIMS,)} if config.conditional else {}
    for _ in range(config.coupling_blocks):
        decoder.append(
            AllInOneBlock,
            **condition,
            subnet_constructor=lambda i, o: nn.Sequential(nn.Linear(i, 2 * i), nn.ReLU(), nn.Linear(2 * i, o)),
            affine_clamping=CLAMP,
            global_affine_type="SOFTPLUS",
            permute_soft=channels <= 512,  # drawing a soft one by FrEIA takes minutes at 2048; the step costs the same
        )
    return decoder


def compare_steps(model: CFlow, images: ImageCache, recipe: Recipe, batches: int) -> list[tuple[float, float]]:
    """Return seconds of (published, ours) for each of `batches` image batches, run in turn after one warm-up."""
    published = PublishedLoop(model, recipe)
    trainer = Trainer(model, images, recipe)

    def ours(frames: Tensor) -> float:
        return float(trainer.train_images(frames, recipe.learning_rate, 0))

    warm_up = torch.from_numpy(images.batch([i % len(images) for i in range(8)]))
    published.train_images(warm_up)
    ours(warm_up)
    seconds: list[tuple[float, float]] = []
    for index in range(batches):
        chosen = [i % len(images) for i in range(index * recipe.batch, (index + 1) * recipe.batch)]
        frames = torch.from_numpy(images.batch(chosen))
        seconds.append((_seconds(published.train_images, frames), _seconds(ours, frames)))
        print(f"batch {index + 1}: published {seconds[-1][0]:.1f} s, ours {seconds[-1][1]:.1f} s", flush=True)
    return seconds


def _seconds(work: Callable[[Tensor], float], frames: Tensor) -> float:
    """Time `work`, whose result is a number on the host, so that a GPU has finished when it returns."""
    started = time.perf_counter()
    work(frames)
    return time.perf_counter() - started


def likelihood_curve(options: argparse.Namespace, recipe: Recipe) -> list[tuple[float, float]]:
    """Train by `recipe`; return (seconds so far, held-out log-likelihood) after each pass, evaluation not counted."""
    config, train, held_out = _setup(options)
    model, _ = build_model(config, options.weights, train)
    trainer = Trainer(model, train, recipe)
    curve: list[tuple[float, float]] = []
    seconds = 0.0
    trainer.start(held_out)
    while trainer.epoch < recipe.epochs:
        started = time.perf_counter()
        loss = trainer.train_pass()
        seconds += time.perf_counter() - started
        trainer.end_pass(loss, held_out)
        curve.append((seconds, trainer.history[-1]["held_out_logp"]))
    return curve


def compare_schedules(options: argparse.Namespace) -> None:
    """Print both schedules' held-out likelihoods over time, and the ratio of times to the paper's."""
    passes = {"meta_epochs": options.meta_epochs, "sub_epochs": options.sub_epochs}
    paper = likelihood_curve(options, replace(PAPER, **{k: v for k, v in passes.items() if v}))
    fast = likelihood_curve(options, replace(FAST, meta_epochs=options.fast_meta_epochs))
    for name, curve in (("paper", paper), ("fast", fast)):
        shown = curve[:: max(1, len(curve) // 8)] + curve[-1:]
        print(f"{name} ({len(curve)} passes): " + ", ".join(f"{s:.0f} s {logp:.3f}" for s, logp in shown))
    best = max(logp for _, logp in paper)
    stays = next((len(fast) - n for n, (_, logp) in enumerate(reversed(fast)) if logp < best), 0)  # above it for good
    if stays == len(fast):
        print(f"fast ended at {fast[-1][1]:.3f}, below the paper's {best:.3f}: more --fast-meta-epochs")
    else:
        whole, needed = paper[-1][0], fast[stays][0]
        print(f"fast reached the paper's {best:.3f} in {needed:.0f} s of its {whole:.0f} s: {whole / needed:.1f} x")


def _setup(options: argparse.Namespace) -> tuple[ModelConfig, ImageCache, ImageCache]:
    taps = check_taps(options.encoder, tuple(filter(None, options.taps.split(","))))
    config = ModelConfig(options.encoder, taps, parse_size(options.size))
    train, held_out = split_held_out(open_dataset(options.data[0]).train[: options.images], PAPER.held_out, PAPER.seed)
    return config, ImageCache(train, config.input_size), ImageCache(held_out, config.input_size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("what", choices=("steps", "schedules", "robust", "encoders", "seeds"))
    data = "MVTec-style folder, folder of good images or list (CSV, JSON); robust, seeds: repeat it for several"
    parser.add_argument("--data", type=Path, action="append", default=[], help=data)
    parser.add_argument("--encoder", choices=list(ENCODERS), default="resnet18", metavar="NAME")
    row = "encoders: NAME[:TAP,TAP][=WEIGHTS], repeated (default: ResNet-18 and EfficientNet-Lite0 to 2, ImageNet)"
    parser.add_argument("--row", action="append", default=[], metavar="ROW", help=row)
    parser.add_argument("--weights", default="random", help="imagenet, random (the default: as fast), or a file")
    parser.add_argument("--taps", default="", help="comma-separated (default: the paper's)")
    parser.add_argument("--size", default="256", help="256, HEIGHTxWIDTH; robust, seeds: auto too (default: 256)")
    parser.add_argument("--images", type=int, help="use the first so many (default: all)")
    parser.add_argument("--batches", type=int, default=3, help="steps: image batches (or passes) to time (default: 3)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="steps: another checkout of this project")
    parser.add_argument("--meta-epochs", type=int, help="schedules, robust, seeds: the paper's (default: 25)")
    parser.add_argument("--sub-epochs", type=int, help="schedules, robust, seeds: the paper's (default: 8)")
    detectors = "encoders: a short training of each too, what INT8 costs it, and all speeds (OpenVINO)"
    parser.add_argument("--detectors", action="store_true", help=detectors)
    parser.add_argument("--bad", type=float, help="robust: mix so many anomalous test images in, such as 0.05")
    parser.add_argument("--seed", type=int, default=PAPER.seed, help="robust: of all that is drawn (default: 0)")
    parser.add_argument(
        "--schedule", choices=list(SCHEDULES), default="fast", help="robust, seeds, --against: which (default: fast)"
    )
    decoder = "robust, seeds: as of train.fit (default: slim, with the paper's schedule paper)"
    parser.add_argument("--decoder", choices=DECODERS, help=decoder)
    parser.add_argument("--seeds", default="0,1,2", help="seeds: comma-separated (default: 0,1,2)")
    parser.add_argument("--fast-meta-epochs", type=int, default=FAST.meta_epochs, help="all but steps: the fast one's")
    return parser


def check_robustness(options: argparse.Namespace) -> int:
    """Print a row a set; return 1 where training ended below a normal distribution of the same features."""
    recipe, encoder = _recipe(options), (options.encoder, _taps(options), options.weights)
    print(f"held-out log-likelihood, nats a dimension; {options.schedule}\n{HEADER}", flush=True)
    held = True
    with tempfile.TemporaryDirectory() as folder:
        for row in hard_rows(Path(folder), options.data, encoder, recipe, options.images or 40, options.size):
            print(row, flush=True)
            held = held and row.holds
    return 0 if held else 1


def check_contamination(options: argparse.Namespace) -> int:
    """Print what bad images among the good ones cost; return 1 where it is more than `MOST_LOST`."""
    recipe, weights = _recipe(options), options.weights
    whole = open_dataset(options.data[0])
    mixed = mix(replace(whole, train=whole.train[: options.images]), options.bad, recipe.seed)
    config = _config(options, mixed.clean)
    print(f"{len(mixed.bad)} of {len(mixed.clean.train)} training images are bad; {options.schedule}\n{MIXED_HEADER}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in mixed_rows(mixed, config, recipe, weights, Path(folder)):
            print(row, flush=True)
            rows.append(row.evaluation.image_auroc)
    lost = rows[0] - rows[1]
    print(f"image AUROC lost: {100 * lost:.2f} points")
    return 0 if lost <= MOST_LOST else 1


def tabulate_seeds(options: argparse.Namespace) -> None:
    """Print a table of seeds for each data set."""
    try:
        seeds = [replace(PAPER, seed=int(seed)).seed for seed in options.seeds.split(",")]  # refused before any trains
    except ValueError:
        raise UserError("--seeds must be whole numbers, comma-separated", options.seeds, "e.g. 0,1,2") from None
    for root in options.data:
        dataset = open_dataset(root)
        print_seeds(dataset, _config(options, dataset), _recipe(options), options.weights, seeds)


def _taps(options: argparse.Namespace) -> tuple[str, ...]:
    return check_taps(options.encoder, tuple(filter(None, options.taps.split(","))))


def _config(options: argparse.Namespace, dataset: Dataset) -> ModelConfig:
    """Return the detector that `train.fit` makes by default of these images."""
    taps = _taps(options)
    size = choose_size(options.size, dataset.train, coarsest_stride(options.encoder, taps), PLAIN)
    return default_config(options.encoder, taps, size, options.schedule, options.decoder)


def _recipe(options: argparse.Namespace) -> Recipe:
    """Return the schedule with the passes that the options change."""
    fast = {"meta_epochs": options.fast_meta_epochs}
    passes = fast if options.schedule == "fast" else {k: getattr(options, k) for k in ("meta_epochs", "sub_epochs")}
    return replace(SCHEDULES[options.schedule], seed=options.seed, **{k: v for k, v in passes.items() if v})


def main(argv: Sequence[str] | None = None) -> int:
    """Measure from the command line."""
    options = _parser().parse_args(argv)
    if options.what == "robust" and options.bad is None:
        return check_robustness(options)
    if options.what == "seeds":
        tabulate_seeds(options)
        return 0
    if len(options.data) != 1:
        raise UserError("--data must name the images, once", f"{len(options.data)} of them")
    if options.what == "robust":
        return check_contamination(options)
    if options.what == "schedules":
        compare_schedules(options)
        return 0
    if options.what == "encoders":
        dataset = open_dataset(options.data[0])
        part = replace(dataset, train=dataset.train[: options.images])
        if options.detectors:
            recipe = replace(FAST, meta_epochs=options.fast_meta_epochs)
            print_detector_table(options.row, part, parse_size(options.size), recipe)
        else:
            print_encoder_table(options.row, part, parse_size(options.size))
        return 0
    config, images, _ = _setup(options)
    if options.against:
        compare_with(options, config.taps, config.input_size, len(images))
        return 0
    model, _ = build_model(config, options.weights, images)
    seconds = compare_steps(model, images, PAPER, options.batches)
    ratio = statistics.median(published / ours for published, ours in seconds)
    threads = torch.get_num_threads()
    print(f"ours is {ratio:.2f} x as fast as the published loop (median of {len(seconds)} batches, {threads} threads)")
    return 0


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
