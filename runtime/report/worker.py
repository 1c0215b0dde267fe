"""A process that has one model open and runs it when told to: `python -m runtime.report.worker SUBJECT`.

One process for each model keeps memory, threads and the time to a first verdict its own. The report writes requests
to its standard input, a JSON object a line, and reads the answers from what was its standard output; anything that a
library prints goes to standard error.

    {"path": "verdict", "batch": 1, "warm": 1, "count": 3}  ->  {"runs": [{"verdict": 21.4, "execute": 21.1}, ...]}
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.engines.backends import Backend, choose_backend
from runtime.engines.session import CpuPrecision
from runtime.report.schema import parse

FRAME_SEED = 0
ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
ENGINES |= {"tensorrt_rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
PROCESS_STATUS = Path("/proc/self/status")
StageMs = dict[str, float]  # milliseconds of one run by stage; its path's name is the whole, by this process's clock
RunBatch = Callable[[int], StageMs]


@dataclass(frozen=True)
class Subject:
    """What a worker opens: paths by what they time ("network", "verdict"), and how they are run."""

    runner: str
    paths: dict[str, str]
    input_size: tuple[int, int]
    threads: int | None = None
    backend: Backend = "auto"
    precision: CpuPrecision = "float32"
    what: str = ""
    features: str | None = None
    input_shape: tuple[int, ...] | None = None  # of float32 images; None: frames
    cuda_graph: bool = True

    def to_text(self) -> str:
        """Return the subject as the worker's argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Subject":
        """Return what `to_text` was made from."""
        subject: Subject = parse(cls, json.loads(text))
        return subject


@dataclass(frozen=True)
class Opened:
    """An open model: how to run it by what is timed, where it runs and the most frames that it takes at once.

    `kernels` and `device_bytes` are those of a plan: what an execution launches, and what it takes of a GPU's memory.
    """

    runs: Mapping[str, RunBatch]
    device: str
    engine: str
    max_batch: int = 1
    close: Callable[[], None] = field(default=lambda: None)
    kernels: int | None = None
    device_bytes: int | None = None


@lru_cache(maxsize=2)
def frames_of(batch: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return `batch` frames (B, H, W, 3) of seeded random pixels, the first ones always the same."""
    return np.random.default_rng(FRAME_SEED).integers(0, 256, (batch, *size, 3), np.uint8)


def open_subject(subject: Subject) -> Opened:
    """Open an engine, a part of one, or the device itself. Raises `UserError` where this machine cannot."""
    if subject.runner == "device":
        return _open_device()
    (path,) = set(map(Path, subject.paths.values()))
    if subject.runner == "engine":
        return _open_engine(subject, path)
    return _open_plan_part(path) if path.suffix == ".plan" else _open_graph(subject, path)


def _open_engine(subject: Subject, path: Path) -> Opened:
    import runtime

    if path.suffix == ".plan":  # it has its own library and precision
        detector = runtime.load(path, cuda_graph=subject.cuda_graph)
    else:
        detector = runtime.load(path, threads=subject.threads, backend=subject.backend, precision=subject.precision)
    size = detector.session.frame_size

    def run(batch: int) -> StageMs:
        frames = list(frames_of(batch, size))
        started = time.perf_counter()
        results = detector.batch(frames)
        return {**results[0].latency_ms, "verdict": 1e3 * (time.perf_counter() - started)}

    return _opened({"verdict": run}, detector.session, detector.close)


def _opened(runs: Mapping[str, RunBatch], session: Any, close: Callable[[], None]) -> Opened:
    kernels, device_bytes = (getattr(session, name, None) for name in ("kernels", "device_bytes"))  # of a plan's only
    device = session.device
    return Opened(runs, device, _engine_of(device), session.max_batch, close, kernels, device_bytes)


def _engine_of(device: str) -> str:
    """Return the library of a session's description, without its version: "OpenVINO", "ONNX Runtime", "TensorRT"."""
    words = {**ENGINES, **{name: name for name in ENGINES.values()}}
    return next((name for word, name in words.items() if word in device), device)


def _open_plan_part(path: Path) -> Opened:
    """Open the plan of a part of an engine.

    Its network's time is the device's, what the paper timed has no copies either; its whole way begins with the frames
    in the host's memory and ends with the results on the device, where a decoder would read them.
    """
    from runtime.engines.sidecar import read_sidecar
    from runtime.engines.trt.session import TensorRTSession

    sidecar = read_sidecar(path)
    session = TensorRTSession(path, sidecar, sidecar.artefact_of(path), judges=False)
    session.execute(frames_of(session.max_batch, session.frame_size))  # they stay there for the network's runs

    def network(batch: int) -> StageMs:
        return {"network": session.execute_ms(batch)}

    def verdict(batch: int) -> StageMs:
        frames = frames_of(batch, session.frame_size)
        started = time.perf_counter()
        session.execute(frames)
        return {"verdict": 1e3 * (time.perf_counter() - started)}

    return _opened({"network": network, "verdict": verdict}, session, session.close)


def _open_device() -> Opened:
    """Open the device itself, for what no network gets around there."""
    from runtime.engines.trt import cuda
    from runtime.report.device_limits import open_device

    probe = open_device()
    runs = {"copy": lambda _: {"copy": probe.copy_ms()}, "launch": lambda _: {"launch": probe.launch_ms()}}
    return Opened(runs, cuda.device_name(), "CUDA", close=probe.close)


def _open_graph(subject: Subject, path: Path) -> Opened:
    from runtime.common.machine import available_cores
    from runtime.engines.any_onnx import open_onnxruntime, open_openvino

    threads = available_cores() if subject.threads is None else subject.threads
    shape = subject.input_shape
    images = None if shape is None else np.random.default_rng(FRAME_SEED).random(shape, np.float32)
    batch: NDArray[Any] = frames_of(1, subject.input_size) if images is None else images
    library = choose_backend(subject.backend, subject.precision)
    (name,) = subject.paths
    graph = (
        open_openvino(str(path), threads, subject.precision, batch.shape)
        if library == "openvino"
        else open_onnxruntime(str(path), threads)
    )

    def run(_: int) -> StageMs:
        started = time.perf_counter()
        graph(batch)
        return {name: 1e3 * (time.perf_counter() - started)}

    return Opened({name: run}, f"{ENGINES[library]} CPU, {threads} threads", ENGINES[library])


def serve(text: str, open_it: Callable[[Subject], Opened] = open_subject) -> int:
    """Open what `text` describes and answer requests until standard input ends; the exit status."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # from here on for answers only:
    os.dup2(2, 1)  # prints go to standard error
    try:
        started = time.perf_counter()
        opened = open_it(Subject.from_text(text))
        for run in opened.runs.values():
            run(1)
        first_s = time.perf_counter() - started
        _say(
            answers,
            device=opened.device,
            engine=opened.engine,
            max_batch=opened.max_batch,
            paths=list(opened.runs),
            first_verdict_s=first_s,
            memory_mb=peak_memory_mb(),
            kernels=opened.kernels,
            device_memory_mb=None if opened.device_bytes is None else opened.device_bytes / 1e6,
        )
        for line in sys.stdin:
            request = json.loads(line)
            run, batch = opened.runs[request["path"]], int(request["batch"])
            runs = [run(batch) for _ in range(request["warm"] + request["count"])]
            _say(answers, runs=runs[request["warm"] :])
        opened.close()
    except UserError as error:
        _say(answers, error=str(error))
    except (BrokenPipeError, KeyboardInterrupt):  # the report has ended, or is told to
        return 1
    return 0


def _say(answers: IO[str], **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def peak_memory_mb(status: Path = PROCESS_STATUS) -> float | None:
    """Return the most memory that this process had resident, in 10^6 bytes; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
