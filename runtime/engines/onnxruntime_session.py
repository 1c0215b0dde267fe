"""ONNX Runtime on the CPU: the same engine contract without a GPU, and the reference that plans are compared with."""

from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.engines.cpu_session import BATCH_AXIS, CpuSession, Signature
from runtime.engines.external_data import refuse_external_data
from runtime.engines.session import Frames, Maps, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME

FATAL_ONLY = 4  # ONNX Runtime's log severity: errors come as exceptions, once
TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}  # others keep ONNX Runtime's name


class OnnxRuntimeSession(CpuSession):
    """An `.onnx` of the engine contract on ONNX Runtime's CPU provider (see `CpuSession`)."""

    library = "ONNX Runtime"

    def _open(self, path: Path) -> Signature:
        refuse_external_data(path)
        options, onnxruntime = session_options(self.threads), import_onnxruntime()
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return self._signature()

    def _signature(self) -> Signature:
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {
            tensor.name: (
                TYPES.get(tensor.type, tensor.type),
                tuple(side if isinstance(side, int) else BATCH_AXIS for side in tensor.shape),
            )
            for tensor in tensors
        }

    def _infer(self, frames: Frames) -> tuple[Maps, Scores]:
        maps, scores = self._session.run([MAP_NAME, SCORE_NAME], {INPUT_NAME: frames})
        return maps, scores

    def _release(self) -> None:
        self._session = None

    def _version(self) -> str:
        return str(import_onnxruntime().__version__)


def session_options(threads: int) -> Any:
    """Return ONNX Runtime's options for judging: `threads` threads that sleep when idle, all graph optimisations."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = FATAL_ONLY
    # idle threads that spin take the cores from capture, decoding and drawing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def check_graph(source: Path | str | bytes) -> None:
    """Raise what ONNX Runtime raises for a graph that is not ONNX's: a node without its inputs, types that do not fit.

    `source` is a file, or its content. Nothing is optimised or run, so that it takes little more time than reading it.
    """
    onnxruntime = import_onnxruntime()
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = str(source) if isinstance(source, Path) else source
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def import_onnxruntime() -> Any:
    """Import ONNX Runtime. Raises `UserError` where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("ONNX Runtime must be installed", str(error), "pip install onnxruntime") from None
    return onnxruntime
