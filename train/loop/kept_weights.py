"""One tap's best weights so far, and the way back to them from a pass that went wrong.

Decoders know nothing of each other, so that each tap has a best pass of its own, and one that diverges does not take
the others back with it.

A pass went wrong where a held-out image has no finite likelihood, or where half of the held-out images lost more than
`CLEAR_FALL` since the best pass. The median of the changes decides and not their mean: a single odd image among the
held-out ones can lose any amount in a healthy run. Where we have looked, healthy passes lost at most 0.01, and
those that diverged 4 nats to thousands (`python -m train.benchmark robust`).

The best pass has the highest mean, in which no image counts for less than `MOST_COUNTED` below the middle one: an odd
image, which is as unlikely in every pass, chooses nothing, and one that a pass lost counts against it.

A pass can also go astray and half come back before it ends, so that the held-out images show little of it. The images
that it trained on do: it went wrong, too, where it is not the best and its mean training loss lies more than
`CLEAR_RISE` above that of the best pass, and that of the best weights' likelihood. Healthy passes, the first one too,
lay below the latter; passes that came back had 12 to 17. Where images are varied, training loss is higher in every
pass, the best one too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from runtime.common.errors import UserError
from train.loop.tap_training import TapTraining

CLEAR_FALL = 0.3  # nats per dimension
MOST_COUNTED = 3.0  # nats per dimension below the middle one of the held-out images
CLEAR_RISE = 0.3  # of the training loss
LOWER = 1 / 3  # of the rate, every time that a pass went wrong
WARM_UP_STEPS = 50  # Adam's first steps move every weight by the whole rate, whatever the gradient


class KeptWeights:
    """Keeps the best of `tap`'s weights.

    `rate_share` is what of the schedule's rate the tap is trusted with, `best_pass` is 0 for the start's weights.
    """

    def __init__(self, tap: TapTraining) -> None:
        self.tap = tap
        self.weights = tap.flow.parameters.clone()
        self.logps: Tensor | None = None  # (n,) of the held-out images
        self.loss = 0.0  # of the best pass
        self.best_pass = 0
        self.rate_share = 1.0

    @property
    def share(self) -> float:
        """What of the schedule's rate the next steps are taken at: less while the optimiser knows few gradients."""
        return self.rate_share * min(1.0, (self.tap.steps + 1) / WARM_UP_STEPS)

    @property
    def logp(self) -> float:
        """The best weights' mean log-likelihood of held-out images, in nats per dimension."""
        return -torch.inf if self.logps is None else float(self.logps.mean())

    def begin(self, logps: Tensor) -> None:
        """Take the weights that training begins with for the best, where their likelihoods `logps` (n,) are finite."""
        if bool(torch.isfinite(logps).all()):
            self.judge(logps, 0)

    def judge(self, logps: Tensor, number: int, loss: float = 0.0) -> bool:
        """Take the weights after pass `number` for the best, or go back to those; return whether it went back.

        `logps` (n,) are the log-likelihoods of the held-out images, in nats per dimension, `loss` the pass's mean
        training loss. Going back, the optimiser begins anew, because its averages are those of the way that led
        astray, at `LOWER` of the rate.
        """
        if self._went_wrong(logps) or self._strayed(logps, loss):
            self.tap.flow.parameters.copy_(self.weights)
            self.tap.begin_anew()
            self.rate_share *= LOWER
            return True
        if self._better(logps):
            self.weights, self.logps, self.best_pass = self.tap.flow.parameters.clone(), logps.clone(), number
            self.loss = loss
        return False

    def _better(self, logps: Tensor) -> bool:
        return self.logps is None or self._bounded_mean(logps) > self._bounded_mean(self.logps)

    def _bounded_mean(self, logps: Tensor) -> float:
        assert self.logps is not None
        return float(logps.clamp_min(float(self.logps.median()) - MOST_COUNTED).mean())

    def _went_wrong(self, logps: Tensor) -> bool:
        if not bool(torch.isfinite(logps).all()):
            return True
        return self.logps is not None and float((logps - self.logps).quantile(0.5)) < -CLEAR_FALL

    def _strayed(self, logps: Tensor, loss: float) -> bool:
        if self._better(logps):
            return False
        assert self.logps is not None
        usual = max(self.loss, float(softplus(torch.tensor(-self._bounded_mean(self.logps)))))
        return not loss <= usual + CLEAR_RISE  # also for NaN

    def take_best(self) -> None:
        """Give the tap its best weights."""
        self.tap.flow.parameters.copy_(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from."""
        kept = {
            "weights": self.weights,
            "best_pass": self.best_pass,
            "loss": self.loss,
            "rate_share": self.rate_share,
            "steps": self.tap.steps,
        }
        return kept if self.logps is None else {**kept, "logps": self.logps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.weights = state["weights"].to(self.weights.device)
        self.logps, self.loss = state.get("logps"), state.get("loss", 0.0)
        self.best_pass, self.rate_share, self.tap.steps = state["best_pass"], state["rate_share"], state["steps"]


def check_learnt(kept: Sequence[KeptWeights], passes: int) -> None:
    """Raise `UserError` where every pass led every tap astray: then there is nothing to keep."""
    if any(each.best_pass > 0 or each.rate_share == 1 for each in kept):
        return
    expected = "training must find weights that held-out images like better than those it starts with"
    raise UserError(expected, f"{passes} passes that all went wrong", "lower --learning-rate")
