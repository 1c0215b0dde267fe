"""The counts of triggers as they are made."""

from dataclasses import dataclass, field

import numpy as np

from runtime.common.summary import Newest
from runtime.triggers.counts import TriggerCounts


@dataclass
class Tally:
    """See `runtime.triggers.counts`; locked by its owner."""

    taken: int = 0
    answered: int = 0
    late: int = 0
    refused: int = 0
    lost: int = 0
    unnamed: int = 0
    answer_ms: Newest = field(default_factory=Newest)

    def counts(self, waiting: int, unused: int) -> TriggerCounts:
        """Return them as they are now."""
        newest = self.answer_ms.values()
        p50, p99 = (float(value) for value in np.percentile(newest, (50, 99))) if len(newest) else (None, None)
        numbers = (self.taken, self.answered, self.late, self.refused, self.lost)
        return TriggerCounts(*numbers, waiting, self.unnamed, unused, p50, p99)
