"""The numbers of the training recipe, in one place, and the learning rate that follows from them."""

import math
from dataclasses import dataclass

from runtime.common.errors import UserError

VARIATIONS = ("rotation_degrees", "light", "blur", "shift")  # of the training images
HISTORY = (
    *VARIATIONS,
    "feature_noise",
    "held_out",
    "false_alarm_rate",
)  # what a checkpoint's history keeps of a recipe
LARGEST_MOVE = 64  # pixels of blur or shift: past it an image is no longer the part's
AUTO_PRECISION = "auto"
MATMUL_PRECISIONS = (AUTO_PRECISION, "highest", "high", "medium")


@dataclass(frozen=True)
class Recipe:
    """The paper's recipe (section 5, and its reference implementation), the defaults being its own.

    A meta-epoch is `sub_epochs` passes over the images at one learning rate; `batch` counts images,
    `fiber_batch` the positions of one optimisation step. Raises `UserError` for a value that no training can have.
    """

    learning_rate: float = 2e-4  # Adam
    final_factor: float = 1e-3  # cosine from learning_rate to 2e-7
    warm_up_factor: float = 0.1  # linear from 2e-5
    warm_up_meta_epochs: int = 2
    meta_epochs: int = 25
    sub_epochs: int = 8
    batch: int = 32
    fiber_batch: int = 256
    rotation_degrees: float = 5.0
    light: float = 0.0  # gain 1 ± light, and a quarter of it as offset; ours, as the next two
    blur: float = 0.0  # largest deviation, pixels of the input
    shift: float = 0.0  # pixels of the input, either way
    held_out: float = 0.1  # of the good images; ours, the paper holds none out
    false_alarm_rate: float = 0.01  # of the threshold chosen from good images; ours
    seed: int = 0
    smooth_cosine: bool = False  # the paper's cosine steps once a meta-epoch; ours can with every image batch
    standardised_start: bool = False  # data-dependent start of the global affines; ours
    positions: int = 0  # of an image and tap in a pass, drawn anew each time; 0: all. Ours: neighbours are much alike
    feature_noise: float = 0.0  # added to features in training, of a channel's deviation (`noise_of`); ours
    matmul_precision: str = "highest"  # "high" is TF32 on a GPU, "medium" bfloat16 products; ours

    def __post_init__(self) -> None:
        for name in ("meta_epochs", "sub_epochs", "batch", "fiber_batch"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} must be at least 1", getattr(self, name))
        _require(self.positions >= 0, "--positions must be at least 0 (0: all)", self.positions)
        rate, angle, held_out = self.learning_rate, self.rotation_degrees, self.held_out
        _require(0 < rate < math.inf, "--learning-rate must be above 0", rate)
        _require(0 <= angle <= 180, "--rotation must be 0 to 180 degrees", angle)
        _require(0 <= self.light < 1, "--light must be 0 or more and below 1", self.light)
        _require(0 <= self.feature_noise < math.inf, "--feature-noise must be 0 or more", self.feature_noise)
        for name in ("blur", "shift"):
            value = getattr(self, name)
            _require(0 <= value <= LARGEST_MOVE, f"--{name} must be 0 to {LARGEST_MOVE} pixels", value)
        _require(0 < held_out < 1, "--held-out must lie between 0 and 1", held_out)
        _require(0 < self.false_alarm_rate < 1, "--false-alarm-rate must lie between 0 and 1", self.false_alarm_rate)
        precision = self.matmul_precision
        _require(precision in MATMUL_PRECISIONS, f"--precision must be {' or '.join(MATMUL_PRECISIONS)}", precision)
        _require(0 <= self.seed < 2**63, "--seed must be 0 or more and below 2^63", self.seed)

    @property
    def varies_images(self) -> bool:
        """Whether an image is another one in every pass."""
        return any(getattr(self, name) > 0 for name in VARIATIONS)

    @property
    def epochs(self) -> int:
        """Passes over the training images in all."""
        return self.meta_epochs * self.sub_epochs

    def fibers_of(self, images: int) -> int | None:
        """Return how many fibers of a tap are taken of an image batch in one pass; None for all."""
        return self.positions * images or None

    @property
    def warm_up_epochs(self) -> float:
        """Passes over which the rate rises; never more than a quarter of a short schedule."""
        quarter = self.epochs / 4 if self.smooth_cosine else self.epochs // 4
        return min(self.warm_up_meta_epochs * self.sub_epochs, quarter)


def _require(holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise UserError(expected, str(found))


def learning_rate(recipe: Recipe, epoch: int, progress: float) -> float:
    """Return the rate at pass `epoch` (0-based), `progress` in [0, 1) of the way through it.

    The cosine steps once a meta-epoch (with `smooth_cosine`, with every image batch), the warm-up rises linearly
    with every image batch towards the cosine's value at the warm-up's end.
    """

    def cosine(meta_epoch: float) -> float:
        final = recipe.learning_rate * recipe.final_factor
        wave = (1 + math.cos(math.pi * meta_epoch / recipe.meta_epochs)) / 2
        return final + (recipe.learning_rate - final) * wave

    def meta_epoch(passes: float) -> float:
        return passes / recipe.sub_epochs if recipe.smooth_cosine else passes // recipe.sub_epochs

    if epoch + progress >= recipe.warm_up_epochs:
        return cosine(meta_epoch(epoch + progress))
    start = recipe.learning_rate * recipe.warm_up_factor
    end = cosine(meta_epoch(recipe.warm_up_epochs))
    return start + (end - start) * (epoch + progress) / recipe.warm_up_epochs


PAPER = Recipe()
# Reaches the paper's held-out likelihood in a fraction of its time: `python -m train.benchmark schedules`.
FAST = Recipe(
    learning_rate=1e-2,
    warm_up_meta_epochs=1,
    meta_epochs=12,
    sub_epochs=1,
    fiber_batch=512,
    rotation_degrees=0.0,
    positions=1024,
    smooth_cosine=True,
    standardised_start=True,
    feature_noise=0.2,
    matmul_precision=AUTO_PRECISION,
)
SCHEDULES = {"paper": PAPER, "fast": FAST}
