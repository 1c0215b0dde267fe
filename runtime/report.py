"""Measure engines side by side: python -m runtime.report [MODELS ...].

All engines are loaded into one process and take turns, round by round, so that a machine that grows hot or
busy slows all of them alike and the ratios stay. Latency is that from a frame in memory to its verdict.
"""

import argparse
import importlib.metadata
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import runtime
from runtime.backends import Backend, CpuPrecision, add_arguments, cpu_precision
from runtime.detector import Detector
from runtime.errors import UserError, run_command
from runtime.files import write_text
from runtime.report_format import FORMATS, Method, ModelReport, Report
from runtime.summary import PERCENTILES

FRAME_SEED = 0
SUFFIXES = (".onnx", ".plan")
LIBRARIES = ("numpy", "pillow", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
REPORT_FILES = {"text": "report.txt", "markdown": "report.md", "json": "report.json"}
MACHINE_NAME = Path("/proc/device-tree/model")  # boards such as Jetson say here what they are
PROCESSORS = Path("/proc/cpuinfo")

StageMs = dict[str, float]  # milliseconds of one run by stage; "verdict" is the whole of it, by the report's clock


@dataclass(frozen=True)
class Options:
    """How to measure: `runs` rounds after `warmup` that do not count, of `batch` frames; `threads` None: all cores.

    `backend` and `precision` say how an `.onnx` is run, as in `runtime.load`.
    """

    runs: int = 50
    warmup: int = 10
    batch: int = 1
    threads: int | None = None
    backend: Backend = "auto"
    precision: CpuPrecision = "float32"

    def __post_init__(self) -> None:
        """Raise `UserError` for numbers that measure nothing."""
        for name, least in (("runs", 1), ("warmup", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be {least} or more", str(getattr(self, name)))


@dataclass(frozen=True)
class Engine:
    """A loaded engine, the file it is from, and the frames that it is measured with."""

    path: Path
    detector: Detector
    frames: Sequence[NDArray[np.uint8]]


def make_report(paths: Sequence[Path], options: Options, *, skip_unusable: bool = False) -> Report:
    """Load all engines, measure them in turn, and return the figures in the order of `paths`.

    An engine that does not load or does not take the batch raises `UserError`; with `skip_unusable` it
    is named on stderr and left out, and only having none left raises.
    """
    with ExitStack() as stack:
        loaded = [_load(path, options, stack, skip_unusable) for path in paths]
        engines = [engine for engine in loaded if engine]
        if not engines:
            raise UserError("a report needs at least one engine that runs here", "none", "see what was left out")
        timings = _measure(engines, options)
        first_ms = [run["verdict"] for run in timings[0]]
        models = tuple(_summarise(engine, runs, first_ms) for engine, runs in zip(engines, timings, strict=True))
    return Report(_method(options), models)


def percentiles_ms(latencies_ms: Sequence[float]) -> dict[str, float]:
    """Return {"p50": ..., "p95": ..., "p99": ...} in milliseconds, interpolated linearly."""
    values = np.percentile(np.asarray(latencies_ms, np.float64), PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}


def speed_ratio(first_ms: Sequence[float], other_ms: Sequence[float]) -> float:
    """Return the other's speed as a multiple of the first's: the median over rounds of first / other.

    A ratio taken within a round cancels what both met in that round; a ratio of two medians would not.
    """
    return float(np.median(np.asarray(first_ms, np.float64) / np.asarray(other_ms, np.float64)))


def _load(path: Path, options: Options, stack: ExitStack, skip_unusable: bool) -> Engine | None:
    try:
        detector = stack.enter_context(_open(path, options))
        session = detector.session
        if options.batch > session.max_batch:
            raise UserError(f"{path.name} takes at most {session.max_batch} frames a run", f"--batch {options.batch}")
    except UserError as error:
        if not skip_unusable:
            raise
        print(f"left out {path.name}: {error}", file=sys.stderr)
        return None
    shape = (options.batch, *session.frame_size, 3)
    return Engine(path, detector, list(np.random.default_rng(FRAME_SEED).integers(0, 256, shape, np.uint8)))


def _open(path: Path, options: Options) -> Detector:
    if path.suffix == ".plan":  # it has its own library and precision, also beside an .onnx that has a choice
        return runtime.load(path)
    return runtime.load(path, threads=options.threads, backend=options.backend, precision=options.precision)


def _measure(engines: Sequence[Engine], options: Options) -> list[list[StageMs]]:
    """Return the stages of every measured run, by engine and round."""
    timings: list[list[StageMs]] = [[] for _ in engines]
    for number in tqdm(range(options.warmup + options.runs), desc="report", unit="round", disable=None):
        runs = [_run(engine) for engine in engines]
        if number >= options.warmup:
            for kept, run in zip(timings, runs, strict=True):
                kept.append(run)
    return timings


def _run(engine: Engine) -> StageMs:
    started = time.perf_counter()
    results = engine.detector.batch(engine.frames)
    verdict_ms = 1e3 * (time.perf_counter() - started)
    return {**results[0].latency_ms, "verdict": verdict_ms}


def _summarise(engine: Engine, runs: Sequence[StageMs], first_ms: Sequence[float]) -> ModelReport:
    metadata, verdict_ms = engine.detector.metadata, [run["verdict"] for run in runs]
    latency_ms = percentiles_ms(verdict_ms)
    return ModelReport(
        file=engine.path.name,
        precision=metadata.artefact_of(engine.path).precision,
        encoder=metadata.encoder,
        input_size=metadata.input_size,
        device=engine.detector.session.device,
        size_mb=engine.path.stat().st_size / 1e6,
        latency_ms=latency_ms,
        stage_p50_ms={stage: float(np.median([run[stage] for run in runs])) for stage in runs[0] if stage != "verdict"},
        fps=1e3 * len(engine.frames) / latency_ms["p50"],
        speed_ratio=speed_ratio(first_ms, verdict_ms),
    )


def _method(options: Options) -> Method:
    return Method(
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=_machine_name(),
        operating_system=_operating_system(),
        versions={"python": platform.python_version(), **_installed_versions()},
        threads=options.threads,
        runs=options.runs,
        warmup=options.warmup,
        batch=options.batch,
        frame_seed=FRAME_SEED,
    )


def _installed_versions() -> dict[str, str]:
    versions = {name: _installed_version(name) for name in LIBRARIES}
    return {name: version for name, version in versions.items() if version}


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _operating_system() -> str:
    """Return the system's name and version, and what it was compiled for."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not a Linux, or one that does not say
        name = f"{platform.system()} {platform.release()}"
    return f"{name} {platform.machine()}"


def _machine_name() -> str:
    """Return the board's or the processor's name, as far as the system tells."""
    if MACHINE_NAME.is_file():
        return MACHINE_NAME.read_text(errors="replace").strip("\0\n ")
    if PROCESSORS.is_file():
        for line in PROCESSORS.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def find_models(folder: Path) -> list[Path]:
    """Return the engines directly in `folder`, by name. Raises `UserError` if there is none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"{folder.resolve()} must hold engines (.onnx, .plan)", "none", "name them, or build one")
    return paths


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.txt, report.md and report.json into `folder`, each whole; return their paths."""
    paths = []
    for name, render in FORMATS.items():
        paths.append(folder / REPORT_FILES[name])
        write_text(paths[-1], render(report))
    return paths


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m runtime.report",
        description="Measure engines side by side: latency, frames per second, size, beside the paper's figures.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        metavar="MODELS",
        help=".onnx or .plan files; ratios refer to the first (default: all in the current folder)",
    )
    parser.add_argument(
        "--runs", type=int, default=defaults.runs, metavar="N", help="rounds that count (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup", type=int, default=defaults.warmup, metavar="N", help="rounds before those (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=defaults.batch, metavar="N", help="frames a run (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="what to print (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="also write report.txt, report.md and report.json here"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Measure, print the report, and write it where `--output` says."""
    arguments = _parser().parse_args(argv)
    options = Options(
        arguments.runs,
        arguments.warmup,
        arguments.batch,
        arguments.threads,
        arguments.backend,
        cpu_precision(arguments),
    )
    found = arguments.models or find_models(Path())
    report = make_report(found, options, skip_unusable=not arguments.models)
    print(FORMATS[arguments.format](report), end="")
    if arguments.output:
        for path in write_report(report, arguments.output):
            print(f"wrote {path}", file=sys.stderr)
    return None


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
