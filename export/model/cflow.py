"""The detector: encoder, one decoder per tap, and the score that a camera can use (frozen constants)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.model.encoder import ENCODERS, build_encoder
from export.model.flow import CONDITION_DIMS, Clamp, Decoder, log_likelihood, position_code
from export.model.score import SCORES, Score, anomaly_map, image_score, likelihood_ratios
from export.model.threads import use_available_cores
from runtime.common.errors import UserError
from runtime.images.tiles import TileGrid


@dataclass(frozen=True)
class ModelConfig:
    """What rebuilds a detector's structure. `input_size` is (height, width) in pixels.

    `mean` and `std` are of RGB in [0, 1], one a channel; left out, they are those of the pixels that the encoder's
    ImageNet weights were trained on. `white` is the sample value that is white in 16-bit grey files that do not say it
    (`ReadOptions`). The features of the taps `pooled` are averaged over 3 x 3 positions before their decoder sees them;
    of those that are `halved` every second row and column is judged, a quarter of the positions. `hidden_units` are
    those of every subnet in a block that maps all channels, tap by tap; left out, `hidden_units_of`. Half of the
    channels of the taps that are `factored` leave their decoder on the way (`Decoder`). With `tiles` the network sees
    tiles of `input_size`, cut from frames that `tiles.frame` says the size of.
    Raises `UserError` for a value that no detector can have.
    """

    encoder: str
    taps: tuple[str, ...]
    input_size: tuple[int, int] = (256, 256)
    coupling_blocks: int = 8
    conditional: bool = True
    soft_permutation: bool = True
    clamp: Clamp = "tanh(a)"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    seed: int = 0
    score: Score = "deviation"
    white: int = 65535
    pooled: tuple[str, ...] = ()
    halved: tuple[str, ...] = ()
    hidden_units: tuple[int, ...] = ()
    factored: tuple[str, ...] = ()
    tiles: TileGrid | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if not getattr(self, name) and self.encoder in ENCODERS:
                object.__setattr__(self, name, getattr(ENCODERS[self.encoder], name))
        self._check_decoders()
        if self.clamp not in get_args(Clamp):
            raise UserError(f"the soft clamp must be {' or '.join(get_args(Clamp))}", repr(self.clamp))
        if not 255 <= self.white <= 65535:
            raise UserError("white (--white) must be 255 to 65535", str(self.white))
        if self.score not in SCORES:
            raise UserError(f"the score must be {' or '.join(SCORES)}", repr(self.score))
        if self.tiles is not None and self.tiles.tile != self.input_size:
            raise UserError(f"tiles must have the input size, {self.input_size}", str(self.tiles.tile))

    def _check_decoders(self) -> None:
        if self.coupling_blocks < 1:
            raise UserError("coupling blocks (--blocks) must be at least 1", str(self.coupling_blocks))
        if unknown := [tap for tap in self.pooled if tap not in self.taps]:
            raise UserError(f"pooled taps must be among {', '.join(self.taps)}", ", ".join(unknown))
        if unknown := [tap for tap in self.factored if tap not in self.taps]:
            raise UserError(f"factored taps must be among {', '.join(self.taps)}", ", ".join(unknown))
        if unknown := [tap for tap in self.halved if tap not in self.pooled]:
            raise UserError(f"halved taps must be pooled ones: {', '.join(self.pooled) or 'none'}", ", ".join(unknown))
        if self.hidden_units and len(self.hidden_units) != len(self.taps):
            raise UserError(f"hidden units must be {len(self.taps)} numbers, one a tap", str(self.hidden_units))

    @property
    def judged_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what one score is for: the frame of a tiled detector, else the input."""
        return self.input_size if self.tiles is None else self.tiles.frame

    @property
    def tap_strides(self) -> list[int]:
        """Pixels of the input from one judged position of each tap to the next."""
        return [ENCODERS[self.encoder].taps[name].stride * (2 if name in self.halved else 1) for name in self.taps]

    @property
    def tap_sizes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of what is judged of each tap; a stride-2 layer rounds up, so does this."""
        height, width = self.input_size
        channels = [ENCODERS[self.encoder].taps[name].channels for name in self.taps]
        strides = zip(channels, self.tap_strides, strict=True)
        return [(count, -(-height // stride), -(-width // stride)) for count, stride in strides]

    @property
    def one_grid(self) -> bool:
        """Whether all taps are judged on one grid."""
        return len({(height, width) for _, height, width in self.tap_sizes}) == 1

    def facts(self) -> dict[str, Any]:
        """Return the fields; those younger than the files that lack them are left out where they say nothing.

        So what a model, an engine or an interrupted training is known by stays as it was.
        """
        fields = asdict(self) | {"tiles": None if self.tiles is None else self.tiles.to_json()}
        younger = ("halved", "hidden_units", "factored", "tiles")
        return {name: value for name, value in fields.items() if value or name not in younger}


class CFlow(nn.Module):
    """The network that training fits: images in, log-likelihoods per tap out."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        use_available_cores()
        self.config = config
        self.encoder = build_encoder(config.encoder, config.taps)
        generator = torch.Generator().manual_seed(config.seed)
        units_of_taps = config.hidden_units or (0,) * len(config.taps)
        with torch.random.fork_rng(devices=[]):  # the subnets' initialisation takes the global generator
            torch.manual_seed(config.seed)
            self.decoders = nn.ModuleList(
                Decoder(
                    channels,
                    config.coupling_blocks,
                    condition_dims=CONDITION_DIMS if config.conditional else 0,
                    clamp=config.clamp,
                    soft_permutation=config.soft_permutation,
                    hidden_units=units,
                    factored=name in config.factored,
                    generator=generator,
                )
                for name, (channels, _, _), units in zip(config.taps, config.tap_sizes, units_of_taps, strict=True)
            )
        for index, (_, height, width) in enumerate(config.tap_sizes):
            self.register_buffer(f"code{index}", position_code(height, width), persistent=False)
            if config.score == "place_deviation":
                self.register_buffer(f"place{index}", torch.zeros(height, width))
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "CFlow":
        """Set the decoders' mode; the encoder stays in eval mode, its batch norms are frozen."""
        super().train(mode)
        self.encoder.eval()
        return self

    @property
    def places(self) -> list[Tensor]:
        """By how much each place's level lies below the others', (h, w) per tap (`freeze_places`); none: all alike."""
        if self.config.score != "place_deviation":
            return []
        return [self.get_buffer(f"place{index}") for index in range(len(self.config.taps))]

    def normalise(self, frames: Tensor) -> Tensor:
        """Map uint8 RGB frames (B, H, W, 3) to the encoder's input (B, 3, H, W)."""
        dtype = self.mean.dtype
        scale = 1 / (255 * self.std)
        return frames.to(dtype).permute(0, 3, 1, 2) * scale - self.mean / self.std

    def features(self, frames: Tensor) -> list[Tensor]:
        """Map uint8 frames (B, H, W, 3) to one (B, D, h, w) per tap, pooled and halved where the config says so."""
        taps = zip(self.config.taps, self.encoder(self.normalise(frames)), strict=True)
        return [self._pooled(tap, name) if name in self.config.pooled else tap for name, tap in taps]

    def _pooled(self, tap: Tensor, name: str) -> Tensor:
        """Average over 3 x 3 positions, at an edge over those that there are: a fine tap then sees its surroundings.

        Neighbouring averages are much alike: where the config halves the tap, every second of them stands for all.
        """
        stride = 2 if name in self.config.halved else 1
        return F.avg_pool2d(tap, 3, stride, padding=1, count_include_pad=False)

    def code_at(self, index: int, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Return a tap's condition vectors (h, w, C) for an input that begins at (top, left) of its frame."""
        if corner == (0, 0):
            return self.get_buffer(f"code{index}")
        _, height, width = self.config.tap_sizes[index]
        top, left = (pixel / self.config.tap_strides[index] for pixel in corner)
        return position_code(height, width, origin=(top, left)).to(self.mean)

    def fibers(
        self, features: Tensor, index: int, corners: Sequence[tuple[int, int]] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Lay one tap's (B, D, h, w) out as fibers (B·h·w, D) with their condition vectors (B·h·w, C).

        `corners` are the (top, left) of the inputs in their frames, in pixels; none where they are whole frames.
        """
        batch, channels = features.shape[:2]
        fibers = features.permute(0, 2, 3, 1).reshape(-1, channels)
        if not self.config.conditional:
            return fibers, None
        code = self.code_at(index)
        if not corners:
            return fibers, code.expand(batch, -1, -1, -1).reshape(-1, code.shape[-1])
        codes = [self.code_at(index, corner) for corner in corners]
        return fibers, torch.cat([code.reshape(-1, code.shape[-1]) for code in codes])

    def log_likelihoods(self, frames: Tensor, corners: Sequence[tuple[int, int]] = ()) -> list[Tensor]:
        """Map uint8 inputs (B, H, W, 3), tiles at `corners` or frames, to (B, h, w) per tap: nats per dimension."""
        maps = []
        for index, (tap, decoder) in enumerate(zip(self.features(frames), self.decoders, strict=True)):
            _, height, width = self.config.tap_sizes[index]
            logp = log_likelihood(*decoder(*self.fibers(tap, index, corners)))
            maps.append(logp.reshape(-1, height, width))
        return maps


class DetectorModule(nn.Module):
    """The engine's contract as a module: uint8 frames in, (anomaly_map, image_score) out."""

    constants: Tensor

    def __init__(self, model: CFlow, constants: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("constants", constants)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, H, W, 3) uint8 RGB to anomaly_map (B, H, W) and image_score (B,)."""
        return self.judge(self.model.log_likelihoods(frames))

    def judge(self, log_likelihoods: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map one (B, h, w) of log-likelihoods per tap to anomaly_map (B, H, W) and image_score (B,)."""
        config = self.model.config
        ratios = likelihood_ratios(log_likelihoods, self.constants, self.model.places)
        scores = anomaly_map(ratios, config.input_size)
        return scores, image_score(ratios, scores, config.score, self.constants)
