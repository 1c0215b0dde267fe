"""Any ONNX graph of one input as a function of a batch, in the libraries that judge on a CPU.

For what is no engine of the contract: an encoder alone, another project's export, a product to measure a CPU with.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from runtime.engines.onnxruntime_session import check_graph, import_onnxruntime, session_options
from runtime.engines.openvino_session import compile_options, openvino_core
from runtime.engines.session import CpuPrecision

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]  # a batch in, the graph's outputs out
Source = str | bytes  # a path, or the file's content


def open_onnxruntime(source: Source, threads: int) -> Run:
    """Return a function that runs the graph in ONNX Runtime."""
    session: Any = import_onnxruntime().InferenceSession(
        source, session_options(threads), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: list(session.run(None, {name: batch}))


def open_openvino(source: Source, threads: int, precision: CpuPrecision, shape: Sequence[int]) -> Run:
    """Return a function that runs the graph in OpenVINO for batches of just `shape`.

    Raises what ONNX Runtime raises for a graph that is not ONNX's: OpenVINO's own reader checks less.
    """
    check_graph(source)
    core = openvino_core()
    graph = core.read_model(source)
    graph.reshape(list(shape))
    request = core.compile_model(graph, "CPU", compile_options(threads, precision)).create_infer_request()
    return lambda batch: list(request.infer([batch]).values())
