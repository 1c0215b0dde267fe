"""The layers of a TensorRT plan and their times, as its execution context reports them.

A captured CUDA graph reports nothing by itself, so the context is enqueued here as if there were none. The interface
is the same from TensorRT 8.6 to 11 and in TensorRT-RTX: the context's `profiler` is called for each layer of a run.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.engines.sidecar import Sidecar
from runtime.engines.trt.engine import LoadedEngine
from runtime.engines.trt.session import TensorRTSession
from runtime.report.layers import LayerTime, named_nodes
from runtime.report.worker import frames_of

WARM_UP = 2  # runs that do not count
NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")  # as the inspector's "Metadata" names the nodes of a layer


def profile_tensorrt(path: Path, sidecar: Sidecar, runs: int) -> list[LayerTime]:
    """Return every layer of the plan at `path`, in its order, with its median milliseconds per run of one frame.

    Raises `UserError` as `TensorRTSession` does, and for a library that reports no layer.
    """
    with TensorRTSession(path, sidecar, sidecar.artefact_of(path)) as session:
        layers = profile_session(session, runs)
    if not layers:
        raise UserError(f"{path.name} must report its layers' times", "none", "leave its profile out")
    return layers


def profile_session(session: TensorRTSession, runs: int) -> list[LayerTime]:
    """Return what `profile_tensorrt` does of a session that is open; it reports to nobody else afterwards.

    A kernel that the compiler made of several nodes and calls after none ("__myl_MulAdd_myl0_7") has them in
    parentheses, where the plan tells them.
    """
    with session._current() as engine:
        batch = engine.min_batch
    session.run(frames_of(batch, session.frame_size))  # the frames stay on the device
    times = _layer_times(session._library)
    with session._current() as engine:
        nodes = _nodes_of_layers(engine, session._library)
        engine._execution.profiler = times
        for number in range(WARM_UP + runs):
            if number == WARM_UP:
                times.ms.clear()
            engine._enqueue()  # whose sibling `enqueue` would launch the graph
            engine.stream.synchronize()
    return [
        (f"{name} ({nodes[name]})" if nodes.get(name) and not named_nodes(name) else name, float(np.median(ms)) / batch)
        for name, ms in times.ms.items()
    ]


def _layer_times(library: Any) -> Any:
    """Return a profiler of `library` that collects {layer: the milliseconds of each run} in `ms`."""
    base: Any = library.IProfiler

    class LayerTimes(base):  # type: ignore[misc]  # the class exists only at run time
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants its own initialiser, not super()
            self.ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms.setdefault(layer_name, []).append(ms)

    return LayerTimes()


def _nodes_of_layers(engine: LoadedEngine, library: Any) -> dict[str, str]:
    """Return {layer: the nodes it was made of} as far as the plan was built to tell."""
    inspector = engine._engine.create_engine_inspector()
    inspector.execution_context = engine._execution
    with suppress(ValueError):  # no JSON: an engine that tells nothing
        told = json.loads(inspector.get_engine_information(library.LayerInformationFormat.JSON))
        entries = [entry for entry in told.get("Layers", ()) if isinstance(entry, dict)]  # or names alone
        return {str(entry.get("Name")): " + ".join(NODE.findall(str(entry.get("Metadata", "")))) for entry in entries}
    return {}
