"""The one interface behind which every inference library stands."""

from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (B, H, W, 3), RGB
Maps = NDArray[np.float32]  # (B, H, W)
Scores = NDArray[np.float32]  # (B,)


class Session(Protocol):
    """An engine that is loaded and ready to judge frames.

    `input_size` is (height, width) of the map in pixels, `frame_size` that of the frames, which is the same unless the
    engine resizes them itself; `max_batch` the most frames one `run` takes, `device`
    a short description for reports ("ONNX Runtime 1.32 CPU, 2 threads").
    """

    input_size: tuple[int, int]
    frame_size: tuple[int, int]
    max_batch: int
    device: str

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge `frames` and return (anomaly_map, image_score); the caller owns both arrays.

        Raises `UserError` for a shape or type that the engine does not take. The result for a frame
        does not depend on frames before or beside it.
        """
        ...

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds that each stage of the last `run` took, by name ("execute", "copy_in", ...)."""
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...

    def __enter__(self) -> "Session": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
