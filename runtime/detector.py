"""One object that judges frames: `with runtime.load("cable.plan") as detector: result = detector(frame)`."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.engines.backends import Backend, open_cpu_session
from runtime.engines.session import CpuPrecision, Frames, Maps, Pending, Scores, Session
from runtime.engines.sidecar import Sidecar, Threshold, read_sidecar
from runtime.images.preprocess import check_frame, resize
from runtime.result import Result, Verdict


class Detector(Closing):
    """Judges uint8 (H, W, 3) RGB frames with a loaded engine, one at a time or in batches.

    Frames of any size are resized as in training, unless the engine does that itself (`Sidecar.frame_size`). Such
    an engine's frames must be of that very size: one resized to it first would meet the network smoothed twice,
    which lowers scores and so hides defects (in a trial by 0.4 of the good images' spread from 720p to 1080p, by 2.4
    from 256x256).
    """

    def __init__(self, session: Session, sidecar: Sidecar, threshold: float | None = None) -> None:
        self.session = session
        self.sidecar = sidecar
        chosen = sidecar.threshold
        value = chosen.value if threshold is None else threshold
        self._limits = (value, value if chosen.map_value is None else chosen.map_value)
        if not math.isfinite(self.threshold):
            raise UserError(
                "the threshold must be a finite number", str(self.threshold), "see the sidecar's thresholds"
            )

    @property
    def threshold(self) -> float:
        """An image score above this is anomalous."""
        return self._limits[0]

    @property
    def map_threshold(self) -> float:
        """A position of the map above this is outside what good images show."""
        return self._limits[1]

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
        started = time.perf_counter()
        inputs = self._inputs(frames)
        if batch > len(frames):
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], batch - len(frames), axis=0)])
        prepared = time.perf_counter()
        return Submitted(self, self.session.submit(inputs), len(frames), started, prepared)

    def _judge(self, frames: Sequence[NDArray[np.uint8]]) -> list[Result]:
        started = time.perf_counter()
        inputs = self._inputs(frames)
        prepared = time.perf_counter()
        maps, scores = self.session.run(inputs)
        return self._results(maps, scores, self.session.stage_ms, started, prepared)

    def _inputs(self, frames: Sequence[NDArray[np.uint8]]) -> Frames:
        fitting = [self._fit(frame) for frame in frames]
        return fitting[0][None] if len(fitting) == 1 else np.stack(fitting)

    def _results(
        self, maps: Maps, scores: Scores, stage_ms: dict[str, float], started: float, prepared: float
    ) -> list[Result]:
        latency_ms = {
            "preprocess": 1e3 * (prepared - started),
            **stage_ms,
            "total": 1e3 * (time.perf_counter() - started),
        }
        return [
            self._result(anomaly_map, float(score), dict(latency_ms))
            for anomaly_map, score in zip(maps, scores, strict=True)
        ]

    def _fit(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.session.frame_size == self.session.input_size:
            return resize(frame, self.session.input_size)
        check_frame(frame)
        height, width = self.session.frame_size
        if frame.shape[:2] != (height, width):
            found = f"{frame.shape[0]}x{frame.shape[1]}"
            raise UserError(
                f"a frame must be {height}x{width} (height x width), which this engine resizes itself",
                found,
                f"rebuild with: python -m export.build_engine --frame-size {found}, or without for frames of any size",
            )
        return frame

    def _result(self, anomaly_map: NDArray[np.float32], score: float, latency_ms: dict[str, float]) -> Result:
        if not math.isfinite(score):  # a NaN compares as "not above the threshold" and would pass as good
            raise UserError("an image score must be finite", str(score), "build the engine with --fp32")
        threshold, map_threshold = self._limits
        verdict: Verdict = "anomalous" if score > threshold else "good"
        return Result(anomaly_map, score, verdict, threshold, map_threshold, latency_ms)

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        self.session.close()


class Submitted:
    """Frames whose judging was begun by `Detector.submit`."""

    def __init__(self, detector: Detector, pending: Pending, count: int, started: float, prepared: float) -> None:
        self._detector = detector
        self._pending = pending
        self._count = count
        self._started = started
        self._prepared = prepared

    def results(self) -> list[Result]:
        """Wait for the results and return them in the frames' order; "total" runs from `submit` to here. Once."""
        run = self._pending.result()
        maps, scores = run.maps[: self._count], run.scores[: self._count]
        return self._detector._results(maps, scores, run.stage_ms, self._started, self._prepared)

    def discard(self) -> None:
        """Give the results up; after `results` this does nothing."""
        self._pending.discard()


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    threshold: float | None = None,
    backend: Backend = "auto",
    precision: CpuPrecision = "float32",
    cuda_graph: bool = True,
) -> Detector:
    """Open the engine at `path`: a `.plan` with TensorRT, an `.onnx` with OpenVINO or ONNX Runtime on the CPU.

    Its sidecar (`cable.json` beside `cable.plan`) is read first and must describe this very file.
    `threshold` overrides the sidecar's. The rest concerns an `.onnx`: `threads` is the number of CPU threads
    (None: all cores), `backend` the library ("auto": OpenVINO where it is installed, else ONNX Runtime), and
    `precision` "bfloat16" trades exactness for speed where OpenVINO and the CPU have it. `cuda_graph` concerns a
    `.plan`: False launches its kernels one by one, as a profiler may want them.

    Raises `UserError` for a missing or foreign file, another suffix, or a machine that cannot run the engine so.
    """
    path = Path(path)
    if path.suffix not in (".plan", ".onnx"):
        raise UserError("an engine is a .plan or .onnx file", str(path), "build one with export.build_engine")
    if not path.is_file():
        raise UserError(f"{path} must exist", "no such file", "build it with export.build_engine")
    sidecar = read_sidecar(path)
    artefact = sidecar.artefact_of(path)
    if artefact.kind != path.suffix[1:]:
        raise UserError(f"{path.name} must be a {path.suffix[1:]}", f"a {artefact.kind}", "rename it back")
    session: Session
    if artefact.kind == "plan":
        from runtime.engines.trt.session import TensorRTSession

        if (backend, precision) != ("auto", "float32"):
            raise UserError(
                f"{path.name} is a plan: TensorRT runs it, in the precision that it was built with",
                f"backend {backend}, precision {precision}",
                "leave both out, or name an .onnx",
            )
        session = TensorRTSession(path, sidecar, artefact, cuda_graph=cuda_graph)
    else:
        session = open_cpu_session(path, threads, sidecar, backend, precision)
    try:
        return Detector(session, sidecar, threshold)
    except UserError:
        session.close()
        raise
