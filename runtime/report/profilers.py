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
from runtime.engines.sidecar import INPUT_NAME, Sidecar, read_sidecar
from runtime.report.layers import INSERTED, LayerTime, group_layers, named_nodes
from runtime.report.onnx_nodes import node_behind, read_producers
from runtime.report.schema import Profile
from runtime.report.tensorrt_profiler import profile_tensorrt
from runtime.report.worker import ENGINES, frames_of

RUNS = 20
WARM_UP = 2  # runs that do not count
KERNEL_TIME = "_kernel_time"  # how ONNX Runtime ends the name of an event that is a layer's run


def profile(path: Path, backend: Backend = "auto", threads: int | None = None, runs: int = RUNS) -> Profile:
    """Return the time of one frame by part of the network, over `runs` runs of the engine at `path`.

    `backend` and `threads` (None: all cores) are of an `.onnx`, as in `runtime.load`; a `.plan` has its own library.
    Raises `UserError` as `runtime.load` does for what does not open here.
    """
    if runs < 1:
        raise UserError("a profile needs 1 run or more", str(runs))
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)
    if path.suffix == ".plan":
        engine = ENGINES.get(artefact.library, artefact.library)
        layers = profile_tensorrt(path, sidecar, runs)
    elif choose_backend(backend, "float32") == "openvino":
        with closing(ProfiledOpenVino(path, threads, sidecar)) as openvino:
            engine, layers = openvino.library, openvino_layers(openvino, path, runs)
    else:
        engine, layers = OnnxRuntimeSession.library, profile_onnxruntime(path, threads, sidecar, runs)
    return Profile(path.name, sidecar.input_size, engine, artefact.precision, group_layers(layers, sidecar.taps))


def profile_onnxruntime(path: Path, threads: int | None, sidecar: Sidecar, runs: int = RUNS) -> list[LayerTime]:
    """Return every layer that ONNX Runtime runs, in its order, with its median milliseconds per run of one frame.

    A layer that is called after its result has the node that makes it in parentheses. Raises `UserError` as
    `OnnxRuntimeSession` does.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(ProfiledOnnxRuntime(path, threads, sidecar, Path(folder))) as session,
    ):
        run_on_noise(session, WARM_UP + runs)
        events = session.events()
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME):
            key = event["name"].removesuffix(KERNEL_TIME), str(event["args"].get("node_index"))
            times.setdefault(key, []).append(event["dur"] / 1e3)
    producers = read_producers(path)
    return [(_with_node(name, producers), float(np.median(ms[-runs:]))) for (name, _), ms in times.items()]


def run_on_noise(session: CpuSession, runs: int) -> None:
    """Run on one frame of seeded random pixels."""
    frame = frames_of(1, session.frame_size)
    for _ in range(runs):
        session.run(frame)


def _with_node(name: str, producers: Mapping[str, str]) -> str:
    node = "" if named_nodes(name) else node_behind(name, producers)
    return f"{name} ({node})" if node else name


class ProfiledOnnxRuntime(OnnxRuntimeSession):
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


class ProfiledOpenVino(OpenVinoSession):
    """A session whose layers are timed."""

    def _compile(self, batch: int) -> Any:
        self._model.reshape({INPUT_NAME: [batch, *self.frame_size, 3]})
        options = {**compile_options(self.threads, self._precision), "PERF_COUNT": True}
        return self._core.compile_model(self._model, "CPU", options).create_infer_request()

    @property
    def single(self) -> Any:
        """What OpenVINO compiled for a batch of one."""
        return self._requests[True]

    def mean_ms(self) -> dict[str, float]:
        """Return the milliseconds of each layer that runs, in the order of execution: the mean of all runs so far."""
        told = self.single.get_profiling_info()
        return {info.node_name: 1e3 * info.real_time.total_seconds() for info in told if info.status.name == "EXECUTED"}


def openvino_layers(session: ProfiledOpenVino, path: Path, runs: int = RUNS) -> list[LayerTime]:
    """Return every layer that OpenVINO runs, in its order, with its mean milliseconds per run of one frame.

    `session`, fresh, is of the ONNX at `path`. A layer's name is its nodes', and `layers.INSERTED` and its type for
    one that OpenVINO put in itself. What OpenVINO made of a node and calls after none has the nodes that read it in
    parentheses.
    """
    run_on_noise(session, WARM_UP)
    before = session.mean_ms()
    run_on_noise(session, runs)
    labels = _labels(session.single.get_compiled_model().get_runtime_model(), read_producers(path))
    return [
        # OpenVINO's figure is the mean of all runs since the graph was compiled
        (labels.get(name, name), max(0.0, (WARM_UP + runs) * ms - WARM_UP * before.get(name, ms)) / runs)
        for name, ms in session.mean_ms().items()
    ]


def _labels(model: Any, producers: Mapping[str, str]) -> dict[str, str]:
    """Return {OpenVINO's name of a layer: what `openvino_layers` calls it} of the graph that OpenVINO made."""
    labels: dict[str, str] = {}
    nodes: dict[str, str] = {}  # by layer: text with the names of its nodes, or of those that read it
    for layer in reversed(model.get_ordered_ops()):
        name, information = layer.get_friendly_name(), layer.get_rt_info()
        originals = [text for text in information["originalLayersNames"].astype(str).split(",") if text]
        own = " + ".join(originals)
        behind = filter(None, (node_behind(text, producers) for text in originals))
        readers = [target.get_node() for output in layer.outputs() for target in output.get_target_inputs()]
        of_readers = filter(None, (nodes.get(reader.get_friendly_name(), "") for reader in readers))
        nodes[name] = own if named_nodes(own) else next(behind, "") or next(of_readers, "")
        inferred = f"{own} ({nodes[name]})" if nodes[name] and not named_nodes(own) else own
        labels[name] = inferred if own else f"{INSERTED} {information['layerType'].astype(str)} {name}"
    return labels
