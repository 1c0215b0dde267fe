"""The training loop: shuffled fibers of an image batch, one optimisation step per fiber batch and tap."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import read_tensors
from export.model.tensor_files import save_torch_file
from runtime.common.errors import UserError
from runtime.common.interrupts import lasting_interrupt
from runtime.common.machine import memory_bytes
from runtime.common.side_by_side import one_ahead
from train.data.open import ImageCache
from train.loop.augmentation import Variation, image_batches, varied
from train.loop.feature_store import FeatureStore, stored_bytes
from train.loop.flow_gradient import WHOLE, Origins
from train.loop.kept_weights import KeptWeights, check_learnt
from train.loop.normal import Normal, fit_normals
from train.loop.precision import products_type, settle
from train.loop.processes import Processes, one_process
from train.loop.schedule import Recipe, learning_rate
from train.loop.tap_training import Fibers, TapTraining

STATE_FORMAT = "cflow-edge/training/3"
HELD_OUT_BATCH = 8  # images
SHARE_OF_MEMORY = 4  # one in so many bytes of the machine may hold features
NOT_FINITE = -1e9  # stands in the history for a likelihood that was not finite, and minus that for a loss


def resume_path(out: Path) -> Path:
    """Return where an interrupted run's state stands: `cable.training.pt` for `cable.pt`."""
    return out.with_suffix(".training.pt")


def origins_of(config: ModelConfig) -> list[Origins]:
    """Return for each tap where rows and columns of tiles begin in their frame, in positions of the tap."""
    if config.tiles is None:
        return [WHOLE] * len(config.taps)
    tops, lefts = config.tiles.tops, config.tiles.lefts
    return [([top / stride for top in tops], [left / stride for left in lefts]) for stride in config.tap_strides]


class Trainer:
    """Fits the decoders of `model`; the encoder is frozen.

    Every pass draws from its own random streams (seed, pass), so that a resumed run takes the same steps as
    an uninterrupted one. Of every tap the weights of the pass that held-out good images like best
    are what is left in the model; a tap that a pass led astray goes back to them (`KeptWeights`). With several
    `processes` each takes its share of every image batch, and their gradients are averaged.
    """

    def __init__(self, model: CFlow, images: ImageCache, recipe: Recipe, processes: Processes | None = None) -> None:
        self.processes = processes or one_process()
        self.device = self.processes.device
        self.model = model.to(self.device)
        self.images = images
        self.recipe = recipe = settle(recipe, self.device)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.losses = [0.0 for _ in model.config.taps]  # of the last pass, a tap each
        products = products_type(recipe)
        self.taps = [
            TapTraining(decoder, (height, width), recipe.learning_rate, products, origins)  # type: ignore[arg-type]
            for decoder, (_, height, width), origins in zip(
                model.decoders, model.config.tap_sizes, origins_of(model.config), strict=True
            )
        ]
        for tap in self.taps:
            self.processes.broadcast(tap.flow.parameters)
        self.kept = [KeptWeights(tap) for tap in self.taps]

    def run(self, state: Path, held_out: ImageCache, sources: Mapping[str, str]) -> None:
        """Train to the recipe's end, writing the training state to `state` after every pass.

        `sources` names what else the result depends on (data, encoder weights): a resumed run's must be the same.
        Raises `UserError` if every pass went wrong.
        """
        count, first = len(self.images), self.processes.first
        with (
            lasting_interrupt() as check,
            tqdm(
                total=self.recipe.epochs * count,
                unit="img" if self.images.per_image == 1 else "tile",
                initial=self.epoch * count,
                disable=None if first else True,
            ) as bar,
        ):
            if not self.history:
                self.start(held_out)
            while self.epoch < self.recipe.epochs:
                mended = self.end_pass(self.train_pass(bar, check), held_out)
                if mended and first:
                    tqdm.write(mended, file=sys.stderr)
                bar.set_description(self._pass_summary())
                if bar.disable and first:  # no terminal: a line a pass instead of a bar
                    print(f"{self._pass_summary()}, loss {self.history[-1]['loss']:.4f}", file=sys.stderr, flush=True)
                if first:
                    self._save(state, sources)
        check_learnt(self.kept, self.epoch)
        for kept in self.kept:
            kept.take_best()

    def start(self, held_out: ImageCache) -> None:
        """Begin as a normal distribution, where the recipe does, and judge what the first pass begins with."""
        if self.recipe.standardised_start:
            for tap, normal in zip(self.taps, self.normals, strict=True):
                tap.flow.begin_as(normal)
                self.processes.broadcast(tap.flow.parameters)
                self.processes.broadcast(tap.flow.first_permutation)
        for kept, logps in zip(self.kept, self._held_out_logps(held_out), strict=True):
            kept.begin(logps)

    @cached_property
    def normals(self) -> list[Normal]:
        """A normal distribution of each tap's features: what the flow begins as, and what it is held against."""
        return fit_normals(self.model, self.images, self.device)

    def _pass_summary(self) -> str:
        return f"pass {self.epoch}/{self.recipe.epochs}, held-out logp {self.history[-1]['held_out_logp']:.3f}"

    def train_pass(self, bar: "tqdm[Any] | None" = None, after_batch: Callable[[], None] = lambda: None) -> float:
        """Take all steps of one pass over the images and return the mean loss; `after_batch` may raise to end it.

        `losses` has the mean of each tap.
        """
        batches = -(-len(self.images) // self.recipe.batch)
        losses = []
        for index, (features, places) in enumerate(self._feature_batches()):
            rate = learning_rate(self.recipe, self.epoch, index / batches)
            losses.append(self._train_features(features, rate, index, places))
            if bar is not None:
                bar.update(min(self.recipe.batch, len(self.images) - index * self.recipe.batch))
                bar.set_postfix(lr=f"{rate:.1e}", refresh=False)
            after_batch()
        means = torch.stack(losses).mean(dim=0)
        self.processes.average(means)  # all go back, or none
        self.losses = means.tolist()
        return float(means.mean())

    @cached_property
    def _kept_features(self) -> FeatureStore | None:
        """The images' features, where they are the same in every pass; none where they do not fit, or on a GPU.

        All or none of them, computed in one order: a resumed run then has the same bits. A GPU encodes about as fast as
        it could be told.
        """
        needed = stored_bytes(self.model.config, len(self.images), torch.float32) * self.processes.count
        fits = needed <= memory_bytes() // SHARE_OF_MEMORY
        if self.recipe.varies_images or self.device.type != "cpu" or not fits:
            return None
        return FeatureStore(self.model, self.images, self.device, torch.float32)

    def _feature_batches(self) -> Iterator[tuple[list[Tensor], Tensor | None]]:
        """Yield this process's share of every image batch of the pass: features, one (B·h·w, D) per tap, and places."""
        kept, places = self._kept_features, (self._places(indices) for indices, _ in self._shares())
        if kept is None:
            yield from zip(map(self._fibers, one_ahead(self._image_batches())), places, strict=True)
        else:
            for (indices, _), place in zip(self._shares(), places, strict=True):
                yield [kept.fibers(tap, indices) for tap in range(len(self.taps))], place

    def _places(self, indices: Sequence[int], images: ImageCache | None = None) -> Tensor | None:
        """Return where inputs stand among the tiles of their frames, (B, 2) on the device; None for whole images."""
        places = (images or self.images).places(indices)
        return None if places is None else torch.from_numpy(places).to(self.device)

    def _shares(self) -> Iterator[tuple[list[int], list[Variation]]]:
        """Yield this process's share of every image batch: indices, and how each image is varied."""
        rank, count = self.processes.rank, self.processes.count
        for indices, variations in image_batches(self.recipe, self.epoch, len(self.images)):
            share = len(indices) // count  # a remainder waits for another pass; all take all of fewer than `count`
            own = slice(rank * share, (rank + 1) * share) if share else slice(None)
            yield indices[own], variations[own]

    def _image_batches(self) -> Iterator[Tensor]:
        """Yield this process's share of every image batch, (B, H, W, 3) uint8."""
        for share in self._shares():
            chosen = [varied(self.images, index, variation) for index, variation in zip(*share, strict=True)]
            frames = torch.from_numpy(np.stack(chosen))
            yield frames.pin_memory() if self.device.type == "cuda" else frames

    def train_images(self, frames: Tensor, rate: float, index: int) -> Tensor:
        """Take all optimisation steps of the pass's image batch `index`, (B, H, W, 3) uint8, at one learning rate.

        Returns the mean loss over steps and taps, on the device.
        """
        return self._train_features(self._fibers(frames), rate, index).mean()

    def _train_features(self, features: list[Tensor], rate: float, index: int, places: Tensor | None = None) -> Tensor:
        """Return the mean loss over the steps of each tap, (K,), on the device."""
        share = max(1, self.recipe.fiber_batch // self.processes.count)
        _, height, width = self.model.config.tap_sizes[0]
        most = self.recipe.fibers_of(len(features[0]) // (height * width))

        def train(k: int) -> Tensor:
            fibers = self._shuffled(features[k], index, k, most, places)
            steps = max(1, len(fibers.order) // share)  # an incomplete last fiber batch is left out
            return self.taps[k].train(fibers, steps, share, rate * self.kept[k].share, self.processes)

        return torch.stack(self._for_every_tap(train))

    def _shuffled(
        self, features: Tensor, index: int, tap: int, most: int | None = None, places: Tensor | None = None
    ) -> Fibers:
        """Return the features (N, D) of the pass's image batch `index` in the order in which `most` are taken."""
        generator = self.processes.generator(self.recipe.seed, self.epoch, index, tap)
        noise = self.recipe.feature_noise
        return Fibers.shuffled(features, self.taps[tap].positions, noise, generator, most, places)

    def _fibers(self, frames: Tensor) -> list[Tensor]:
        """Return the features of frames (B, H, W, 3) as one (B·h·w, D) per tap."""
        model = self.model.eval()
        with torch.no_grad():
            features = model.features(frames.to(self.device, non_blocking=True))
            return [tap.permute(0, 2, 3, 1).reshape(-1, tap.shape[1]) for tap in features]

    def _for_every_tap(self, work: Callable[[int], Tensor]) -> list[Tensor]:
        """Return `work(k)` of all taps: on a CPU side by side, because small products hardly use a second core."""
        threads = torch.get_num_threads()
        workers = min(len(self.taps), threads)
        if self.device.type != "cpu" or self.processes.count > 1 or workers == 1:  # averaging has one order
            return [work(k) for k in range(len(self.taps))]
        torch.set_num_threads(threads // workers)
        try:
            with ThreadPoolExecutor(workers) as pool:
                return list(pool.map(work, range(len(self.taps))))
        finally:
            torch.set_num_threads(threads)

    def end_pass(self, loss: float, held_out: ImageCache) -> str:
        """Count the pass and judge it on held-out good images; return in words which taps it led astray.

        Of each tap the weights are kept if they are the best so far; one that was led astray goes back.
        """
        self.epoch += 1
        logps = self._held_out_logps(held_out)
        entry = {"loss": loss, "held_out_logp": float(logps.mean())}
        found = {
            name: value if np.isfinite(value) else (NOT_FINITE, -NOT_FINITE)[name == "loss"]
            for name, value in entry.items()
        }
        astray = [k for k, kept in enumerate(self.kept) if kept.judge(logps[k], self.epoch, self.losses[k])]
        self.history.append({"pass": self.epoch, **found, "taps_led_astray": len(astray)})
        return self._words_of_astray(astray, logps)

    def _words_of_astray(self, astray: list[int], logps: Tensor) -> str:
        names = self.model.config.taps
        parts = [
            f"{names[k]} fell from {self.kept[k].logp:.2f} to {float(logps[k].mean()):.2f}, back to pass "
            f"{self.kept[k].best_pass} at {self.kept[k].rate_share:.2g} of the rate"
            for k in astray
        ]
        return f"pass {self.epoch} went wrong: {'; '.join(parts)}" if parts else ""

    def _held_out_logps(self, held_out: ImageCache) -> Tensor:
        """Return every tap's log-likelihoods of held-out good images, (K, n) in nats per dimension, on the host.

        An image's is the mean of its tiles'. They decide what every process does next: all take the first one's.
        """
        columns = []
        for start in range(0, len(held_out), HELD_OUT_BATCH):
            indices = range(start, min(start + HELD_OUT_BATCH, len(held_out)))
            features = self._fibers(torch.from_numpy(held_out.batch(indices)))
            places = self._places(indices, held_out)

            def means(
                k: int, features: list[Tensor] = features, count: int = len(indices), places: Tensor | None = places
            ) -> Tensor:
                return self.taps[k].log_likelihood(features[k], places).view(count, -1).double().mean(1)

            columns.append(torch.stack(self._for_every_tap(means)))
        logps = torch.cat(columns, dim=1).view(len(self.taps), -1, held_out.per_image).mean(2)
        self.processes.broadcast(logps)
        return logps.cpu()

    def _identity(self, sources: Mapping[str, str]) -> dict[str, Any]:
        return {"config": self.model.config.facts(), "recipe": asdict(self.recipe), **sources}

    def _save(self, state: Path, sources: Mapping[str, str]) -> None:
        content = {
            "format": STATE_FORMAT,
            "identity": self._identity(sources),
            "epoch": self.epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "kept": [kept.state_dict() for kept in self.kept],
            "optimizers": [tap.optimizer.state_dict() for tap in self.taps],
        }
        save_torch_file(state, content)

    def restore(self, state: Path, sources: Mapping[str, str]) -> None:
        """Go on from `state`. Raises `UserError` if it is missing or another run's (config, recipe or sources)."""
        if not state.is_file():
            raise UserError(f"--resume needs an interrupted run's state at {state}", "no such file", "drop --resume")
        content = read_tensors(state, STATE_FORMAT)
        wanted = self._identity(sources)
        cure = "drop --resume (train.fit_classes: --force)"
        changed = [key for key in wanted if content["identity"].get(key, "") != wanted[key]]
        if changed:
            raise UserError(f"{state} must come from the same run", f"another {', '.join(changed)}", cure)
        self.model.load_state_dict(content["model"])  # copies into the vectors that the parameters are views of
        for tap, optimizer in zip(self.taps, content["optimizers"], strict=True):
            tap.optimizer.load_state_dict(optimizer)
        for kept, kept_state in zip(self.kept, content["kept"], strict=True):
            kept.load_state_dict(kept_state)
        self.epoch, self.history = content["epoch"], content["history"]
