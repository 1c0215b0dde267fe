"""What graphs say of images, judged by ONNX Runtime on the CPU: some batches at once, each by a single thread.

That keeps all cores busy where the threads of one run wait for each other. Their number, and how many images are in a
batch, decide in which order numbers are summed. As both are always the same, so is every answer on any machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graph.onnx_files import cpu_session
from export.images.parity_images import Images
from export.images.tile_images import Feed, feed
from runtime.common.errors import UserError
from runtime.common.side_by_side import side_by_side
from runtime.engines.session import Frames, Maps, Scores
from runtime.engines.sidecar import MAP_NAME, SCORE_NAME

BATCH = 4  # images


@dataclass(frozen=True, eq=False)
class Answers:
    """What a graph says of N images: `maps` (N, H, W) and `scores` (N,), float32."""

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]


class Reference:
    """The FP32 graph that others are compared with. It judges the same images once, however often that is asked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._known: dict[Images, Answers] = {}

    def answers(self, images: Images) -> Answers:
        """Return `answers_of` the graph."""
        if images not in self._known:
            self._known[images] = answers_of(self.model, images)
        return self._known[images]


def answers_of(model: onnx.ModelProto, images: Images) -> Answers:
    """Judge `images` with ONNX Runtime on the CPU. Raises `UserError` for an answer that is not finite."""
    session = cpu_session(model, threads=1)
    wanted = [MAP_NAME, SCORE_NAME]
    return joined(side_by_side(lambda inputs: session.run(wanted, inputs), feeds(images)))


def joined(parts: Iterable[Sequence[Maps | Scores]]) -> Answers:
    """Return the answers of some batches as one. Raises `UserError` for one that is not finite."""
    maps, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not np.isfinite(scores).all() or not np.isfinite(maps).all():
        raise UserError("every score must be finite", "NaN or infinity", "build the engine with --fp32")
    return Answers(maps, scores)


def batches(images: Images, size: int = BATCH) -> list[Frames]:
    """Return the images in order, `size` at a time, (B, H, W, 3)."""
    return [np.stack(images.frames[start : start + size]) for start in range(0, len(images), size)]


def feeds(images: Images) -> list[Feed]:
    """Return what a graph is given of the images, `BATCH` at a time, in order."""
    starts = range(0, len(images), BATCH)
    return [
        feed(batch, images.places[start : start + BATCH]) for start, batch in zip(starts, batches(images), strict=True)
    ]
