"""Measure one detector in every CPU engine: python -m export.bench.cpu [MODEL.pt].

Without a checkpoint a seeded random model of `--encoder` and `--size` stands in: what a graph computes takes the
same time whatever its weights. Batch 1; all rows in one process, in turn, idle threads asleep.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.bench.cpu_engines import measure_in_turn
from export.bench.cpu_peak import possible_gflops
from export.bench.cpu_rows import ANOMALIB, UNFUSED, Row, make_rows
from export.fuse import probe_frames
from export.graph.onnx_files import ExportInfo
from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, load_checkpoint
from export.model.encoder import ENCODERS, calibrate_batch_norm
from export.model.score import freeze_constants
from export.to_onnx import info_of
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_text
from runtime.common.machine import available_cores
from runtime.engines.openvino_session import openvino_core
from runtime.engines.sidecar import Sidecar, Threshold

HEADER = (
    "",
    "p50 ms",
    "best",
    "x unfused",
    "x anomalib",
    "GFLOP",
    "GFLOP/s",
    "of possible",
    "full / encoder",
    "map error",
)
LEGEND = """\
p50: median over rounds; x: speed as a multiple of that row's, median over rounds
GFLOP: of the graph's convolutions and matrix products, a multiply-add as 2; GFLOP/s: in the best round
of possible: of what a large product of the row's type of operand reaches (INT8 rows keep some products in a wider type)
full / encoder: frames per second of the whole over those of its encoder alone, same engine and precision
map error: largest difference of the anomaly map from the unfused graph's, on one smooth random frame"""


@dataclass(frozen=True)
class Figures:
    """What was measured of one row; None where it does not apply. Ratios are medians over rounds."""

    name: str
    operands: str
    p50_ms: float
    best_ms: float
    times_unfused: float
    times_anomalib: float | None
    gflop: float
    gflops: float
    of_possible: float | None
    full_to_encoder: float | None
    map_error: float | None


@dataclass(frozen=True)
class Benchmark:
    """All rows, and the GFLOP/s that this machine can do by type of operand."""

    cpu: str
    threads: int
    rounds: int
    encoder: str
    input_size: tuple[int, int]
    possible_gflops: dict[str, float]
    rows: tuple[Figures, ...]


def random_checkpoint(encoder: str, size: tuple[int, int]) -> tuple[Checkpoint, ExportInfo]:
    """Return a detector with seeded random weights, batch norms set on random frames, and what its ONNX carries."""
    if encoder not in ENCODERS:
        raise UserError(f"the encoder must be one of {', '.join(ENCODERS)}", encoder)
    config = ModelConfig(encoder, ENCODERS[encoder].default_taps, size)
    threshold = {"random": Threshold(0.5 * len(config.taps), "half of the range")}
    sidecar = Sidecar(
        "random", size, 1, encoder, "random", config.taps, config.clamp, "random", threshold, config.score
    )
    info = ExportInfo(sidecar, config.coupling_blocks, config.conditional, config.soft_permutation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CFlow(config).eval()
    frames = torch.from_numpy(probe_frames(info))
    with torch.inference_mode():
        calibrate_batch_norm(model.encoder, iter([model.normalise(frames)]))
        constants = freeze_constants(model.log_likelihoods(frames), config.score)
    return Checkpoint(model.requires_grad_(False), constants, threshold, "random", "random", "0" * 64), info


def measure(
    checkpoint: Checkpoint, info: ExportInfo, threads: int, rounds: int, say: Callable[[str], None]
) -> Benchmark:
    """Measure every row that runs here; `say` takes a line on each that does not."""
    if threads < 1 or rounds < 1:
        raise UserError("threads and rounds must be 1 or more", f"{threads} and {rounds}")
    core = openvino_core()
    bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    cpu = core.get_property("CPU", "FULL_DEVICE_NAME").strip()
    rows = make_rows(checkpoint, info, threads, bfloat16, say)
    maps = [row.run(row.batch)[0] for row in rows]
    before = possible_gflops(threads, bfloat16)
    times = measure_in_turn([_bind(row) for row in rows], rounds)
    after = possible_gflops(threads, bfloat16)  # the better of two: something else may have run during one of them
    possible = {kind: max(rate, after[kind]) for kind, rate in before.items()}
    figures = summarise(rows, times, maps, possible)
    return Benchmark(cpu, threads, rounds, info.sidecar.encoder, info.sidecar.input_size, possible, figures)


def _bind(row: Row) -> Callable[[], Any]:
    return lambda: row.run(row.batch)


def summarise(
    rows: Sequence[Row], times: NDArray[np.float64], maps: Sequence[NDArray[Any]], possible: dict[str, float]
) -> tuple[Figures, ...]:
    """Return the figures of each row from its times (rounds, rows) in milliseconds and its anomaly map."""
    column = {row.name: index for index, row in enumerate(rows)}

    def speed(index: int, other: str) -> float | None:
        return float(np.median(times[:, column[other]] / times[:, index])) if other in column else None

    figures = []
    for index, row in enumerate(rows):
        best_ms = float(times[:, index].min())
        rate = 1e-6 * row.flops / best_ms  # as what is possible is the best of several rounds
        unfused = speed(index, UNFUSED)
        assert unfused is not None
        error = float(np.abs(maps[index] - maps[column[UNFUSED]]).max()) if row.judges else None
        figures.append(
            Figures(
                name=row.name,
                operands=row.operands,
                p50_ms=float(np.median(times[:, index])),
                best_ms=best_ms,
                times_unfused=unfused,
                times_anomalib=speed(index, ANOMALIB),
                gflop=1e-9 * row.flops,
                gflops=rate,
                of_possible=rate / possible[row.operands] if row.operands in possible else None,
                full_to_encoder=speed(index, row.encoder),
                map_error=error,
            )
        )
    return tuple(figures)


def table(benchmark: Benchmark) -> str:
    """Return the figures as aligned text."""
    cells: list[tuple[str, ...]] = [HEADER]
    for row in benchmark.rows:
        optional = (
            (row.times_anomalib, ".2f"),
            (row.gflop, ".2f"),
            (row.gflops, ".0f"),
            (row.of_possible, ".0%"),
            (row.full_to_encoder, ".2f"),
            (row.map_error, ".1e"),
        )
        figures = ("-" if value is None else f"{value:{form}}" for value, form in optional)
        cells.append((row.name, f"{row.p50_ms:.1f}", f"{row.best_ms:.1f}", f"{row.times_unfused:.2f}", *figures))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    height, width = benchmark.input_size
    possible = ", ".join(f"{kind} {rate:.0f}" for kind, rate in benchmark.possible_gflops.items())
    lines += [
        "",
        f"{benchmark.encoder} at {height}x{width}, batch 1, {benchmark.threads} threads, "
        f"{benchmark.rounds} rounds in turn, {benchmark.cpu}",
        f"possible GFLOP/s: {possible}",
        LEGEND,
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.bench.cpu", description="Measure one detector in every CPU engine, in turn."
    )
    parser.add_argument("model", type=Path, nargs="?", help="a checkpoint of train.fit (default: random weights)")
    parser.add_argument("--encoder", default="resnet18", help="of the random model (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=256, metavar="PX", help="side of the random model's input (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=available_cores(), metavar="N", help="default: all cores (%(default)s)"
    )
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    arguments = _parser().parse_args(argv)
    if arguments.model:
        checkpoint = load_checkpoint(arguments.model)
        info = info_of(checkpoint, arguments.model)
    else:
        checkpoint, info = random_checkpoint(arguments.encoder, (arguments.size, arguments.size))
    benchmark = measure(checkpoint, info, arguments.threads, arguments.runs, lambda line: print(line, file=sys.stderr))
    print(table(benchmark))
    if arguments.json:
        write_text(arguments.json, json.dumps(asdict(benchmark), indent=2) + "\n")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
