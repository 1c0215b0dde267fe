"""What the baselines share: frames cropped and normalised, maps brought to pixels, statistics kept in one file."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, normalize

from export.model.cflow import ModelConfig
from export.model.encoder import ENCODERS, build_encoder, calibrate_batch_norm, load_encoder_weights
from export.model.tensor_files import save_torch_file

Size = tuple[int, int]  # (height, width) in pixels
Features = Callable[[Tensor], list[Tensor]]  # normalised images (B, 3, h, w) to one (B, D, h/stride, w/stride) per tap
SIGMA = 4.0  # pixels, of the Gaussian that ends both papers' maps
SEED = 0
CALIBRATION_FRAMES = 4  # enough for activations of ordinary size, which is all that speed asks of random weights


@dataclass(frozen=True)
class BaselineConfig(ABC):
    """What a baseline's shapes follow from: the encoder's name and the frames' (height, width) in pixels."""

    TAPS: ClassVar[tuple[str, ...]]  # of the encoder, from fine to coarse
    encoder: str
    size: Size

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of statistics, all float32."""

    @property
    @abstractmethod
    def flops(self) -> int:
        """Operations of one frame's products after the encoder, a multiply-add as 2; the upsampling has none."""

    @property
    def crop(self) -> Size:
        """The (height, width) that the encoder sees: 7/8 of each side, the papers' 224 of 256."""
        return self.size[0] * 7 // 8, self.size[1] * 7 // 8

    @property
    def tap_sizes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of each tap on the crop."""
        return ModelConfig(self.encoder, self.TAPS, self.crop).tap_sizes

    @property
    def filter_flops(self) -> int:
        """Operations of the Gaussian on one map: a product for each axis."""
        height, width = self.crop
        return 2 * height * width * (height + width)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the statistics, without the encoder; nothing is allocated to tell."""
        return 4 * sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def bytes_read(self) -> int:
        """The bytes of the statistics that one frame is held against."""
        return self.stored_bytes


Config = TypeVar("Config", bound=BaselineConfig)
Made = TypeVar("Made", bound="Baseline[Any]")


class Baseline(nn.Module, ABC, Generic[Config]):
    """A method that holds the encoder's features against statistics of good ones, buffers as in `config.shapes`.

    `features` computes the taps of normalised images. It is the encoder, and any other callable may take its place:
    the same encoder in another engine.
    """

    CONFIG: type[BaselineConfig]
    features: Features
    rows: Tensor
    columns: Tensor

    def __init__(self, config: Config, encoder: nn.Module, statistics: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.features = encoder.__call__  # not the module itself: torch would let no plain function replace it
        rows, columns = map(gaussian_matrix, config.crop)
        for name, values in {"rows": rows, "columns": columns, **statistics}.items():
            self.register_buffer(name, values, persistent=False)

    @abstractmethod
    def judge(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the taps of B crops to their maps (B, h, w) and image scores (B,)."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, H, W, 3) uint8 RGB to anomaly_map (B, H, W) and image_score (B,), both float32.

        Both papers look at the central 224 of 256 pixels: outside the crop the map is 0.
        """
        maps, scores = self.judge(self.features(self.images(frames)))
        return center_crop(maps, list(self.config.size)), scores  # to a larger size: it pads with 0

    def images(self, frames: Tensor) -> Tensor:
        """Map uint8 RGB frames (B, H, W, 3) to normalised images (B, 3, h, w) of the crop."""
        images = center_crop(frames.permute(0, 3, 1, 2), list(self.config.crop))
        spec = ENCODERS[self.config.encoder]
        normal: Tensor = normalize(images.to(self.rows.dtype) / 255, list(spec.mean), list(spec.std))
        return normal

    def to_pixels(self, grids: list[Tensor]) -> Tensor:
        """Upsample one (B, h, w) per grid to the crop, average them and filter the result, (B, H, W).

        Bilinear with pixels as areas (align_corners=False); then the Gaussian, as one product per axis.
        """
        fine = [F.interpolate(grid.unsqueeze(1), self.config.crop, mode="bilinear").squeeze(1) for grid in grids]
        return self.rows @ torch.stack(fine).mean(dim=0) @ self.columns.T

    @staticmethod
    @abstractmethod
    def make_possible(statistics: Mapping[str, Tensor]) -> None:
        """Turn random numbers in [0, 1) into statistics that could be of images, in place."""

    @classmethod
    def random(cls: type[Made], encoder_name: str, size: Size) -> Made:
        """Return the method with seeded random weights and statistics, which take the time that fitted ones take."""
        config = cls.CONFIG(encoder_name, size)
        encoder = build_encoder(encoder_name, config.TAPS)
        load_encoder_weights(encoder, encoder_name, "random", SEED)
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn((CALIBRATION_FRAMES, 3, *config.crop), generator=generator)
        calibrate_batch_norm(encoder, iter([noise]))
        statistics = {name: torch.rand(shape, generator=generator) for name, shape in config.shapes.items()}
        cls.make_possible(statistics)
        return cls(config, encoder, statistics).eval()

    def save(self, path: Path) -> None:
        """Write the configuration, the statistics and the encoder's weights to `path`, whole or not at all."""
        statistics = {name: self.get_buffer(name) for name in self.config.shapes}
        content = {"config": asdict(self.config), "statistics": statistics, "encoder": self.encoder.state_dict()}
        save_torch_file(path, content)

    @classmethod
    def load(cls: type[Made], path: Path) -> Made:
        """Rebuild what `save` wrote. The file is mapped into memory: gigabytes come in as frames need them."""
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        config = cls.CONFIG(**content["config"])
        with torch.device("meta"):  # weights are not drawn only to be replaced
            encoder = build_encoder(config.encoder, config.TAPS)
        encoder.load_state_dict(content["encoder"], assign=True)
        return cls(config, encoder, content["statistics"]).eval()


def gaussian_matrix(side: int) -> Tensor:
    """Return the (side, side) matrix that filters one axis as `scipy.ndimage.gaussian_filter` does, float32."""
    return torch.from_numpy(gaussian_filter1d(np.eye(side), SIGMA, axis=0)).float()
