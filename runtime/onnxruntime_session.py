"""ONNX Runtime on the CPU: the same engine contract without a GPU, and the reference that plans are compared with."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.metadata import INPUT_NAME, MAP_NAME, SCORE_NAME, Metadata, read_sidecar
from runtime.session import Frames, Maps, Scores

MAX_BATCH = 32  # the graph takes any batch; this bounds the memory of one run
FATAL_ONLY = 4  # ONNX Runtime's log severity: errors come as exceptions, once


class OnnxRuntimeSession:
    """An `.onnx` of the engine contract on ONNX Runtime's CPU provider (see `runtime.session.Session`).

    `threads` is the number of threads of one run (None: all cores that this process may use);
    `metadata` is what the sidecar says (None: read it from beside `path`). Raises `UserError` for a
    file that is no ONNX, or whose inputs and outputs are not those that the sidecar promises.
    """

    def __init__(self, path: str | Path, threads: int | None = None, metadata: Metadata | None = None) -> None:
        path = Path(path)
        metadata = metadata or read_sidecar(path)
        threads = _available_cores() if threads is None else threads
        if threads < 1:
            raise UserError("threads must be 1 or more", str(threads))
        self._session: Any = _open(path, threads)
        _check_contract(self._session, path, metadata.input_size)
        self.input_size = metadata.input_size
        self.max_batch = MAX_BATCH
        self.device = f"{_library_version()} CPU, {threads} thread{'s' if threads > 1 else ''}"
        self._stage_ms: dict[str, float] = {}
        # the first run allocates ONNX Runtime's arena; no user's frame is to wait for that
        self.run(np.zeros((1, *self.input_size, 3), np.uint8))

    def run(self, frames: Frames) -> tuple[Maps, Scores]:
        """Judge uint8 (B, H, W, 3) and return (anomaly_map (B, H, W), image_score (B,)), both float32."""
        if self._session is None:
            raise UserError("the session must be open", "closed", "load the engine again")
        _check_frames(frames, self.input_size)
        started = time.perf_counter()
        try:
            maps, scores = self._session.run([MAP_NAME, SCORE_NAME], {INPUT_NAME: frames})
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            raise UserError("ONNX Runtime must run the graph", str(error), "re-export the ONNX") from error
        self._stage_ms = {"execute": 1e3 * (time.perf_counter() - started)}
        return maps, scores

    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of the last run: "execute"."""
        return dict(self._stage_ms)

    def close(self) -> None:
        """Release the graph and its memory."""
        self._session = None

    def __enter__(self) -> "OnnxRuntimeSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _available_cores() -> int:
    """Return how many cores this process may use, which in a container is often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("ONNX Runtime must be installed", str(error), "pip install onnxruntime") from None
    return onnxruntime


def _library_version() -> str:
    return f"ONNX Runtime {_import_onnxruntime().__version__}"


def _open(path: Path, threads: int) -> Any:
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = FATAL_ONLY
    # idle threads that spin take the cores from capture, decoding and drawing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        raise UserError(f"{path.name} must be an ONNX that ONNX Runtime opens", str(error), "re-export it") from None


def _signature(tensors: Any) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return {name: (type, shape)}; a symbolic axis, whatever its name, is "B"."""
    return {
        tensor.name: (tensor.type, tuple(side if isinstance(side, int) else "B" for side in tensor.shape))
        for tensor in tensors
    }


def _check_contract(session: Any, path: Path, size: tuple[int, int]) -> None:
    expected = {
        INPUT_NAME: ("tensor(uint8)", ("B", *size, 3)),
        MAP_NAME: ("tensor(float)", ("B", *size)),
        SCORE_NAME: ("tensor(float)", ("B",)),
    }
    found = _signature(session.get_inputs()) | _signature(session.get_outputs())
    if found != expected:
        raise UserError(
            f"{path.name} must have the inputs and outputs that its sidecar promises: {_describe(expected)}",
            _describe(found),
            "export it with export.to_onnx",
        )


def _describe(signature: dict[str, tuple[str, tuple[Any, ...]]]) -> str:
    return ", ".join(f"{name} {kind}[{', '.join(map(str, shape))}]" for name, (kind, shape) in signature.items())


def _check_frames(frames: Frames, size: tuple[int, int]) -> None:
    good_shape = frames.ndim == 4 and 1 <= frames.shape[0] <= MAX_BATCH and frames.shape[1:] == (*size, 3)
    if frames.dtype != np.uint8 or not good_shape:
        raise UserError(
            f"frames must be uint8 (1..{MAX_BATCH}, {size[0]}, {size[1]}, 3)",
            f"{frames.dtype} {frames.shape}",
            "resize them first",
        )
