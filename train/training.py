"""The training loop: shuffled fibers of an image batch, one optimisation step per fiber batch and tap."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from export.model.cflow import CFlow
from export.model.checkpoint import read_tensors
from export.model.flow import log_likelihood
from runtime.errors import UserError
from runtime.files import whole_file
from train.data import ImageCache, rotate
from train.schedule import Recipe, learning_rate
from train.score import log_likelihood_batches

STATE_FORMAT = "cflow-edge/training/1"


def resume_path(out: Path) -> Path:
    """Return where an interrupted run's state stands: `cable.training.pt` for `cable.pt`."""
    return out.with_suffix(".training.pt")


class Trainer:
    """Fits the decoders of `model`; the encoder is frozen.

    Every pass draws from its own random stream (seed, epoch), so that a resumed run takes the same
    steps as an uninterrupted one.
    """

    def __init__(self, model: CFlow, images: ImageCache, recipe: Recipe, device: torch.device) -> None:
        self.model = model
        self.images = images
        self.recipe = recipe
        self.device = device
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        trained = [p for decoder in model.decoders for p in decoder.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)

    def run(self, state: Path, held_out: ImageCache, sources: Mapping[str, str]) -> None:
        """Train to the recipe's end, writing the training state to `state` after every pass.

        `sources` names what else the result depends on (data, encoder weights): a resumed run's must be the same.
        Raises `UserError` if the loss or the held-out likelihood stops being finite.
        """
        recipe = self.recipe
        batches_a_pass = -(-len(self.images) // recipe.batch)
        with tqdm(
            total=recipe.epochs * len(self.images), unit="img", initial=self.epoch * len(self.images), disable=None
        ) as bar:
            while self.epoch < recipe.epochs:
                rng = np.random.default_rng([recipe.seed, self.epoch])
                losses = []
                for index, frames in enumerate(self._image_batches(rng)):
                    rate = learning_rate(recipe, self.epoch, index / batches_a_pass)
                    losses.append(self._train_images(frames, rate, rng))
                    bar.update(len(frames))
                    bar.set_postfix(loss=f"{losses[-1]:.4f}", lr=f"{rate:.1e}", refresh=False)
                self.epoch += 1
                self._end_pass(float(np.mean(losses)), held_out)
                bar.set_description(self._pass_summary())
                if bar.disable:  # no terminal: a line a pass instead of a bar
                    print(f"{self._pass_summary()}, loss {self.history[-1]['loss']:.4f}", file=sys.stderr, flush=True)
                self._save(state, sources)

    def _pass_summary(self) -> str:
        return f"pass {self.epoch}/{self.recipe.epochs}, held-out logp {self.history[-1]['held_out_logp']:.3f}"

    def _image_batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        order = rng.permutation(len(self.images)).tolist()
        for start in range(0, len(order), self.recipe.batch):
            indices = order[start : start + self.recipe.batch]
            limit = self.recipe.rotation_degrees
            angles = rng.uniform(-limit, limit, len(indices)) if limit else np.zeros(len(indices))
            images = [self.images.image(i) for i in indices]
            turned = [rotate(image, a) if a else image for image, a in zip(images, angles.tolist(), strict=True)]
            yield torch.from_numpy(np.stack(turned))

    def _train_images(self, frames: Tensor, rate: float, rng: np.random.Generator) -> float:
        """Take all optimisation steps of one image batch and return the mean loss."""
        model, recipe = self.model.train(), self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            features = model.encoder(model.normalise(frames.to(self.device)))
        losses = []
        for index, (tap, decoder) in enumerate(zip(features, model.decoders, strict=True)):
            fibers, condition = model.fibers(tap, index)
            order = torch.from_numpy(rng.permutation(len(fibers))).to(self.device)
            steps = max(1, len(order) // recipe.fiber_batch)  # an incomplete last fiber batch is left out
            for chosen in order[: steps * recipe.fiber_batch].view(steps, -1):
                logp = log_likelihood(*decoder(fibers[chosen], None if condition is None else condition[chosen]))
                loss = -F.logsigmoid(logp).mean()
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _end_pass(self, loss: float, held_out: ImageCache) -> None:
        maps = log_likelihood_batches(self.model, held_out, self.device)
        means = [torch.stack([tap.mean() for tap in batch]).mean().item() for batch in maps]
        logp = float(np.mean(means))
        if not np.isfinite([loss, logp]).all():
            found = f"loss {loss}, held-out logp {logp} in pass {self.epoch}"
            raise UserError("the loss must stay finite", found, "lower --learning-rate")
        self.history.append({"pass": self.epoch, "loss": loss, "held_out_logp": logp})

    def _identity(self, sources: Mapping[str, str]) -> dict[str, Any]:
        return {"config": asdict(self.model.config), "recipe": asdict(self.recipe), **sources}

    def _save(self, state: Path, sources: Mapping[str, str]) -> None:
        content = {
            "format": STATE_FORMAT,
            "identity": self._identity(sources),
            "epoch": self.epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with whole_file(state) as temporary:
            torch.save(content, temporary)

    def restore(self, state: Path, sources: Mapping[str, str]) -> None:
        """Go on from `state`. Raises `UserError` if it is missing or another run's (config, recipe or sources)."""
        if not state.is_file():
            raise UserError(f"--resume needs an interrupted run's state at {state}", "no such file", "drop --resume")
        content = read_tensors(state, STATE_FORMAT)
        wanted = self._identity(sources)
        changed = [key for key in wanted if content["identity"].get(key) != wanted[key]]
        if changed:
            raise UserError(f"{state} must come from the same run", f"another {', '.join(changed)}", "drop --resume")
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.epoch, self.history = content["epoch"], content["history"]
