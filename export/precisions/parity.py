"""How far a typed graph's answers lie from the FP32 graph's, on the same images.

Without labels it is the *noise ratio* that counts: the root mean square of the score's change over good images, in
units of the standard deviation s of those images' own scores, r = rms(dS) / s. Where good and anomalous scores are
normal with that deviation and lie m apart, the AUROC is Phi(z) with z = m / (s sqrt 2), and independent noise of r s
on both makes it Phi(z / sqrt(1 + r^2)). So it costs about phi(z) z r^2 / 2, for no detector more than

    phi(1) r^2 / 2  =  0.121 r^2:    0.5 points allow r = 0.20, 0.1 points r = 0.09.

A shift that all images share ranks nothing otherwise, but moves scores against the threshold, so it counts as well.
"""

import math
from dataclasses import asdict, dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from export.images.labelled import auroc
from export.images.parity_images import Images
from export.precisions.answers import Answers
from runtime.common.errors import UserError

POINTS_PER_NOISE = 100 * math.exp(-0.5) / math.sqrt(2 * math.pi) / 2  # 12.1 points of AUROC at a ratio of 1
SMALLEST_SPREAD = 1e-6  # score units: a single image, or images that are all alike, have none of their own
PIXEL_STEP = 4  # of every fourth row and column: neighbours are interpolated from the same positions of a tap


@dataclass(frozen=True)
class AurocPair:
    """AUROC by image and by pixel, in [0, 1]; by pixel None where no ground truth marks one."""

    image: float
    pixel: float | None


_known: WeakKeyDictionary[Answers, tuple[Images, AurocPair]] = WeakKeyDictionary()  # all pixels are sorted for them


def areas(answers: Answers, images: Images) -> AurocPair | None:
    """Return the AUROCs of labelled images, None of good ones; by pixel only where no anomalous one lacks its mask."""
    if not images.labelled:
        return None
    if answers not in _known or _known[answers][0] is not images:
        _known[answers] = (images, _areas(answers, images))
    return _known[answers][1]


def _areas(answers: Answers, images: Images) -> AurocPair:
    of_pixels = None
    if not any(mask is None for mask, anomalous in zip(images.masks, images.anomalous, strict=True) if anomalous):
        blank = np.zeros(answers.maps.shape[1:], bool)
        truth = np.stack([blank if mask is None else mask for mask in images.masks])
        of_pixels = auroc(answers.maps, truth) if truth.any() and not truth.all() else None
    return AurocPair(auroc(answers.scores, images.anomalous), of_pixels)


@dataclass(frozen=True)
class Parity:
    """Differences of a typed graph from FP32 over some images, in score units; AUROCs in [0, 1] where labelled.

    `verdicts_changed` counts scores on the other side of the threshold; `image_score_shift` is the median change over
    the good images, `image_noise` and `pixel_noise` are the noise ratios over them.
    """

    frames: int
    anomaly_map_median: float
    anomaly_map_max: float
    image_score_median: float
    image_score_p95: float
    image_score_max: float
    image_score_shift: float
    verdicts_changed: int
    image_noise: float
    pixel_noise: float
    image_auroc: float | None = None
    image_auroc_fp32: float | None = None
    pixel_auroc: float | None = None
    pixel_auroc_fp32: float | None = None

    def to_json(self) -> dict[str, float]:
        """Return what is known as the sidecar holds it."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}

    @property
    def measured(self) -> bool:
        """Whether labels told what it costs; else the costs are estimates from the noise."""
        return self.image_auroc is not None

    @property
    def image_cost(self) -> float:
        """Points of image AUROC that the precision costs; below 0 is a gain."""
        return _cost(self.image_auroc_fp32, self.image_auroc, self.image_noise)

    @property
    def pixel_cost(self) -> float:
        """Points of pixel AUROC that the precision costs; below 0 is a gain."""
        return _cost(self.pixel_auroc_fp32, self.pixel_auroc, self.pixel_noise)


def _cost(before: float | None, after: float | None, noise: float) -> float:
    return POINTS_PER_NOISE * noise**2 if before is None or after is None else 100 * (before - after)


def compare_answers(reference: Answers, typed: Answers, images: Images, threshold: float) -> Parity:
    """Return the differences between two graphs' answers on the same images."""
    errors = np.abs(reference.scores - typed.scores)
    map_errors = np.abs(reference.maps - typed.maps)
    above = [answers.scores.astype(np.float64) > threshold for answers in (reference, typed)]
    good = ~images.anomalous
    of_good = [answers.scores[good].astype(np.float64) for answers in (reference, typed)]
    maps = [answers.maps[good, ::PIXEL_STEP, ::PIXEL_STEP].astype(np.float64) for answers in (reference, typed)]
    left, right = areas(reference, images), areas(typed, images)
    return Parity(
        frames=len(errors),
        anomaly_map_median=float(np.median(map_errors)),
        anomaly_map_max=float(map_errors.max()),
        image_score_median=float(np.median(errors)),
        image_score_p95=float(np.quantile(errors, 0.95)),
        image_score_max=float(errors.max()),
        image_score_shift=float(np.median(of_good[1] - of_good[0])),
        verdicts_changed=int((above[0] != above[1]).sum()),
        image_noise=_noise(*of_good),
        pixel_noise=_noise(*maps),
        image_auroc=right.image if right else None,
        image_auroc_fp32=left.image if left else None,
        pixel_auroc=right.pixel if right else None,
        pixel_auroc_fp32=left.pixel if left else None,
    )


def _noise(reference: NDArray[np.float64], typed: NDArray[np.float64]) -> float:
    """Return the rms change in units of the reference's standard deviation, 0 where nothing changed."""
    change = float(np.sqrt(np.square(typed - reference).mean()))
    return change / max(float(reference.std()), SMALLEST_SPREAD) if change else 0.0


@dataclass(frozen=True)
class Budget:
    """How many points of AUROC (percent) by image and by pixel a precision may cost."""

    image: float
    pixel: float

    def __post_init__(self) -> None:
        """Raise `UserError` for points that nothing could keep to."""
        for value in (self.image, self.pixel):
            if not 0 <= value <= 100:
                raise UserError("a budget must be 0 to 100 points of AUROC", str(value))

    def excess(self, parity: Parity) -> str:
        """Return what `parity` misses the budget by, in words; empty where it meets it."""
        costs = {"image": (parity.image_cost, self.image), "pixel": (parity.pixel_cost, self.pixel)}
        how = "" if parity.measured else "an estimated "
        over = [
            f"{how}{cost:.2f} points of {name} AUROC (budget {limit:g})"
            for name, (cost, limit) in costs.items()
            if not cost <= limit  # NaN is over it too
        ]
        return " and ".join(over)


BUDGETS = {"fp32": Budget(0.0, 0.0), "fp16": Budget(0.1, 0.1), "int8": Budget(0.5, 0.5)}
