"""The one interface behind which every inference library stands."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.common.closing import Closing
from runtime.common.errors import UserError

CpuPrecision = Literal["float32", "bfloat16"]  # of the products of an `.onnx` on the CPU

Frames = NDArray[np.uint8]  # (B, H, W, 3), RGB
Maps = NDArray[np.float32]  # (B, H, W)
Scores = NDArray[np.float32]  # (B,)


@dataclass(frozen=True, eq=False)
class Run:
    """What one run came to: anomaly_map (B, H, W), image_score (B,), milliseconds by stage; the caller owns all."""

    maps: Maps
    scores: Scores
    stage_ms: dict[str, float]


class Unanswered(UserError):
    """An engine on a server gave no answer for frames: they have no verdict, and the next ones may have one."""


class Pending(Protocol):
    """A run that was submitted; its slot is free again once it has its result or was discarded."""

    def result(self) -> Run:
        """Wait for the run to end and return what it came to. To be called once. Raises `Unanswered`."""
        ...

    def discard(self) -> None:
        """Give the run up; after `result`, or a second time, this does nothing."""
        ...


class Finished:
    """A run that ended before it was asked for, by a library that does nothing beside an execution."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def result(self) -> Run:
        """Return what the run came to."""
        return self._run

    def discard(self) -> None:
        """Nothing is under way."""


class Session(Closing, Protocol):
    """An engine that is loaded and ready to judge frames.

    `input_size` is (height, width) of the map in pixels, `frame_size` that of the frames, which is the same unless the
    engine resizes them itself; `max_batch` the most frames one `run` takes, `device`
    a short description for reports ("ONNX Runtime 1.32 CPU, 2 threads").

    `slots` is how many submitted runs may wait for their result (1: a run ends within `submit`), and `constant_batch`
    says that a run of another batch than the last one's costs extra (a CUDA graph is captured anew). One thread at
    a time uses a session.
    """

    input_size: tuple[int, int]
    frame_size: tuple[int, int]
    max_batch: int
    device: str
    slots: int
    constant_batch: bool

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge `frames` and return (anomaly_map, image_score); the caller owns both arrays.

        Raises `UserError` for a shape or type that the engine does not take, `Unanswered` without an answer. The result
        for a frame does not depend on frames before or beside it.
        """
        ...

    def submit(self, frames: Frames) -> Pending:
        """Begin to judge `frames`, so that their copy goes beside the execution of the run before.

        They are copied before this returns. Results are those of `run`, in the order that they are asked for.
        Raises as `run` does, and `RuntimeError` while `slots` runs wait already.
        """
        ...

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds that each stage of the last `run` took, by name ("execute", "copy_in", ...)."""
        ...
