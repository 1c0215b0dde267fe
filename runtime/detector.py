"""One object that judges frames: `with runtime.load("cable.plan") as detector: result = detector(frame)`."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.engines.backends import Backend, open_cpu_session
from runtime.engines.golden import WrongScores, check_golden
from runtime.engines.remote.address import EngineAt, RemoteEngine, engine_at
from runtime.engines.remote.options import ServerOptions
from runtime.engines.session import CpuPrecision, Frames, Pending, Run, Session, Unanswered
from runtime.engines.sidecar import Artefact, Sidecar, Threshold, read_hashed_sidecar
from runtime.engines.thresholds import on_scale
from runtime.images.facts import unfit
from runtime.images.preprocess import check_frame, resize_for_engine
from runtime.result import Result, result_of


@dataclass(frozen=True)
class Moments:
    """When the frames came and when they were ready for the session, in seconds of `time.perf_counter`."""

    started: float
    prepared: float


@dataclass(frozen=True)
class Hashes:
    """The SHA-256 of what a detector was loaded from, as hex digits; empty where it is of no file."""

    engine: str = ""
    sidecar: str = ""


class Detector(Closing):
    """Judges uint8 (H, W, 3) RGB frames with a loaded engine, one at a time or in batches.

    Frames of any size are resized as in training, unless the engine does that itself (`Sidecar.frame_size`). Such
    an engine's frames must be of that very size: one resized to it first would meet the network smoothed twice,
    which lowers scores and so hides defects (in a trial by 0.4 of the good images' spread from 720p to 1080p, by 2.4
    from 256x256). Nor are frames resized for one that cuts them into tiles (`Sidecar.tiles`).
    """

    def __init__(
        self, session: Session, sidecar: Sidecar, threshold: float | None = None, hashes: Hashes | None = None
    ) -> None:
        self.session = session
        self.sidecar = sidecar
        self.hashes = hashes or Hashes()
        self.sidecar_in_force = self.hashes.sidecar  # another one once a threshold was written into it
        chosen = sidecar.threshold
        value = chosen.value if threshold is None else threshold
        self._limits = (value, value if chosen.map_value is None else chosen.map_value)
        on_scale(Threshold(self._limits[0], "", map_value=self._limits[1]), sidecar.score_maximum)

    @property
    def threshold(self) -> float:
        """An image score above this is anomalous."""
        return self._limits[0]

    @property
    def map_threshold(self) -> float:
        """A position of the map above this is outside what good images show."""
        return self._limits[1]

    def described(self) -> dict[str, Any]:
        """Return what a run's record says of it (`runtime.records.run.RunRecord`), as its fields."""
        return {
            "engine_sha256": self.hashes.engine,
            "sidecar_sha256": self.hashes.sidecar,
            "device": self.session.device,
            "threshold": self.threshold,
            "map_threshold": self.map_threshold,
        }

    def beside(self, threshold: Threshold) -> "Detector":
        """Return a detector of the same engine that judges by `threshold`; only one of them has to be closed.

        Raises `UserError` for one that is not on the score's scale.
        """
        other = Detector(self.session, self.sidecar, None, self.hashes)
        other.sidecar_in_force = self.sidecar_in_force
        other.use(on_scale(threshold, self.sidecar.score_maximum))
        return other

    def use(self, threshold: Threshold) -> None:
        """Judge by `threshold` from the next result on; any thread may call this while another one judges."""
        self._limits = (threshold.value, threshold.for_map)  # one assignment: no result sees half of it

    def __call__(self, frame: NDArray[np.uint8]) -> Result:
        """Judge one frame. Raises `UserError` unless it is uint8 (H, W, 3) of a size that the engine can judge."""
        return self._judge([frame])[0]

    def batch(self, frames: Sequence[NDArray[np.uint8]]) -> list[Result]:
        """Judge many frames, as many at a time as the engine takes. Raises `UserError` as a call does."""
        step = self.session.max_batch
        return [result for i in range(0, len(frames), step) for result in self._judge(frames[i : i + step])]

    def stream(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[Result]:
        """Judge frame after frame, the copy of the next one beside the execution of this one.

        Results come in the order of `frames` and equal those of a call for each. On a GPU one is yielded when the
        frame after it has been taken; take a live camera's frames with a call each where that would be late.
        """
        under_way: deque[Submitted] = deque()
        try:
            for frame in frames:
                under_way.append(self.submit([frame]))
                if len(under_way) == self.session.slots:
                    yield under_way.popleft().results()[0]
            while under_way:
                yield under_way.popleft().results()[0]
        finally:  # also where the caller takes no more
            for submitted in under_way:
                submitted.discard()

    def submit(self, frames: Sequence[NDArray[np.uint8]], batch: int = 0) -> "Submitted":
        """Begin to judge 1 to `session.max_batch` frames in one run and return at once where the session can.

        With a `batch` above their number the last is repeated up to that, for sessions that want it constant.
        At most `session.slots` may be under way. Raises `UserError` as a call does.
        """
        inputs, reasons, moments = self._prepare(frames, batch)
        return Submitted(self, self.session.submit(inputs), reasons, moments)

    def _judge(self, frames: Sequence[NDArray[np.uint8]]) -> list[Result]:
        inputs, reasons, moments = self._prepare(frames)
        try:
            maps, scores = self.session.run(inputs)
        except Unanswered as unanswered:
            return self._without(str(unanswered), reasons, moments)
        return self._results(Run(maps, scores, self.session.stage_ms), reasons, moments)

    def _prepare(self, frames: Sequence[NDArray[np.uint8]], batch: int = 0) -> tuple[Frames, list[str], Moments]:
        """Return the session's input, why each frame can have no verdict (empty: it can), and when that was done."""
        started = time.perf_counter()
        fitting = [self._fit(frame) for frame in frames]
        fitting += fitting[-1:] * (batch - len(frames))
        inputs = fitting[0][None] if len(fitting) == 1 else np.stack(fitting)
        facts = self.sidecar.image_facts
        reasons = [unfit(frame, facts) if facts is not None else "" for frame in frames]
        return inputs, reasons, Moments(started, time.perf_counter())

    def _results(self, run: Run, reasons: Sequence[str], moments: Moments) -> list[Result]:
        """Return the results of the first frames of `run`, one for each of `reasons`."""
        latency_ms = {
            "preprocess": 1e3 * (moments.prepared - moments.started),
            **run.stage_ms,
            "total": 1e3 * (time.perf_counter() - moments.started),
        }
        judged = zip(run.maps, run.scores, reasons, strict=False)  # a batch may have been filled up
        return [
            self._result(anomaly_map, float(score), reason, dict(latency_ms)) for anomaly_map, score, reason in judged
        ]

    def _without(self, why: str, reasons: Sequence[str], moments: Moments) -> list[Result]:
        """Return the results, one for each of `reasons`, of frames that got no answer."""
        preprocess_ms = 1e3 * (moments.prepared - moments.started)
        latency_ms = {"preprocess": preprocess_ms, "total": 1e3 * (time.perf_counter() - moments.started)}
        empty = np.zeros(self.session.input_size, np.float32)
        return [
            Result(empty.copy(), math.nan, "none", *self._limits, dict(latency_ms), reason or why) for reason in reasons
        ]

    def check(self, frame: NDArray[np.uint8]) -> None:
        """Raise `UserError` unless `frame` is uint8 (H, W, 3) of a size that the engine can judge."""
        check_frame(frame)
        height, width = self.session.frame_size
        tiles = self.sidecar.tiles
        if tiles is not None and frame.shape[:2] != (height, width):
            raise UserError(
                f"a frame must be {height}x{width} (height x width), which this engine cuts into {tiles.count} tiles",
                f"{frame.shape[0]}x{frame.shape[1]}",
                "give the camera's own frames, or a region of that size by --roi; resized ones hide small defects",
            )
        if self.session.frame_size != self.session.input_size and frame.shape[:2] != (height, width):
            found = f"{frame.shape[0]}x{frame.shape[1]}"
            raise UserError(
                f"a frame must be {height}x{width} (height x width), which this engine resizes itself",
                found,
                f"rebuild with: python -m export.build_engine --frame-size {found}, or without for frames of any size",
            )

    def _fit(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.check(frame)
        resizes = self.session.frame_size != self.session.input_size  # itself
        return frame if resizes else resize_for_engine(frame, self.session.input_size)

    def _result(
        self, anomaly_map: NDArray[np.float32], score: float, reason: str, latency_ms: dict[str, float]
    ) -> Result:
        result = result_of(anomaly_map, score, self._limits, latency_ms, self.sidecar.score_maximum)
        return result.without_verdict(reason) if reason else result

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        self.session.close()


class Submitted:
    """Frames whose judging was begun by `Detector.submit`."""

    def __init__(self, detector: Detector, pending: Pending, reasons: Sequence[str], moments: Moments) -> None:
        self._detector = detector
        self._pending = pending
        self._reasons = reasons
        self._moments = moments

    def results(self) -> list[Result]:
        """Wait for the results and return them in the frames' order; "total" runs from `submit` to here. Once."""
        try:
            run = self._pending.result()
        except Unanswered as unanswered:
            return self._detector._without(str(unanswered), self._reasons, self._moments)
        return self._detector._results(run, self._reasons, self._moments)

    def discard(self) -> None:
        """Give the results up; after `results` this does nothing."""
        self._pending.discard()


def load(
    path: str | EngineAt,
    *,
    threads: int | None = None,
    threshold: float | None = None,
    backend: Backend = "auto",
    precision: CpuPrecision = "float32",
    cuda_graph: bool = True,
    server: ServerOptions | None = None,
) -> Detector:
    """Open the engine at `path`: a `.plan` with TensorRT, an `.onnx` with OpenVINO or ONNX Runtime.

    `path` may be the address of an engine on a server too (grpc://HOST:8001/cable), spoken to as `server` says: then
    the rest but `threshold` is the server's business.

    `path` may be the address of an engine on a server too (grpc://HOST:8001/cable), spoken to as `server` says: then
    the rest but `threshold` is the server's business.

    Its sidecar (`cable.json` beside `cable.plan`) is read first and must describe this very file.
    `threshold` overrides the sidecar's. The rest concerns an `.onnx`: `threads` is the number of CPU threads
    (None: all cores), `backend` the library ("auto": OpenVINO where it is installed and gives the sidecar's golden
    frames their scores, else ONNX Runtime; "onnxruntime-rtx": TensorRT-RTX on an RTX GPU), and
    `precision` "bfloat16" trades exactness for speed where OpenVINO and the CPU have it. `cuda_graph` concerns a
    `.plan`: False launches its kernels one by one, as a profiler may want them.

    Raises `UserError` for a missing or foreign file, another suffix, or a machine that cannot run the engine so.
    """
    path = engine_at(path)
    if isinstance(path, RemoteEngine):
        return _load_remote(path, server or ServerOptions(), threshold)
    if path.suffix not in (".plan", ".onnx"):
        raise UserError("an engine is a .plan or .onnx file", str(path), "build one with export.build_engine")
    if not path.is_file():
        raise UserError(f"{path} must exist", "no such file", "build it with export.build_engine")
    sidecar, digest = read_hashed_sidecar(path)
    artefact = sidecar.artefact_of(path)
    described = Described(sidecar, artefact, Hashes(artefact.sha256, digest))
    if artefact.kind != path.suffix[1:]:
        raise UserError(f"{path.name} must be a {path.suffix[1:]}", f"a {artefact.kind}", "rename it back")
    if artefact.kind == "plan":
        if (backend, precision) != ("auto", "float32"):
            raise UserError(
                f"{path.name} is a plan: TensorRT runs it, in the precision that it was built with",
                f"backend {backend}, precision {precision}",
                "leave both out, or name an .onnx",
            )
        from runtime.engines.trt.session import TensorRTSession

        return _checked(TensorRTSession(path, sidecar, artefact, cuda_graph=cuda_graph), described, threshold)
    try:
        session = open_cpu_session(path, threads, sidecar, backend, precision, artefact.sha256)
        return _checked(session, described, threshold, precision)
    except WrongScores as wrong:
        if backend != "auto" or precision != "float32" or session.library == "ONNX Runtime":
            raise
        say(f"{session.library} is left out for {path.name}: {wrong}")
    return load(path, threads=threads, threshold=threshold, backend="onnxruntime")


def _load_remote(engine: RemoteEngine, options: ServerOptions, threshold: float | None) -> Detector:
    from runtime.engines.remote.opened import open_remote

    session, served = open_remote(engine, options)
    try:
        return Detector(session, served.sidecar, threshold, Hashes(served.engine, served.sidecar_sha256))
    except UserError:
        session.close()
        raise


@dataclass(frozen=True)
class Described:
    """An engine file as its sidecar describes it."""

    sidecar: Sidecar
    artefact: Artefact
    hashes: Hashes


def _checked(
    session: Session, described: Described, threshold: float | None, precision: CpuPrecision = "float32"
) -> Detector:
    """Return the detector of a session that gives the golden frames their scores; any other is closed and refused.

    The session has run by then: no user's frame waits for what the first run compiles and allocates.
    """
    sidecar, artefact = described.sidecar, described.artefact
    try:
        computed = "bf16" if precision == "bfloat16" else ""
        golden = sidecar.golden if session.frame_size == sidecar.engine_frame_size else None
        checked = golden is not None and check_golden(session, golden, artefact.precision, computed)
        if not checked and artefact.kind == "onnx":  # a plan's session has run when it was opened
            session.run(np.zeros((1, *session.frame_size, 3), np.uint8))
        return Detector(session, sidecar, threshold, described.hashes)
    except UserError:
        session.close()
        raise
