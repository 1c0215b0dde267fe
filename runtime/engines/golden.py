"""Two frames whose scores are known: what an engine must answer before anything it says is believed.

A library may compute a graph wrongly on one machine and rightly on another (OpenVINO 2026.4.1 does so with an INT8
convolution behind a concatenation). So the sidecar keeps a good image of the training set, a second frame is made from
it by a dark patch, and the scores that the build measured for each precision. A session that misses one is refused.
"""

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.common.errors import UserError
from runtime.engines.session import Frames, Session
from runtime.images.pixels import Image8, every_nth

PATCH = 0.25  # of each side, in the middle
# How far from the build's score an engine may be, in score units: FP32 differs by the order of sums, the others by
# where values are rounded. OpenVINO against ONNX Runtime, a small detector of cables: below 1e-4 in FP32 and FP16,
# 0.005 in BF16 and INT8; where OpenVINO's convolution is wrong, 1.3.
TOLERANCES = {"fp32": 0.01, "fp16": 0.02, "bf16": 0.05, "int8": 0.1}
LARGEST_SIDE = 512  # pixels of the picture: of a larger one every n-th, so that the sidecar stays a file to look into
MOST_CHARACTERS = 2 << 20  # of it in base64


class WrongScores(UserError):
    """A session computes something else than what was built."""


@dataclass(frozen=True)
class Golden:
    """`png` is a good image, as PNG in base64; `scores` (two) by precision.

    Of a tiled engine it is `mirrored`: a part of a good frame, at the frame's own pixels, which is repeated and
    mirrored until it fills the frame. A whole frame of many megapixels has no room in a sidecar, and a small one,
    enlarged, would show the network nothing that it has seen: its scores would be the end of the scale.
    """

    png: str
    scores: Mapping[str, tuple[float, float]]
    mirrored: bool = False

    @classmethod
    def of(cls, image: Image8, *, mirrored: bool = False) -> "Golden":
        """Return one for uint8 (H, W, 3) RGB, without scores yet; `mirrored` of a tile."""
        buffer = io.BytesIO()
        small = np.ascontiguousarray(_middle(image) if mirrored else every_nth(image, LARGEST_SIDE))
        Image.fromarray(small).save(buffer, "PNG", optimize=True)
        return cls(base64.b64encode(buffer.getvalue()).decode("ascii"), {}, mirrored)

    @classmethod
    def from_json(cls, value: Any) -> "Golden":
        """Rebuild it. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        png, scores, mirrored = value["png"], value["scores"], value.get("mirrored", False)
        if not isinstance(mirrored, bool):
            raise TypeError(f"mirrored must be true or false, not {mirrored!r:.40}")
        if not isinstance(png, str) or len(png) > MOST_CHARACTERS:
            raise ValueError(f"png must be a picture in base64 of at most {MOST_CHARACTERS} characters")
        pairs = {str(precision): tuple(float(score) for score in pair) for precision, pair in scores.items()}
        if any(len(pair) != 2 or not np.isfinite(pair).all() for pair in pairs.values()):
            raise ValueError(f"scores must be two finite numbers for each precision, not {scores}")
        return cls(png, {precision: (pair[0], pair[1]) for precision, pair in pairs.items()}, mirrored)

    def frames(self, frame_size: tuple[int, int]) -> Frames:
        """Return both frames, uint8 (2, H, W, 3), of the engine's `frame_size`: enlarged without a filter, or mirrored.

        Raises `UserError` for a picture that cannot be read.
        """
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.png, validate=True)), formats=["PNG"]) as picture:
                whole = picture.convert("RGB")
                good = whole if self.mirrored else whole.resize(frame_size[::-1], Image.Resampling.NEAREST)
        except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError("the sidecar's golden picture must be a PNG", str(error), "rebuild the engine") from None
        height, width = frame_size
        pixels = _filled(np.asarray(good), height, width) if self.mirrored else np.asarray(good)
        frames = np.repeat(pixels[None], 2, axis=0)
        top, left = round(height * (1 - PATCH) / 2), round(width * (1 - PATCH) / 2)
        frames[1, top : height - top, left : width - left] //= 4
        return frames


def _middle(image: Image8) -> Image8:
    """Return the middle of an image, at most `LARGEST_SIDE` pixels a side."""
    top, left = (max(0, side - LARGEST_SIDE) // 2 for side in image.shape[:2])
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


def _filled(image: Image8, height: int, width: int) -> Image8:
    """Return (height, width, 3) that repeats `image`, every second time mirrored, so that no edge shows."""
    rows, columns = (_mirrored(side, of) for side, of in ((height, image.shape[0]), (width, image.shape[1])))
    return image[rows[:, None], columns]


def _mirrored(count: int, side: int) -> NDArray[np.int64]:
    place = np.arange(count) % (2 * side)
    return np.minimum(place, 2 * side - 1 - place)


def check_golden(session: Session, golden: Golden, precision: str, computed: str) -> bool:
    """Return whether `session` was checked; raise `WrongScores` unless it gives the golden frames the build's scores.

    There may be none of the file's `precision`. `computed` is what the session computes its products in,
    where that is coarser.
    """
    expected = golden.scores.get(precision)
    if expected is None:
        return False
    frames = golden.frames(session.frame_size)
    found = [float(session.run(frames[i : i + 1])[1][0]) for i in range(len(frames))]
    tolerance = max(TOLERANCES.get(precision, 0.0), TOLERANCES.get(computed, 0.0))
    if not all(abs(ours - theirs) <= tolerance for ours, theirs in zip(found, expected, strict=True)):
        raise WrongScores(
            f"the engine must score the sidecar's golden frames as the build did, {_text(expected)} "
            f"within {tolerance:g}",
            f"{_text(found)} on {session.device}",
            "use another backend (--backend), or rebuild the engine on this machine",
        )
    return True


def _text(scores: Any) -> str:
    return " and ".join(f"{score:.4f}" for score in scores)
