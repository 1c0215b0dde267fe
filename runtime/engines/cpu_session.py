"""What every library that judges with an `.onnx` on the CPU has in common: contract, frames, threads, timing."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.engines.session import Finished, Frames, Maps, Run, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar, read_sidecar

MAX_BATCH = 32  # the graph takes any batch; this bounds the memory of one run

Signature = dict[str, tuple[str, tuple[int | str, ...]]]  # {name: (NumPy's name of the type, shape)}
BATCH_AXIS = "B"  # stands for an axis of any length


class CpuSession(Closing, ABC):
    """An `.onnx` of the engine contract, opened on the CPU (see `runtime.engines.session.Session`).

    `threads` is the number of threads of one run (None: all cores that this process may use);
    `sidecar` is what the sidecar says (None: read it from beside `path`). Raises `UserError` for a
    file that is no ONNX, or whose inputs and outputs are not those that the sidecar promises. The first run takes
    longer, for the libraries compile and allocate then.
    """

    library: ClassVar[str]  # as a person calls it
    slots = 1  # there is no copy to hide, and two executions would share the same cores
    constant_batch = False

    def __init__(self, path: str | Path, threads: int | None = None, sidecar: Sidecar | None = None) -> None:
        path = Path(path)
        sidecar = sidecar or read_sidecar(path)
        self.threads = available_cores() if threads is None else threads
        if self.threads < 1:
            raise UserError("threads must be 1 or more", str(self.threads))
        self.input_size = sidecar.input_size
        self.max_batch = MAX_BATCH
        found = self._opened(path)
        self.frame_size = _frame_size(found, sidecar)
        check_contract(found, path, self.frame_size, self.input_size)
        self.device = f"{self.library} {self._version()} CPU, {self.threads} thread{'s' if self.threads > 1 else ''}"
        self._closed = False
        self._stage_ms: dict[str, float] = {}

    def _opened(self, path: Path) -> Signature:
        try:
            return self._open(path)
        except UserError:
            raise
        except Exception as error:  # the libraries' errors share no base class below Exception
            raise unreadable(path, self.library, error) from None

    @abstractmethod
    def _open(self, path: Path) -> Signature:
        """Check and read the graph and return its inputs and outputs. Raises anything for what is no ONNX."""

    @abstractmethod
    def _infer(self, frames: Frames) -> tuple[Maps, Scores]:
        """Run the graph on frames that were checked; what it returns is the caller's own."""

    @abstractmethod
    def _release(self) -> None:
        """Let the graph and its memory go."""

    @abstractmethod
    def _version(self) -> str:
        """Return the library's version."""

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge uint8 (B, H, W, 3) and return (anomaly_map (B, H, W), image_score (B,)), both float32."""
        if self._closed:
            raise UserError("the session must be open", "closed", "load the engine again")
        check_frames(frames, self.frame_size)
        started = time.perf_counter()
        try:
            maps, scores = self._infer(frames)
        except Exception as error:  # the libraries' errors share no base class below Exception
            raise UserError(f"{self.library} must run the graph", one_line(error), "re-export the ONNX") from error
        self._stage_ms = {"execute": 1e3 * (time.perf_counter() - started)}
        return maps, scores

    def submit(self, frames: Frames) -> Finished:
        """Judge `frames` as `run` does, at once."""
        maps, scores = self.run(frames)
        return Finished(Run(maps, scores, self.stage_ms))

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the last run: "execute"."""
        return dict(self._stage_ms)

    def close(self) -> None:
        """Release the graph and its memory; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._release()


def one_line(error: Exception) -> str:
    """Return a library's error, often of many lines, as one."""
    return " ".join(str(error).split())


def unreadable(path: Path, library: str, error: Exception) -> UserError:
    """Return the refusal of a file that `library` cannot open."""
    return UserError(f"{path.name} must be an ONNX that {library} opens", one_line(error), "re-export it")


def _frame_size(found: Signature, sidecar: Sidecar) -> tuple[int, int]:
    """Return the size of the frames; of an engine with the resize inside, the unfused graph has none yet."""
    _, shape = found.get(INPUT_NAME, ("", ()))
    return sidecar.input_size if shape[1:3] == sidecar.input_size else sidecar.engine_frame_size


def check_contract(found: Signature, path: Path, frame_size: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise `UserError` unless the graph has the contract's inputs at `frame_size` and its outputs at `size`."""
    expected: Signature = {
        INPUT_NAME: ("uint8", (BATCH_AXIS, *frame_size, 3)),
        MAP_NAME: ("float32", (BATCH_AXIS, *size)),
        SCORE_NAME: ("float32", (BATCH_AXIS,)),
    }
    if found != expected:
        raise UserError(
            f"{path.name} must have the inputs and outputs that its sidecar promises: {_describe(expected)}",
            _describe(found),
            "export it with export.to_onnx",
        )


def _describe(signature: Signature) -> str:
    return ", ".join(f"{name} {kind}[{', '.join(map(str, shape))}]" for name, (kind, shape) in signature.items())


def check_frames(frames: Frames, size: tuple[int, int]) -> None:
    """Raise `UserError` unless `frames` is uint8 (1..MAX_BATCH, *size, 3)."""
    good_shape = frames.ndim == 4 and 1 <= frames.shape[0] <= MAX_BATCH and frames.shape[1:] == (*size, 3)
    if frames.dtype != np.uint8 or not good_shape:
        raise UserError(
            f"frames must be uint8 (1..{MAX_BATCH}, {size[0]}, {size[1]}, 3)",
            f"{frames.dtype} {frames.shape}",
            "resize them first",
        )
