"""Training steps of this checkout against another's, each in its own process, in turn on the same images."""

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from runtime.common.errors import UserError

EXPECTED = "--against must name a checkout of this project that trains"
HERE = Path(__file__).parents[2]
# What every checkout since the first fast schedule understands. A line on its input asks for one pass. Its steps are
# those of the schedule, but for what only the newer one may know: all positions are taken, and without noise.
WORKER = """
import sys, time, torch
from dataclasses import fields, replace
from pathlib import Path
from export.model.cflow import ModelConfig
from train.data.open import ImageCache, open_dataset
from train.fit import build_model
from train.loop.schedule import SCHEDULES
from train.loop.training import Trainer
data, encoder, taps, height, width, weights, schedule, count, parameters = sys.argv[1:]
config = ModelConfig(encoder, tuple(taps.split(",")), (int(height), int(width)))
images = ImageCache(open_dataset(Path(data)).train[:int(count)], config.input_size)
model, _ = build_model(config, weights, images)
known = {field.name for field in fields(SCHEDULES[schedule])}
same = {name: 0 for name in ("positions", "feature_noise") if name in known}
trainer = Trainer(model, images, replace(SCHEDULES[schedule], **same))
for number, _ in enumerate(sys.stdin):
    started = time.perf_counter(), time.process_time()
    trainer.train_pass()
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    if number == 0:
        torch.save([tap.flow.parameters for tap in trainer.taps], parameters)
    print(*seconds, flush=True)
"""


class Checkout:
    """A process that trains with the code at `root`; `arguments` are the worker's but the last."""

    def __init__(self, root: Path, arguments: list[str], parameters: Path) -> None:
        if not (root / "train/loop/training.py").is_file():  # else Python would find an installed one
            raise UserError(EXPECTED, str(root))
        command = [sys.executable, "-c", WORKER, *arguments, str(parameters)]
        self.root, self.parameters = root, parameters
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self) -> tuple[float, float]:
        """Train a pass; return its seconds by the clock and of processors. Raises `UserError` where it cannot."""
        assert self.process.stdin and self.process.stdout
        try:
            print(file=self.process.stdin, flush=True)
            wall, busy = map(float, self.process.stdout.readline().split())
        except (OSError, ValueError):
            raise UserError(EXPECTED, str(self.root)) from None
        return wall, busy

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def compare_with(
    options: argparse.Namespace, taps: tuple[str, ...], size: tuple[int, int], images: int
) -> list[tuple[float, float]]:
    """Train `options.batches` passes in turn; print and return the other's seconds over ours, by clock and processor.

    The first pass of each warms up and is compared: the same parameters, but for rounding, are the same steps.
    """
    weights = str(Path(options.weights).resolve()) if Path(options.weights).is_file() else options.weights
    words = [str(options.data[0].resolve()), options.encoder, ",".join(taps), *map(str, size), weights]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkouts = []
        for name, root in (("theirs", options.against), ("ours", HERE)):
            checkout = Checkout(root, [*words, options.schedule, str(images)], folder / f"{name}.pt")
            stack.callback(checkout.close)
            checkout.seconds()
            checkouts.append(checkout)
        print(
            f"parameters after a pass differ by {_difference(*(each.parameters for each in checkouts)):.1e}, relative"
        )
        ratios = []
        for number in range(options.batches):
            theirs, ours = (checkout.seconds() for checkout in checkouts)
            ratios.append((theirs[0] / ours[0], theirs[1] / ours[1]))
            print(f"pass {number + 1}: theirs {theirs[0]:.1f} s, ours {ours[0]:.1f} s", flush=True)
    wall, busy = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"ours is {wall:.2f} x as fast by the clock, {busy:.2f} x by processor time (medians of {len(ratios)} passes)"
    )
    return ratios


def _difference(first: Path, second: Path) -> float:
    """Return the norm of two files' parameters' difference over that of the first."""
    vectors: list[Tensor] = [torch.cat(torch.load(path, weights_only=True)).double() for path in (first, second)]
    return float((vectors[0] - vectors[1]).norm() / vectors[0].norm())
