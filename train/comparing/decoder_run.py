"""One decoder trained by itself, and what an evaluation needs to know of it afterwards: its log-likelihoods.

A decoder sees its own tap and nothing else: the taps that a detector has beside it, and their decoders, change
nothing for it. So a decoder that several detectors share is trained once. The steps are those of `Trainer`, and the
pass that is kept is chosen as there.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.model.checkpoint import read_tensors
from export.model.flow import Decoder
from export.model.tensor_files import save_torch_file
from runtime.common.errors import UserError
from runtime.images.folders import evenly_spread
from train.loop.augmentation import AS_IT_IS, image_batches
from train.loop.feature_store import FeatureStore, FiberSource
from train.loop.kept_weights import KeptWeights, check_learnt
from train.loop.normal import Normal, fit_normal
from train.loop.precision import products_type
from train.loop.processes import Processes
from train.loop.schedule import Recipe, learning_rate
from train.loop.tap_training import Fibers, TapTraining

FORMAT = "cflow-edge/decoder-run/1"
BATCH = 8  # images whose log-likelihoods are computed at a time


@dataclass(frozen=True, eq=False)
class Features:
    """What decoders are trained on, chosen by and judged on."""

    train: FiberSource
    held_out: FeatureStore
    test: FeatureStore


@dataclass(frozen=True, eq=False)
class DecoderRun:
    """A trained decoder's log-likelihoods, (N, h, w) in nats per dimension on the CPU, and its training's minutes."""

    held_out: Tensor
    test: Tensor
    minutes: float


@dataclass(frozen=True, eq=False)
class DecoderJob:
    """How one decoder is trained: on tap `tap`, whose grid is (height, width), by `recipe`, on `processes`.

    `after_batch` is called after every image batch and may raise to end the training.
    """

    tap: int
    grid: tuple[int, int]
    recipe: Recipe
    processes: Processes
    after_batch: Callable[[], None] = lambda: None

    def fibers(self, values: Tensor, epoch: int, index: int, most: int | None) -> Fibers:
        """Return the features (N, D) of image batch `index` of pass `epoch` in the order in which `most` are taken."""
        generator = self.processes.generator(self.recipe.seed, epoch, index, self.tap)
        return Fibers.shuffled(values, self.grid[0] * self.grid[1], self.recipe.feature_noise, generator, most)


def train_decoder(decoder: Decoder, job: DecoderJob, features: Features) -> DecoderRun:
    """Train `decoder` to the recipe's end, and judge with it.

    Of all passes the one that held-out images like best counts. Raises `UserError` if every pass went wrong.
    """
    started = time.monotonic()
    products = products_type(job.recipe)
    training = TapTraining(decoder.to(job.processes.device), job.grid, job.recipe.learning_rate, products)
    kept = KeptWeights(training)
    if job.recipe.standardised_start:
        training.flow.begin_as(_normal(job, features.train))
    kept.begin(_means(training, job, features.held_out))
    for epoch in range(job.recipe.epochs):
        loss = _train_pass(kept, job, features.train, epoch)
        kept.judge(_means(training, job, features.held_out), epoch + 1, loss)
    check_learnt([kept], job.recipe.epochs)
    kept.take_best()
    held_out, test = (_log_likelihoods(training, job, source) for source in (features.held_out, features.test))
    return DecoderRun(held_out, test, (time.monotonic() - started) / 60)


def _normal(job: DecoderJob, source: FiberSource) -> Normal:
    chosen = evenly_spread(len(source))
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    return fit_normal(torch.cat([source.fibers(job.tap, part, [AS_IT_IS] * len(part)).cpu() for part in parts]))


def _train_pass(kept: KeptWeights, job: DecoderJob, source: FiberSource, epoch: int) -> float:
    """Train through all image batches once; return the mean loss."""
    recipe = job.recipe
    losses = []
    batches = list(image_batches(recipe, epoch, len(source)))
    for index, (indices, variations) in enumerate(batches):
        values = source.fibers(job.tap, indices, variations)
        fibers = job.fibers(values, epoch, index, recipe.fibers_of(len(indices)))
        steps = max(1, len(fibers.order) // recipe.fiber_batch)  # an incomplete last fiber batch is left out
        rate = learning_rate(recipe, epoch, index / len(batches)) * kept.share
        losses.append(kept.tap.train(fibers, steps, recipe.fiber_batch, rate, job.processes))
        job.after_batch()
    mean = torch.stack(losses).mean()
    job.processes.average(mean)
    return float(mean)


def _means(training: TapTraining, job: DecoderJob, features: FeatureStore) -> Tensor:
    """Return the mean log-likelihood of every image, (N,) on the CPU."""
    return _log_likelihoods(training, job, features).double().mean(dim=(1, 2))


def _log_likelihoods(training: TapTraining, job: DecoderJob, features: FeatureStore) -> Tensor:
    """Return the log-likelihoods of all images, (N, h, w) on the CPU."""
    count = len(features)
    parts = (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))
    logps = [training.log_likelihood(features.fibers(job.tap, part)).cpu() for part in parts]
    return torch.cat(logps).view(-1, *job.grid)


def save_run(path: Path, run: DecoderRun, identity: dict[str, Any]) -> None:
    """Write `run` whole or not at all; `identity` names all that its result depends on."""
    content = {"format": FORMAT, "identity": identity, **vars(run)}
    save_torch_file(path, content)


def load_run(path: Path, identity: dict[str, Any]) -> DecoderRun | None:
    """Return the run that `path` holds, None if there is none. Raises `UserError` if it is another identity's."""
    if not path.is_file():
        return None
    content = read_tensors(path, FORMAT)
    changed = [key for key in identity if content["identity"].get(key) != identity[key]]
    if changed:
        raise UserError(
            f"{path} must come from the same settings", f"another {', '.join(changed)}", "choose another --out-dir"
        )
    return DecoderRun(content["held_out"], content["test"], content["minutes"])
