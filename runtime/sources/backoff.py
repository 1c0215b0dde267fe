"""How long to wait: for a silent camera, a file being written, and between attempts to reach what is gone."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

STALL_AFTER_S = 10.0  # without a frame, a camera or stream is lost
SETTLE_S = 0.5  # unchanged, a file in a watched folder is whole


@dataclass(frozen=True)
class Backoff:
    """Waits that grow from `first_s` by `factor` up to `cap_s`, each varied by ± `jitter` of itself.

    The jitter keeps many stations that lost the same switch from asking for it all at once.
    """

    first_s: float = 0.5
    factor: float = 2.0
    cap_s: float = 30.0
    jitter: float = 0.1

    def delays_s(self, uniform: Callable[[], float] = random.random) -> Iterator[float]:
        """Yield waits in seconds, without end; `uniform` draws from [0, 1)."""
        delay = self.first_s
        while True:
            yield delay * (1 + self.jitter * (2 * uniform() - 1))
            delay = min(delay * self.factor, self.cap_s)
