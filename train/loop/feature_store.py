"""An encoder's features of a set of images, computed once and read as often as there is something to train on them.

The encoder is frozen, so that without augmentation its features are the same in every pass and for every decoder.
An ablation keeps them in float16: a rounding of 2^-11 of each value, far below what separates two good parts. `Trainer`
keeps them as they are, where they fit.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from runtime.common.errors import UserError
from train.data.open import ImageCache
from train.loop.augmentation import AS_IT_IS, Variation

BATCH = 8  # images encoded at a time


class FiberSource(Protocol):
    """Where training reads fibers from."""

    def __len__(self) -> int:
        """Return how many images there are."""
        ...

    def fibers(self, tap: int, indices: Sequence[int], variations: Sequence[Variation]) -> Tensor:
        """Return tap `tap` of the images `indices`, each varied: (B·h·w, D) float32."""
        ...


def stored_bytes(config: ModelConfig, images: int, dtype: torch.dtype = torch.float16) -> int:
    """Return what a `FeatureStore` of so many images occupies."""
    return images * dtype.itemsize * sum(channels * height * width for channels, height, width in config.tap_sizes)


@torch.no_grad()
def _encode(model: CFlow, frames: Tensor) -> list[Tensor]:
    """Return the features of uint8 frames (B, H, W, 3) as one (B, h·w, D) per tap."""
    return [tap.flatten(2).transpose(1, 2) for tap in model.features(frames)]


class FeatureStore:
    """The taps of every image as they are, (N, h·w, D) in the CPU's memory.

    Raises `UserError` for a feature that `dtype` cannot hold.
    """

    def __init__(
        self, model: CFlow, images: ImageCache, device: torch.device, dtype: torch.dtype = torch.float16
    ) -> None:
        self.device = device
        model = model.to(device).eval()
        sizes = model.config.tap_sizes
        self.taps = [torch.empty(len(images), height * width, dims, dtype=dtype) for dims, height, width in sizes]
        bound = torch.finfo(dtype).max
        for start in range(0, len(images), BATCH):
            stop = min(start + BATCH, len(images))
            features = _encode(model, torch.from_numpy(images.batch(range(start, stop))).to(device))
            for kept, computed in zip(self.taps, features, strict=True):
                largest = float(computed.abs().max())
                if not largest <= bound:  # also for NaN
                    raise UserError(f"features must be at most {bound:.0f}", f"{largest}", "check the weights")
                kept[start:stop] = computed.to(kept)

    def __len__(self) -> int:
        return len(self.taps[0])

    def fibers(self, tap: int, indices: Sequence[int], variations: Sequence[Variation] = ()) -> Tensor:
        """Return tap `tap` of the images `indices`, (B·h·w, D) float32 on the device; they cannot be varied."""
        if any(variation != AS_IT_IS for variation in variations):
            raise ValueError("kept features are those of images as they are")
        chosen = self.taps[tap][torch.as_tensor(indices, dtype=torch.long)]
        return chosen.to(self.device).float().flatten(0, 1)


class VariedFeatures:
    """The taps of images that are varied anew each time, and so computed each time."""

    def __init__(self, model: CFlow, images: ImageCache, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.images = images
        self.device = device

    def __len__(self) -> int:
        return len(self.images)

    def fibers(self, tap: int, indices: Sequence[int], variations: Sequence[Variation]) -> Tensor:
        """Return tap `tap` of the images `indices`, each varied: (B·h·w, D) float32."""
        chosen = zip(indices, variations, strict=True)
        frames = np.stack([variation.of(self.images.image(index)) for index, variation in chosen])
        return _encode(self.model, torch.from_numpy(frames).to(self.device))[tap].flatten(0, 1)
