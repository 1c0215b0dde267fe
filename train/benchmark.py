"""How fast training is: `python -m train.benchmark steps|schedules --data DIR`.

`steps` runs the same image batches through a plain transcription of the published loop and through ours, in
turn, and prints the ratio of their times.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import ENCODERS, check_taps
from export.model.flow import CLAMP, CONDITION_DIMS, log_likelihood, position_code
from runtime.errors import run_command
from train.data import ImageCache, open_dataset
from train.fit import build_model, parse_size
from train.schedule import Recipe
from train.training import Trainer


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
    seconds: list[tuple[float, float]] = []
    for index in range(-1, batches):
        first = max(index, 0) * recipe.batch
        chosen = [i % len(images) for i in range(first, first + (2 if index < 0 else recipe.batch))]
        frames = torch.from_numpy(images.batch(chosen))
        pair = (
            _seconds(lambda: published.train_images(frames)),
            _seconds(lambda: trainer.train_images(frames, recipe.learning_rate, 0)),
        )
        if index >= 0:
            seconds.append(pair)
            print(f"batch {index + 1}: published {pair[0]:.1f} s, ours {pair[1]:.1f} s", flush=True)
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="MVTec-style folder, or a folder of good images")
    parser.add_argument("--encoder", choices=list(ENCODERS), default="resnet18")
    parser.add_argument(
        "--weights", default="random", help="imagenet, random (the default: speed is the same), or a file"
    )
    parser.add_argument("--taps", default="", help="comma-separated (default: the paper's)")
    parser.add_argument("--size", default="256")
    parser.add_argument("--batches", type=int, default=3, help="image batches to time (default: 3)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    options = _parser().parse_args(argv)
    taps = check_taps(options.encoder, tuple(filter(None, options.taps.split(","))))
    config = ModelConfig(options.encoder, taps, parse_size(options.size))
    images = ImageCache(open_dataset(options.data).train, config.input_size)
    model, _ = build_model(config, options.weights, images)
    seconds = compare_steps(model, images, Recipe(), options.batches)
    ratio = statistics.median(published / ours for published, ours in seconds)
    print(
        f"ours is {ratio:.2f} x as fast as the published loop (median of {len(seconds)}, {torch.get_num_threads()} threads)"
    )


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
