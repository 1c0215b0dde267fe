"""Where an engine's time goes, by part of the network, as the engine's own profiler sees it.

Profiling costs time itself, and layers that run beside each other count twice: only shares count.
"""

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.engines.backends import Backend, choose_backend
from runtime.engines.cpu_session import CpuSession, Signature
from runtime.engines.onnxruntime_session import OnnxRuntimeSession, import_onnxruntime, session_options
from runtime.engines.openvino_session import OpenVinoSession, compile_options
from runtime.engines.session import CpuPrecision
from runtime.engines.sidecar import INPUT_NAME, Sidecar, read_sidecar
from runtime.report.layers import INSERTED, LayerTime, group_layers, named_nodes
from runtime.report.onnx_nodes import node_behind, read_producers
from runtime.report.schema import Profile
from runtime.report.tensorrt_profiler import profile_tensorrt
from runtime.report.worker import ENGINES, frames_of

RUNS = 20
WARM_UP = 2  # runs that do not count
KERNEL_TIME = "_kernel_time"  # how ONNX Runtime ends the name of an event that is a layer's run


def profile(
    path: Path,
    backend: Backend = "auto",
    precision: CpuPrecision = "float32",
    threads: int | None = None,
    runs: int = RUNS,
) -> Profile:
    """Return the time of one frame by part of the network, over `runs` runs of the engine at `path`.

    `backend`, `precision` and `threads` (None: all cores) are of an `.onnx`, as in `runtime.load`; a `.plan` has its
    own library and precision. Raises `UserError` as `runtime.load` does for what does not open here.
    """
    if runs < 1:
        raise UserError("a profile needs 1 run or more", str(runs))
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)
    operands = artefact.precision
    if path.suffix == ".plan":
        engine = ENGINES.get(artefact.library, artefact.library)
        layers = profile_tensorrt(path, sidecar, runs)
    elif choose_backend(backend, precision) == "openvino":
        engine, layers = OpenVinoSession.library, profile_openvino(path, threads, sidecar, precision, runs)
        operands = "bf16" if precision == "bfloat16" and operands == "fp32" else operands
    else:
        engine, layers = OnnxRuntimeSession.library, profile_onnxruntime(path, threads, sidecar, runs)
    return Profile(path.name, sidecar.input_size, engine, operands, group_layers(layers, sidecar.taps))


def profile_onnxruntime(path: Path, threads: int | None, sidecar: Sidecar, runs: int = RUNS) -> list[LayerTime]:
    """Return every layer that ONNX Runtime runs, in its order, with its median milliseconds per run of one frame.

    A layer that is called after its result has the node that makes it in parentheses. Raises `UserError` as
    `OnnxRuntimeSession` does.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(_ProfiledOnnxRuntime(path, threads, sidecar, Path(folder))) as session,
    ):
        _run(session, WARM_UP + runs)
        events = session.events()
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME):
            key = event["name"].removesuffix(KERNEL_TIME), str(event["args"].get("node_index"))
            times.setdefault(key, []).append(event["dur"] / 1e3)
    producers = read_producers(path)
    return [(_with_node(name, producers), float(np.median(ms[-runs:]))) for (name, _), ms in times.items()]


def _run(session: CpuSession, runs: int) -> None:
    """Run on one frame of seeded random pixels."""
    frame = frames_of(1, session.frame_size)
    for _ in range(runs):
        session.run(frame)


def _with_node(name: str, producers: Mapping[str, str]) -> str:
    node = "" if named_nodes(name) else node_behind(name, producers)
    return f"{name} ({node})" if node else name


class _ProfiledOnnxRuntime(OnnxRuntimeSession):
    """A session that writes what it does into a file in `folder`."""

    def __init__(self, path: Path, threads: int | None, sidecar: Sidecar, folder: Path) -> None:
        self._folder = folder
        super().__init__(path, threads, sidecar)

    def _open(self, path: Path) -> Signature:
        signature = super()._open(path)  # without a profile, for its refusals
        options = session_options(self.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / "profile")
        library = import_onnxruntime()
        self._session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return signature

    def events(self) -> list[dict[str, Any]]:
        """End the profile and return its events, in the order of time."""
        found: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        return found


def profile_openvino(
    path: Path,
    threads: int | None,
    sidecar: Sidecar,
    precision: CpuPrecision = "float32",
    runs: int = RUNS,
) -> list[LayerTime]:
    """Return every layer that OpenVINO runs, in its order, with its mean milliseconds per run of one frame.

    A layer's name is its nodes', and `layers.INSERTED` and its type for one that OpenVINO put in itself. What
    OpenVINO made of a node and calls after none has the nodes that read it in parentheses. Raises `UserError` as
    `OpenVinoSession` does.
    """
    with closing(_ProfiledOpenVino(path, threads, sidecar, precision)) as session:
        _run(session, WARM_UP)
        before = session.mean_ms()
        _run(session, runs)
        after = session.mean_ms()
        labels = _labels(session.executed_model(), read_producers(path))
    warm_up = 1 + WARM_UP  # a session makes one when it opens
    return [
        # OpenVINO's figure is the mean of all runs since the graph was compiled
        (labels.get(name, name), max(0.0, (warm_up + runs) * ms - warm_up * before.get(name, ms)) / runs)
        for name, ms in after.items()
    ]


class _ProfiledOpenVino(OpenVinoSession):
    """A session whose layers are timed."""

    def _compile(self, batch: int) -> Any:
        self._model.reshape({INPUT_NAME: [batch, *self.frame_size, 3]})
        options = {**compile_options(self.threads, self._precision), "PERF_COUNT": True}
        return self._core.compile_model(self._model, "CPU", options).create_infer_request()

    @property
    def _single(self) -> Any:
        return self._requests[True]

    def mean_ms(self) -> dict[str, float]:
        """Return the milliseconds of each layer that runs, in the order of execution: the mean of all runs so far."""
        told = self._single.get_profiling_info()
        return {info.node_name: 1e3 * info.real_time.total_seconds() for info in told if info.status.name == "EXECUTED"}

    def executed_model(self) -> Any:
        """Return the graph that OpenVINO made of the model's."""
        return self._single.get_compiled_model().get_runtime_model()


def _labels(model: Any, producers: Mapping[str, str]) -> dict[str, str]:
    """Return {OpenVINO's name of a layer: what `profile_openvino` calls it}."""
    labels: dict[str, str] = {}
    nodes: dict[str, str] = {}  # by layer: text with the names of its nodes, or of those that read it
    for layer in reversed(model.get_ordered_ops()):
        name, information = layer.get_friendly_name(), layer.get_rt_info()
        originals = [text for text in information["originalLayersNames"].astype(str).split(",") if text]
        own = " + ".join(originals)
        behind = filter(None, (node_behind(text, producers) for text in originals))
        nodes[name] = own if named_nodes(own) else next(behind, "") or _of_readers(layer, nodes)
        kind = information["layerType"].astype(str)
        inferred = f"{own} ({nodes[name]})" if nodes[name] else own
        labels[name] = (own if named_nodes(own) else inferred) if own else f"{INSERTED} {kind} {name}"
    return labels


def _of_readers(layer: Any, nodes: Mapping[str, str]) -> str:
    """Return the nodes of the first layer that reads the result of `layer` and has some, "" where none has."""
    readers = (target.get_node() for output in layer.outputs() for target in output.get_target_inputs())
    return next((text for text in (nodes.get(reader.get_friendly_name(), "") for reader in readers) if text), "")
