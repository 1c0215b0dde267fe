"""What became of the triggers so far."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TriggerCounts:
    """Counts since the start; a trigger that asks several sources counts once for each, but a refused one once.

    `answered` includes the `late`, whose answer was given at the deadline; of a `lost` one no verdict ever came (no
    frame, or too late for the engine to begin). `waiting` have no answer yet. Of a camera that its own line triggers
    `unnamed` frames came without a part's id, and `unused` ids without a frame. `p50_ms` and `p99_ms` are from trigger
    to answer, of the newest; None before the first.
    """

    taken: int = 0
    answered: int = 0
    late: int = 0
    refused: int = 0
    lost: int = 0
    waiting: int = 0
    unnamed: int = 0
    unused: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every trigger that was taken had a verdict in time."""
        return not (self.late or self.lost)

    def text(self) -> str:
        """Return one line for a person."""
        line = f"{self.taken} triggers: {self.answered} answered, {self.late} late, {self.lost} lost"
        line += f", {self.refused} refused" if self.refused else ""
        line += f", {self.unnamed} without an id" if self.unnamed else ""
        line += f", {self.unused} ids unused" if self.unused else ""
        if self.p50_ms is None or self.p99_ms is None:
            return line
        return f"{line}; trigger to answer {self.p50_ms:.2f} ms (p50), {self.p99_ms:.2f} ms (p99)"
