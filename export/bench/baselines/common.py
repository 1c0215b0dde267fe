"""What the baselines share: frames cropped and normalised, maps brought to pixels, statistics kept in one file."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.model.cflow import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from export.model.encoder import build_encoder, calibrate_batch_norm, check_taps, load_encoder_weights
from export.model.tensor_files import save_torch_file
from runtime.common.errors import UserError

Size = tuple[int, int]  # (height, width) in pixels
Features = Callable[[Tensor], list[Tensor]]  # normalised images (B, 3, h, w) to one (B, D, h/stride, w/stride) per tap
SIGMA = 4.0  # pixels, of the filter that ends both papers' maps
TRUNCATE = 4.0  # standard deviations after which the filter is cut, as scipy does
CALIBRATION_FRAMES = 4  # enough for activations of ordinary size, which is all that speed asks of random weights


@dataclass(frozen=True)
class BaselineConfig(ABC):
    """What a baseline's shapes follow from: the encoder's name and the frames' (height, width) in pixels.

    Raises `UserError` for an encoder without the baseline's taps, and for frames of no size.
    """

    encoder: str
    size: Size

    def __post_init__(self) -> None:
        check_taps(self.encoder, self.taps)
        if min(self.crop) < 1:
            raise UserError("frames need sides of at least 2 pixels", f"{self.size[0]}x{self.size[1]}")

    @property
    @abstractmethod
    def taps(self) -> tuple[str, ...]:
        """The encoder's taps, from fine to coarse."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of statistics, all float32."""

    @property
    @abstractmethod
    def flops(self) -> int:
        """Operations of one frame's products after the encoder, a multiply-add as 2."""

    @property
    def crop(self) -> Size:
        """The (height, width) that the encoder sees: 7/8 of each side, the papers' 224 of 256."""
        height, width = self.size
        return height * 7 // 8, width * 7 // 8

    @property
    def tap_sizes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of each tap on the crop."""
        return ModelConfig(self.encoder, self.taps, self.crop).tap_sizes

    @property
    def stored_bytes(self) -> int:
        """The bytes of the statistics, without the encoder; nothing is allocated to tell."""
        return 4 * sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def bytes_read(self) -> int:
        """The bytes of the statistics that one frame is held against."""
        return self.stored_bytes


Config = TypeVar("Config", bound=BaselineConfig)


class CentreCrop(nn.Module):
    """Frames to the encoder's input, and maps of the crop back to the frame."""

    scale: Tensor
    shift: Tensor

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.size = config.size
        (height, width), (self.height, self.width) = config.size, config.crop
        self.top, self.left = (height - self.height) // 2, (width - self.width) // 2
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", mean / std, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Map uint8 RGB frames (B, H, W, 3) to normalised images (B, 3, h, w); `UserError` for any others."""
        if frames.dtype != torch.uint8 or frames.ndim != 4 or tuple(frames.shape[1:]) != (*self.size, 3):
            raise UserError(
                f"frames must be uint8 of shape (B, {self.size[0]}, {self.size[1]}, 3)",
                f"{str(frames.dtype).removeprefix('torch.')} of shape {tuple(frames.shape)}",
                "resize them, or fit the baseline at their size",
            )
        images = frames[:, self.top : self.top + self.height, self.left : self.left + self.width]
        return images.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.shift

    def paste(self, maps: Tensor) -> Tensor:
        """Put maps of the crop (B, h, w) into maps of the whole frame (B, H, W), 0 around them."""
        right, bottom = self.size[1] - self.left - self.width, self.size[0] - self.top - self.height
        return F.pad(maps, (self.left, right, self.top, bottom))


class ToPixels(nn.Module):
    """The end of both methods: maps of any grid upsampled to the crop, averaged, and Gaussian-filtered."""

    rows: Tensor
    columns: Tensor

    def __init__(self, crop: Size) -> None:
        super().__init__()
        self.crop = crop
        self.register_buffer("rows", gaussian_matrix(crop[0]), persistent=False)
        self.register_buffer("columns", gaussian_matrix(crop[1]), persistent=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map one (B, h, w) per grid to (B, H, W) of the crop.

        Bilinear with pixels as areas (align_corners=False); then the filter, as one product per axis.
        """
        fine = [F.interpolate(grid.unsqueeze(1), self.crop, mode="bilinear").squeeze(1) for grid in maps]
        return self.rows @ torch.stack(fine).mean(dim=0) @ self.columns.T

    @staticmethod
    def flops(crop: Size) -> int:
        """Operations of the filter's two products on one frame."""
        height, width = crop
        return 2 * height * width * (height + width)


def gaussian_matrix(side: int, sigma: float = SIGMA) -> Tensor:
    """Return the (side, side) matrix that filters one axis with a Gaussian of `sigma` pixels.

    It is scipy.ndimage.gaussian_filter in its own defaults: cut at four sigmas, and beyond the border the image
    mirrored with its edge pixels repeated (d c b a | a b c d), which scipy calls "reflect" and numpy "symmetric".
    """
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights = weights / weights.sum()
    sources = (torch.arange(side)[:, None] + offsets) % (2 * side)  # mirrored, the image repeats every two sides
    sources = torch.minimum(sources, 2 * side - 1 - sources)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, weights.expand(side, -1)).float()


class Baseline(nn.Module, ABC, Generic[Config]):
    """A method that holds the encoder's features against statistics of good ones.

    `features` computes the taps of normalised images. It is the encoder, and any other callable may take its place:
    the same encoder in another engine. The statistics are buffers under the names of `config.shapes`.
    """

    FORMAT: str
    CONFIG: type[BaselineConfig]
    features: Features

    def __init__(self, config: Config, encoder: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.features = encoder.__call__  # not the module itself: torch would let no plain function replace it
        self.crop = CentreCrop(config)
        self.to_pixels = ToPixels(config.crop)
        for name, shape in config.shapes.items():
            if statistics[name].shape != shape or statistics[name].dtype != torch.float32:
                raise ValueError(f"{name} must be float32 {shape}, not {tuple(statistics[name].shape)}")
            self.register_buffer(name, statistics[name])

    @abstractmethod
    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w) and image scores (B,)."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, H, W, 3) uint8 RGB to anomaly_map (B, H, W) and image_score (B,), both float32.

        Both papers look at the central 224 of 256 pixels: outside the crop the map is 0. Raises `UserError`
        for frames of another size or type.
        """
        maps, scores = self.judge(self.features(self.crop(frames)))
        return self.crop.paste(maps), scores

    def flops(self, size: Size) -> int:
        """Return the operations of one frame of `size` (height, width), encoder excluded, a multiply-add as 2.

        As in `export.graph.flops` those of products: the distances and the filter, not the upsampling.
        """
        return replace(self.config, size=size).flops

    def stored_bytes(self) -> int:
        """Return the bytes of the statistics, without the encoder."""
        return self.config.stored_bytes

    def save(self, path: Path) -> None:
        """Write the configuration, the statistics and the encoder's weights to `path`, whole or not at all."""
        content = {
            "format": self.FORMAT,
            "config": asdict(self.config),
            "statistics": {name: self.get_buffer(name) for name in self.config.shapes},
            "encoder": self.encoder.state_dict(),
        }
        save_torch_file(path, content)

    @classmethod
    def load(cls: type["Self"], path: Path) -> "Self":
        """Rebuild what `save` wrote to `path`, unpickling no code.

        The file is mapped into memory, not read: gigabytes of statistics come in as frames need them. Raises
        `UserError` for any other file.
        """
        content = _read(path, cls.FORMAT)
        try:
            config = cls.CONFIG(**content["config"])
            with torch.device("meta"):  # weights are not drawn only to be replaced
                encoder = build_encoder(config.encoder, config.taps)
            encoder.load_state_dict(content["encoder"], assign=True)
            return cls(config, encoder, content["statistics"]).eval()
        # RuntimeError is load_state_dict's mismatch, AttributeError a part of another type than ours
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"{path} must hold every part of {cls.FORMAT}", found, "fit it again") from None


Self = TypeVar("Self", bound=Baseline[Any])


def _read(path: Path, format_name: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise UserError(f"a baseline must stand at {path}", "no such file", "fit one and save it") from None
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        raise UserError(
            f"{path} must be a file of format {format_name}", type(error).__name__, "fit it again"
        ) from None
    found = content.get("format", "no format") if isinstance(content, dict) else type(content).__name__
    if found != format_name:
        raise UserError(f"{path} must be a file of format {format_name}", str(found), "fit it again")
    return content  # type: ignore[no-any-return]


def tap_batches(config: BaselineConfig, encoder: nn.Module, frames: Tensor, batch: int) -> Iterator[list[Tensor]]:
    """Yield the taps of good frames (N, H, W, 3) uint8, `batch` frames at a time."""
    crop = CentreCrop(config)
    with torch.no_grad():
        for some in torch.split(frames, batch):
            yield encoder(crop(some))


def random_encoder(config: BaselineConfig, seed: int) -> nn.Module:
    """Build the encoder of `config` with seeded random weights, its batch norms set on seeded noise."""
    encoder = build_encoder(config.encoder, config.taps)
    load_encoder_weights(encoder, config.encoder, "random", seed)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (CALIBRATION_FRAMES, *config.size, 3), dtype=torch.uint8, generator=generator)
    calibrate_batch_norm(encoder, iter([CentreCrop(config)(frames)]))
    return encoder
