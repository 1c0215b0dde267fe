"""ImageNet encoders cut at their last tap; what is past it is neither built, stored nor computed.

Taps follow the paper's reference implementation: the residual networks give the outputs of their
stages, MobileNetV3 the projection convolution of a block *before* its batch norm and residual add,
EfficientNet that of a stage's last block *after* its batch norm and before the residual add.

Two things of the reference are not in torchvision's networks as they come. Its residual networks pad every
convolution by reflection, not with zeros, at the same weights: the `_reflect` rows. Its EfficientNet-B5 is timm's
port from TensorFlow, whose blocks[2], [4] and [5] are torchvision's features[3], [5] and [6] here; the weights
and the asymmetric padding of that port are not.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from export.model.tensor_files import read_torch_file, unwrapped
from runtime.common.errors import UserError
from runtime.common.files import sha256_of


@dataclass(frozen=True)
class Tap:
    """A place where features leave the encoder: `channels` wide, at 1/`stride` of the input size."""

    channels: int
    stride: int


@dataclass(frozen=True)
class EncoderSpec:
    """How to build one encoder; `build` takes torchvision's `weights` argument (an enum member or None)."""

    build: Callable[..., nn.Module]
    weights: str  # the torchvision weights that the paper's figures were made with
    taps: Mapping[str, Tap]
    default_taps: tuple[str, ...]


WEIGHTS = "IMAGENET1K_V1"  # the paper's, of every encoder but EfficientNet (timm's there)
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights of a whole run
REFLECT = "_reflect"  # a residual network's name with this suffix pads by reflection


def _resnet(build: Callable[..., nn.Module], expansion: int) -> EncoderSpec:
    taps = {f"layer{i}": Tap(64 * expansion << (i - 1), 2 << i) for i in range(1, 5)}
    return EncoderSpec(build, WEIGHTS, taps, ("layer2", "layer3", "layer4"))


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
    return EncoderSpec(build, WEIGHTS, named, tuple(named))


_RESNETS = {
    "resnet18": _resnet(torchvision.models.resnet18, expansion=1),
    "resnet34": _resnet(torchvision.models.resnet34, expansion=1),
    "resnet50": _resnet(torchvision.models.resnet50, expansion=4),
    "resnext50_32x4d": _resnet(torchvision.models.resnext50_32x4d, expansion=4),
    "wide_resnet50_2": _resnet(torchvision.models.wide_resnet50_2, expansion=4),
}

ENCODERS: dict[str, EncoderSpec] = {
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


def check_taps(name: str, taps: tuple[str, ...]) -> tuple[str, ...]:
    """Return `taps` from fine to coarse, the encoder's default if empty; `UserError` for a tap it has not."""
    if name not in ENCODERS:
        raise UserError(f"the encoder must be one of {', '.join(ENCODERS)}", repr(name))
    spec = ENCODERS[name]
    unknown = [tap for tap in taps if tap not in spec.taps]
    if unknown:
        raise UserError(f"taps of {name} must be among {', '.join(spec.taps)}", ", ".join(unknown))
    return tuple(tap for tap in spec.taps if tap in (taps or spec.default_taps))


def check_size(name: str, taps: tuple[str, ...], size: Sequence[int]) -> None:
    """Raise `UserError` where images of `size` (height, width) leave a single row or column to pad by reflection."""
    coarsest = max(taps, key=lambda tap: ENCODERS[name].taps[tap].stride)
    stride = ENCODERS[name].taps[coarsest].stride
    if name.endswith(REFLECT) and min(size) <= stride:
        raise UserError(
            f"{name} pads by reflection and needs sides above {stride} pixels to tap {coarsest}",
            "x".join(map(str, size)),
            "take a larger --size or finer --taps",
        )


def build_encoder(name: str, taps: tuple[str, ...]) -> nn.Module:
    """Build the frozen encoder, cut after its last tap, with torchvision's own random initialisation.

    It raises `UserError` for images that `check_size` refuses.
    """
    network = ENCODERS[name].build(weights=None)
    family = InvertedResidualEncoder if hasattr(network, "features") else ResNetEncoder
    encoder = family(network, taps)
    encoder.register_forward_pre_hook(lambda _, inputs: check_size(name, taps, inputs[0].shape[2:]))
    return encoder.eval().requires_grad_(False)


def load_encoder_weights(encoder: nn.Module, name: str, source: str, seed: int = 0) -> str:
    """Fill `encoder` from `source`: "imagenet", "random" (seeded), or a state-dict file; return what was loaded.

    Random weights still want `calibrate_batch_norm`. Raises `UserError` where a download is impossible
    or a file is not this encoder's.
    """
    if source == "random":
        _randomise(encoder, seed)
        return f"random, seed {seed}"
    if source == "imagenet":
        weights = ENCODERS[name].weights
        load_encoder_state(encoder, _download(name, weights), f"torchvision {weights}")
        return f"torchvision {weights}"
    path = Path(source)
    load_encoder_state(encoder, _read_state(path), path.name)
    return f"{path.name} sha256 {sha256_of(path)[:12]}"


def _randomise(encoder: nn.Module, seed: int) -> None:
    """Draw every convolution's kernels under a binomial window, normalised per output channel.

    White-noise kernels answer to pixel noise and to the exact place of every edge; low-pass ones give
    features that are stable where good images vary, and are of real use where no trained weights can be had.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            shape = module.weight.shape
            common = torch.randn(*shape[:2], 1, 1, generator=generator)
            weight = (common + 0.5 * torch.randn(*shape, generator=generator)) * _binomial_window(shape[2])
            module.weight.data = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]


def _binomial_window(side: int) -> Tensor:
    row = torch.tensor([math.comb(side - 1, k) for k in range(side)], dtype=torch.float32)
    return row[:, None] * row


def _download(name: str, weights: str) -> Mapping[str, Tensor]:
    try:
        member = torchvision.models.get_model_weights(name.removesuffix(REFLECT))[weights]
        return member.get_state_dict(progress=True, check_hash=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(
            f"torchvision's ImageNet weights of {name} could not be downloaded",
            str(error),
            "give --weights FILE (a state dict saved elsewhere) or --weights random (for trying things out)",
        ) from None


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        state = read_torch_file(path, "a state dict saved by torch.save")
    except FileNotFoundError:
        raise UserError("--weights must be imagenet, random or a file", f"no file {path}") from None
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise UserError(f"{path} must be a state dict saved by torch.save", type(state).__name__)
    tensors = unwrapped({str(key): value for key, value in state.items() if isinstance(value, Tensor)})
    if not tensors:
        found = f"one of {', '.join(map(str, list(state)[:5])) or 'nothing'}"
        raise UserError(f"{path} must be a state dict of tensors, plain or under {' or '.join(NESTED)}", found)
    return tensors


def load_encoder_state(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fill `encoder` from `state`, which may go on past its last tap; `UserError` where a weight lacks or differs."""
    wanted = encoder.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{origin} must hold every weight up to the last tap", f"no {missing[0]} and {len(missing)} in all"
        )
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if wrong:
        key = wrong[0]
        raise UserError(f"{origin}: {key} must be {tuple(wanted[key].shape)}", f"{tuple(state[key].shape)}")
    broken = [key for key in wanted if key in state and not state[key].isfinite().all()]
    if broken:
        found = f"NaN or infinity in {broken[0]}, {len(broken)} weights in all"
        raise UserError(f"{origin} must hold finite weights", found, "save them again, or take --weights imagenet")
    encoder.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def calibrate_batch_norm(encoder: nn.Module, batches: Iterator[Tensor]) -> None:
    """Set the batch norms' running statistics from `batches` of (B, 3, H, W).

    Random convolutions without it let activations grow or vanish with depth; with it each channel has
    mean 0 and variance 1 on good images, and random features are usable. Raises `UserError` for a batch that
    holds a single position of some layer: one value has no variance.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
        norm.train()
    try:
        with torch.no_grad():
            for images in batches:
                encoder(images)
    except ValueError as error:  # torch's batch norm on a single value per channel
        raise UserError("random weights need more good images or a larger --size", str(error)) from None
    encoder.eval()
