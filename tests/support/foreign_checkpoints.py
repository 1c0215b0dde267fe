"""Checkpoints as other implementations write them, trained a little on made-up good images, and their likelihoods.

Everything here is FrEIA's, torchvision's or written anew: nothing of ours computes what ours is compared with.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from PIL import Image
from torch import Tensor, nn

RECORDED = json.loads((Path(__file__).parent / "recorded_anomalib_checkpoint.json").read_text())
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIDE = 40  # two positions a side are left at stride 32, the fewest that can be padded by reflection


class LaterBlock(AllInOneBlock):
    """The soft clamp of FrEIA's later sources."""

    def _affine(self, x: Tensor, a: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        a = 0.1 * a
        half = x.shape[1]
        s = self.clamp * torch.tanh(a[:, :half] / self.clamp)
        return x * s.exp() + a[:, half:], s.sum(1)


class IndexedBlock(LaterBlock):
    """The hard permutation of FrEIA's later sources: indices in the place of a matrix."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        indices = self.w_perm.argmax(dim=1)
        self.w_perm = nn.Parameter(indices, requires_grad=False)
        self.w_perm_inv = nn.Parameter(indices.argsort(), requires_grad=False)

    def _permute(self, x: Tensor, rev: bool = False) -> tuple[Tensor, Tensor]:
        scale = self.global_scale_activation(self.global_scale)
        return (x * scale + self.global_offset)[:, self.w_perm], scale.log().sum()


@dataclass
class Foreign:
    """A model of another implementation: what it computes from images (B, 3, H, W) in [0, 1], and what it saves."""

    encoder: nn.Module
    taps: list[str]  # modules of `encoder`
    flows: list[SequenceINN]
    conditional: bool = True
    norm: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET

    def fibers(self, images: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in self.norm)
        seen = {}
        hooks = [
            self.encoder.get_submodule(tap).register_forward_hook(lambda _m, _i, out, tap=tap: seen.update({tap: out}))
            for tap in self.taps
        ]
        with torch.no_grad():
            self.encoder((images - mean) / std)
        for hook in hooks:
            hook.remove()
        return [lay_out(seen[tap], self.conditional) for tap in self.taps]

    def log_likelihoods(self, images: Tensor) -> list[Tensor]:
        return [density(*flow(x, c)) for flow, (x, c) in zip(self.flows, self.fibers(images), strict=True)]

    def train(self, images: Tensor, steps: int = 40) -> None:
        """Raise the likelihood of good images, so that a wrong clamp or padding shows."""
        for flow, (x, c) in zip(self.flows, self.fibers(images), strict=True):
            optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=3e-2)
            for _ in range(steps):
                optimizer.zero_grad()
                (-density(*flow(x, c)).mean()).backward()
                optimizer.step()


def lay_out(features: Tensor, conditional: bool) -> tuple[Tensor, list[Tensor]]:
    count, channels, height, width = features.shape
    x = features.permute(0, 2, 3, 1).reshape(-1, channels)
    rows, columns = (torch.from_numpy(grid) for grid in np.mgrid[:height, :width].astype(np.float64))
    code = torch.empty(height, width, 128, dtype=torch.float64)
    for j in range(32):
        frequency = math.exp(-math.log(1e4) * 2 * j / 64)
        code[..., 2 * j], code[..., 2 * j + 1] = (columns * frequency).sin(), (columns * frequency).cos()
        code[..., 64 + 2 * j], code[..., 65 + 2 * j] = (rows * frequency).sin(), (rows * frequency).cos()
    return x, [code.float().reshape(-1, 128).repeat(count, 1)] if conditional else []


def density(u: Tensor, log_det: Tensor) -> Tensor:
    channels = u.shape[1]
    return (-0.5 * channels * math.log(2 * math.pi) - 0.5 * (u * u).sum(1) + log_det) / channels


def flow(
    channels: int, *, blocks: int = 2, conditional: bool = True, soft: bool = True, block: type = AllInOneBlock
) -> SequenceINN:
    """Build a decoder as the reference does (soft) or as anomalib does (hard)."""

    def subnet(dims_in: int, dims_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(dims_in, 2 * dims_in), nn.ReLU(), nn.Linear(2 * dims_in, dims_out))

    chain = SequenceINN(channels)
    condition = {"cond": 0, "cond_shape": (128,)} if conditional else {}
    for _ in range(blocks):
        chain.append(
            block,
            **condition,
            subnet_constructor=subnet,
            affine_clamping=1.9,
            global_affine_type="SOFTPLUS",
            permute_soft=soft,
        )
    return chain


def network(build: Callable[..., nn.Module], *, reflection: bool = False) -> nn.Module:
    """Build a torchvision network with batch norms that do something, padding by reflection if asked."""
    with torch.device("meta"):  # torchvision draws every weight twice, which takes most of a test's time
        whole = build(weights=None).eval()
    whole.to_empty(device="cpu").requires_grad_(False)
    for path, module in list(whole.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, (2 / module.weight[:, 0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.zero_()
            if reflection:
                whole.set_submodule(path, reflecting(module))
        elif isinstance(module, nn.Linear):
            module.weight.zero_()
            module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):  # as built they do next to nothing
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.fill_(1)
            module.bias.zero_()
            module.num_batches_tracked.zero_()
    return whole


def reflecting(c: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of the same weights, made anew as one that pads by reflection."""
    other = nn.Conv2d(
        c.in_channels,
        c.out_channels,
        c.kernel_size,
        c.stride,
        c.padding,
        groups=c.groups,
        bias=False,
        padding_mode="reflect",
    )
    other.load_state_dict(c.state_dict())
    return other.requires_grad_(False)


def resnet(*, reflection: bool = True, **options: object) -> Foreign:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - FrEIA draws its permutations from numpy's global generator
    encoder = network(torchvision.models.resnet18, reflection=reflection)
    return Foreign(encoder, ["layer1", "layer2"], [flow(64, blocks=1, **options), flow(128, blocks=1, **options)])


def save_reference(model: Foreign, path: Path, unread: tuple[str, ...] = ("layer3.", "layer4.")) -> Path:
    """Write `model` as the reference implementation does: MobileNet as bare features, residual networks without fc.

    The layers `unread`, past the last tap, are left out because they are large.
    """
    encoder = {k: v for k, v in model.encoder.state_dict().items() if not k.startswith(("fc.", "classifier.", *unread))}
    if all(key.startswith("features.") for key in encoder):
        encoder = {key.removeprefix("features."): value for key, value in encoder.items()}
    decoders = [decoder.state_dict() for decoder in model.flows]
    torch.save({"encoder_state_dict": encoder, "decoder_state_dict": decoders}, path)
    return path


PERMUTATIONS = {
    "no rotation": 1.01 * torch.eye(64),
    "an index twice": torch.zeros(64, dtype=torch.int64),
    "a huge stride": torch.zeros(1).expand(10**6, 10**6),
    "indices without end": torch.zeros(1, dtype=torch.int64).expand(10**9),
}


def change_reference(file: Path, change: str) -> None:
    """Damage a checkpoint of the reference implementation in a named way."""
    content = torch.load(file, weights_only=True)
    decoders = content["decoder_state_dict"]
    first = decoders[0]
    if change == "a decoder less":
        decoders.pop()
    elif change == "a weight less":
        del first["module_list.0.subnet.2.bias"]
    elif change == "a narrower subnet":
        first["module_list.0.subnet.0.weight"] = first["module_list.0.subnet.0.weight"][:, :100]
    elif change == "a learned permutation":
        first["module_list.0.vk_householder"] = torch.zeros(2, 64)
    elif change == "a gap":
        decoders[0] = {key.replace("list.0", "list.1"): value for key, value in first.items()}
    elif change == "a cut encoder":
        content["encoder_state_dict"] = {k: v for k, v in content["encoder_state_dict"].items() if "layer2" not in k}
    elif change == "a deeper encoder":
        weight = content["encoder_state_dict"]["layer1.0.conv1.weight"]
        content["encoder_state_dict"]["layer1.2.conv1.weight"] = weight
    elif change in PERMUTATIONS:
        first["module_list.0.w_perm"] = PERMUTATIONS[change]
    elif change == "not a number":
        first["module_list.0.subnet.2.bias"][0] = math.nan
    torch.save(content, file)


def lightning_content(model: Foreign) -> dict[str, object]:
    """Return what anomalib saves: the entries, weights and shapes of a file that it wrote, with `model`'s weights."""
    weights = {f"model.encoder.feature_extractor.{key}": value for key, value in model.encoder.state_dict().items()}
    for index, decoder in enumerate(model.flows):
        weights |= {f"model.decoders.{index}.{key}": value for key, value in decoder.state_dict().items()}
    state = {key: weights.get(key, torch.zeros(shape)) for key, shape in RECORDED["state_dict"].items()}
    assert {key: list(value.shape) for key, value in state.items()} == RECORDED["state_dict"]
    entries = {key: {} for key in RECORDED["entries"]}
    recorded = {key: RECORDED[key] for key in ("hyper_parameters", "anomalib_pre_processor_config")}
    return {**entries, **recorded, "state_dict": state}


def good_images(folder: Path, count: int = 4) -> Tensor:
    """Write smooth random images and return them, (count, 3, SIDE, SIDE) in [0, 1]."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    images = []
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        image = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(folder / f"{index}.png")
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
    return torch.stack(images)


def wrap(file: Path) -> None:
    """Give the checkpoint's state dicts the names that DataParallel saves."""
    content = torch.load(file, weights_only=True)
    decoders = [{f"module.{key}": value for key, value in state.items()} for state in content["decoder_state_dict"]]
    encoder = {f"module.{key}": value for key, value in content["encoder_state_dict"].items()}
    torch.save({"encoder_state_dict": encoder, "decoder_state_dict": decoders}, file)


def halve(file: Path, model: Foreign) -> None:
    """Round the weights of `model` to float16 and write them so into its checkpoint."""
    with torch.no_grad():
        for module in (model.encoder, *model.flows):
            for value in module.state_dict(keep_vars=True).values():
                if value.is_floating_point():
                    value.copy_(value.half().float())
    content = torch.load(file, weights_only=True)
    states = [content["encoder_state_dict"], *content["decoder_state_dict"]]
    for state in states:
        state.update({key: value.half() for key, value in state.items() if value.is_floating_point()})
    torch.save(content, file)
