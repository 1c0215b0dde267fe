"""What a user must know of a finished training, in a few short lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.images.folders import describe_ignored

ROUNDING = 1e-3  # nats per dimension: a flow that stays the normal distribution it began as is not below it


@dataclass(frozen=True)
class Standing:
    """How a training ended: of each tap the best pass (0: its start), the flow's mean log-likelihood of held-out
    images and that of a normal distribution of the same features (nats per dimension); and how often it was mended.
    """

    taps: tuple[str, ...]
    best_passes: Sequence[int]
    flow: Sequence[float]
    gaussian: Sequence[float]
    passes: int
    mended: int

    @property
    def lead(self) -> float:
        """The flow's lead over the normal distribution, mean over taps."""
        return (sum(self.flow) - sum(self.gaussian)) / len(self.flow)

    @property
    def poor(self) -> bool:
        """Whether the simplest model of these features is better."""
        return is_poor(self.lead)

    def lines(self) -> list[str]:
        """Return the best passes, and where the flow stands against the normal distribution."""
        best = ", ".join(f"{tap} {number}" for tap, number in zip(self.taps, self.best_passes, strict=True))
        mended = f"; {self.mended} passes went wrong and were taken back" if self.mended else ""
        mean = [sum(values) / len(values) for values in (self.flow, self.gaussian)]
        behind = [
            f"{tap} {flow:.2f} < {plain:.2f}"
            for tap, flow, plain in zip(self.taps, self.flow, self.gaussian, strict=True)
            if not flow > plain
        ]
        lost = f"; loses at {', '.join(behind)}" if behind else ""
        return [
            f"best pass of {self.passes}: {best}{mended}",
            f"held-out likelihood {mean[0]:.2f} nats a dimension, a normal distribution's {mean[1]:.2f}{lost}",
        ]


def describe_images(train: Sequence[Path], trained: int, selected: int, threshold: int) -> str:
    """Return in words what became of the good images `train`, and what lies beside them and was not used."""
    ignored = describe_ignored(*dict.fromkeys(path.parent for path in train))
    apart = f"{threshold} chose the threshold" if threshold else "the same ones chose the threshold"
    skipped = f"; skipped: {ignored}" if ignored else "; none skipped"
    return f"{len(train)} good images: {trained} trained, {selected} chose the pass, {apart}{skipped}"


def is_poor(lead: float) -> bool:
    """Return whether a flow that leads the normal distribution by `lead` nats per dimension is worse than it."""
    return not lead > -ROUNDING


def poor_line(lead: float) -> str:
    """Return what to say of a training that ended below the normal distribution."""
    return (
        f"this detector is not to be trusted: {-lead:.2f} nats a dimension below a normal distribution of the same "
        "features; more --meta-epochs, --schedule fast, or more images (--accept-poor takes it as it is)"
    )
