"""torchvision's networks cut at their last tap.

Taps follow the paper's reference implementation: the residual networks give the outputs of their
stages, MobileNetV3 the projection convolution of a block *before* its batch norm and residual add,
EfficientNet that of a stage's last block *after* its batch norm and before the residual add.

Two things of the reference are not in torchvision's networks as they come. Its residual networks pad every
convolution by reflection, not with zeros, at the same weights: the `_reflect` rows. Its EfficientNet-B5 is timm's
port from TensorFlow, whose blocks[2], [4] and [5] are torchvision's features[3], [5] and [6] here; the weights
and the asymmetric padding of that port are not.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torchvision
from torch import Tensor, nn

from export.model.encoders.spec import REFLECT, EncoderSpec, Tap

WEIGHTS = "IMAGENET1K_V1"  # the paper's, of every encoder but EfficientNet (timm's there)


class ResNetEncoder(nn.Module):
    """Stem and stages of a torchvision residual network up to the last of `taps`."""

    def __init__(self, network: nn.Module, taps: tuple[str, ...]) -> None:
        super().__init__()
        self.taps = taps
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, network.get_submodule(name))
            if name == max(taps):
                break

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to one (B, D, H/stride, W/stride) per tap, in the order of `taps`."""
        outputs: dict[str, Tensor] = {}
        x = images
        for name, module in self.named_children():
            x = module(x)
            outputs[name] = x
        return [outputs[tap] for tap in self.taps]


class InvertedResidualEncoder(nn.Module):
    """The `features` of torchvision's MobileNetV3 or EfficientNet up to the last of `taps`.

    A tap is in the projection of an inverted residual block (MobileNetV3: a feature is one block;
    EfficientNet: the last block of a feature's stage).
    """

    def __init__(self, network: nn.Module, taps: tuple[str, ...]) -> None:
        super().__init__()
        self.taps = taps
        self.tapped = {int(tap.removeprefix("features")): tap for tap in taps}
        features = network.get_submodule("features")
        self.features = nn.Sequential(*list(features.children())[: max(self.tapped) + 1])
        self.after_norm = isinstance(network, torchvision.models.EfficientNet)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to one (B, D, H/stride, W/stride) per tap, in the order of `taps`."""
        outputs: dict[str, Tensor] = {}
        x = images
        for index, feature in enumerate(self.features):
            tap = self.tapped.get(index)
            if tap is None:
                x = feature(x)
                continue
            *earlier, block = feature if isinstance(feature, nn.Sequential) else [feature]
            for whole in earlier:
                x = whole(x)
            projected, batch_norm = self._project(block, x)
            is_last = index == max(self.tapped)
            if self.after_norm or not is_last:
                y = batch_norm(projected)
            outputs[tap] = y if self.after_norm else projected
            if is_last:
                break
            x = x + y if block.use_res_connect else y
        return [outputs[tap] for tap in self.taps]

    @staticmethod
    def _project(block: nn.Module, x: Tensor) -> tuple[Tensor, nn.Module]:
        """Return a block's projection of `x` and the batch norm that comes next."""
        *stages, (projection, batch_norm) = block.block  # type: ignore[misc]
        for stage in stages:
            x = stage(x)
        return projection(x), batch_norm


def _resnet(build: Callable[..., nn.Module], expansion: int) -> EncoderSpec:
    taps = {f"layer{i}": Tap(64 * expansion << (i - 1), 2 << i) for i in range(1, 5)}
    return EncoderSpec(build, ResNetEncoder, WEIGHTS, taps, ("layer2", "layer3", "layer4"))


def _with_reflection(spec: EncoderSpec) -> EncoderSpec:
    def build(**options: Any) -> nn.Module:
        network = spec.build(**options)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and any(module.padding):
                module.padding_mode = "reflect"
        return network

    return replace(spec, build=build)


def _inverted_residuals(build: Callable[..., nn.Module], *taps: tuple[int, int, int]) -> EncoderSpec:
    """Describe a network of `features`, tapped at (index, channels, stride)."""
    named = {f"features{index}": Tap(channels, stride) for index, channels, stride in taps}
    return EncoderSpec(build, InvertedResidualEncoder, WEIGHTS, named, tuple(named))


_RESNETS = {
    "resnet18": _resnet(torchvision.models.resnet18, expansion=1),
    "resnet34": _resnet(torchvision.models.resnet34, expansion=1),
    "resnet50": _resnet(torchvision.models.resnet50, expansion=4),
    "resnext50_32x4d": _resnet(torchvision.models.resnext50_32x4d, expansion=4),
    "wide_resnet50_2": _resnet(torchvision.models.wide_resnet50_2, expansion=4),
}

TORCHVISION_ENCODERS: dict[str, EncoderSpec] = {
    **_RESNETS,
    **{name + REFLECT: _with_reflection(spec) for name, spec in _RESNETS.items()},
    "mobilenet_v3_small": _inverted_residuals(
        torchvision.models.mobilenet_v3_small, (3, 24, 8), (8, 48, 16), (11, 96, 32)
    ),
    "mobilenet_v3_large": _inverted_residuals(
        torchvision.models.mobilenet_v3_large, (6, 40, 8), (12, 112, 16), (15, 160, 32)
    ),
    "efficientnet_b5": _inverted_residuals(torchvision.models.efficientnet_b5, (3, 64, 8), (5, 176, 16), (6, 304, 32)),
}
