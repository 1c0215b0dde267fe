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
    """`png` is a good image, as PNG in base64; `scores` (two) by precision."""

    png: str
    scores: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, image: Image8) -> "Golden":
        """Return one for uint8 (H, W, 3) RGB, without scores yet."""
        buffer = io.BytesIO()
        small = np.ascontiguousarray(every_nth(image, LARGEST_SIDE))
        Image.fromarray(small).save(buffer, "PNG", optimize=True)
        return cls(base64.b64encode(buffer.getvalue()).decode("ascii"), {})

    @classmethod
    def from_json(cls, value: Any) -> "Golden":
        """Rebuild it. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        png, scores = value["png"], value["scores"]
        if not isinstance(png, str) or len(png) > MOST_CHARACTERS:
            raise ValueError(f"png must be a picture in base64 of at most {MOST_CHARACTERS} characters")
        pairs = {str(precision): tuple(float(score) for score in pair) for precision, pair in scores.items()}
        if any(len(pair) != 2 or not np.isfinite(pair).all() for pair in pairs.values()):
            raise ValueError(f"scores must be two finite numbers for each precision, not {scores}")
        return cls(png, {precision: (pair[0], pair[1]) for precision, pair in pairs.items()})

    def frames(self, frame_size: tuple[int, int]) -> Frames:
        """Return both frames, uint8 (2, H, W, 3), enlarged to the engine's `frame_size` without a filter.

        Raises `UserError` for a picture that cannot be read.
        """
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.png, validate=True)), formats=["PNG"]) as picture:
                good = picture.convert("RGB").resize(frame_size[::-1], Image.Resampling.NEAREST)
        except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError("the sidecar's golden picture must be a PNG", str(error), "rebuild the engine") from None
        frames = np.repeat(np.asarray(good)[None], 2, axis=0)
        height, width = frame_size
        top, left = round(height * (1 - PATCH) / 2), round(width * (1 - PATCH) / 2)
        frames[1, top : height - top, left : width - left] //= 4
        return frames


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
