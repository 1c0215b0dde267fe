"""The numbers of the training recipe, in one place, and the learning rate that follows from them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The paper's recipe (section 5, and its reference implementation), the defaults being its own.

    A meta-epoch is `sub_epochs` passes over the images at one learning rate; `batch` counts images,
    `fiber_batch` the positions of one optimisation step.
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
    held_out: float = 0.1  # of the good images; ours, the paper holds none out
    false_alarm_rate: float = 0.01  # of the threshold chosen from good images; ours
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Passes over the training images in all."""
        return self.meta_epochs * self.sub_epochs

    @property
    def warm_up_epochs(self) -> int:
        """Passes over which the rate rises; never more than a quarter of a short schedule."""
        return min(self.warm_up_meta_epochs * self.sub_epochs, self.epochs // 4)


def learning_rate(recipe: Recipe, epoch: int, progress: float) -> float:
    """Return the rate at pass `epoch` (0-based), `progress` in [0, 1) of the way through it.

    The cosine steps once a meta-epoch, the warm-up rises linearly with every step towards the cosine's
    value at the warm-up's end.
    """

    def cosine(meta_epoch: int) -> float:
        final = recipe.learning_rate * recipe.final_factor
        wave = (1 + math.cos(math.pi * meta_epoch / recipe.meta_epochs)) / 2
        return final + (recipe.learning_rate - final) * wave

    if epoch >= recipe.warm_up_epochs:
        return cosine(epoch // recipe.sub_epochs)
    start = recipe.learning_rate * recipe.warm_up_factor
    end = cosine(recipe.warm_up_epochs // recipe.sub_epochs)
    return start + (end - start) * (epoch + progress) / recipe.warm_up_epochs
