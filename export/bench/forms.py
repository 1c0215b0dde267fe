"""Measure the fused graph's form against every alternative: python -m export.bench.forms.

Each alternative takes turns with the form in use, in the same process and on the same weights, so a ratio above 1
says how much slower it would be. Decoders alone for the choices inside them; the sum of the maps for the upsampling.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.bench.cpu_engines import Run, measure_in_turn, with_onnxruntime, with_openvino
from export.bench.decoder_forms import Form, Tap, decoders
from export.bench.upsampling_forms import UPSAMPLINGS, upsampling
from export.model.cflow import ModelConfig
from export.model.encoder import ENCODERS
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_text
from runtime.common.machine import available_cores
from runtime.engines.openvino_session import openvino_core

Clock = Callable[[], float]
ENCODERS_MEASURED = ("resnet18", "mobilenet_v3_large", "wide_resnet50_2")
ALTERNATIVES = {
    "Gemm on (positions, channels)": Form(layout="gemm"),
    "MatMul on (B, h, w, channels)": Form(layout="matmul"),
    "halves by Split": Form(halves="split"),
    "halves by two Slices": Form(halves="slices"),
    "no concatenation, a product for each half": Form(state="apart"),
    "one table of all positions": Form(position="one table"),
    "permutation joined with the next layer": Form(halves="split", joined=True),
    "a reduction for each log-determinant": Form(log_determinants="each"),
}


@dataclass(frozen=True)
class Figure:
    """An alternative's time as a multiple of the form in use, and that form's own milliseconds, by engine."""

    encoder: str
    size: int
    form: str
    nodes: int
    ratio: dict[str, float]
    in_use_ms: dict[str, float]


def figures(
    encoder: str, size: int, blocks: int, threads: int, rounds: int, clock: Clock = time.perf_counter
) -> Iterator[Figure]:
    """Yield the figure of each alternative for one encoder's taps at `size` x `size` pixels."""
    taps: list[Tap] = ModelConfig(encoder, ENCODERS[encoder].default_taps, (size, size)).tap_sizes
    flat = np.random.default_rng(0).standard_normal((1, sum(int(np.prod(tap)) for tap in taps))).astype(np.float32)
    graphs = {name: partial(decoders, form, taps, blocks) for name, form in ALTERNATIVES.items()}
    yield from _against(partial(decoders, Form(), taps, blocks), graphs, flat, (encoder, size), threads, rounds, clock)
    grids = [(height, width) for _, height, width in taps]
    flat = np.random.default_rng(0).random((1, sum(height * width for height, width in grids)), dtype=np.float32)
    used, *others = UPSAMPLINGS
    graphs = {f"upsampling by {name}": partial(upsampling, name, grids, (size, size)) for name in others}
    yield from _against(
        partial(upsampling, used, grids, (size, size)), graphs, flat, (encoder, size), threads, rounds, clock
    )


def _against(
    used: Callable[[], onnx.ModelProto],
    others: Mapping[str, Callable[[], onnx.ModelProto]],
    batch: NDArray[np.float32],
    subject: tuple[str, int],
    threads: int,
    rounds: int,
    clock: Clock,
) -> Iterator[Figure]:
    reference = _engines(used(), batch, threads)
    for name, make in others.items():
        model = make()
        engines = _engines(model, batch, threads)
        runs = [_bind(run, batch) for pair in zip(reference.values(), engines.values(), strict=True) for run in pair]
        times = measure_in_turn(runs, rounds, clock)
        ratios = np.median(times[:, 1::2] / times[:, ::2], axis=0)
        mine = np.median(times[:, ::2], axis=0)
        yield Figure(
            *subject,
            name,
            len(model.graph.node),
            dict(zip(engines, ratios.tolist(), strict=True)),
            dict(zip(engines, mine.tolist(), strict=True)),
        )


def _engines(model: onnx.ModelProto, batch: NDArray[np.float32], threads: int) -> dict[str, Run]:
    engines: dict[str, Run] = {"ONNX Runtime": with_onnxruntime(model, threads)}
    engines["OpenVINO"] = with_openvino(model, threads, "float32", batch.shape)
    if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engines["OpenVINO bfloat16"] = with_openvino(model, threads, "bfloat16", batch.shape)
    return engines


def _bind(run: Run, batch: NDArray[np.float32]) -> Callable[[], Any]:
    return partial(run, batch)


def line(figure: Figure) -> str:
    """Return a figure as a line of the table."""
    ratios = "  ".join(
        f"{engine} {ratio:5.2f} (of {figure.in_use_ms[engine]:8.2f} ms)" for engine, ratio in figure.ratio.items()
    )
    return f"{figure.encoder:<20} {figure.size:>4}  {figure.form:<42} {figure.nodes:>4} nodes  {ratios}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.bench.forms", description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", action="append", choices=ENCODERS, help="default: " + ", ".join(ENCODERS_MEASURED))
    parser.add_argument("--size", action="append", type=int, metavar="PX", help="default: 256 and 512")
    parser.add_argument("--blocks", type=int, default=8, help="coupling blocks (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores (%(default)s)")
    parser.add_argument("--runs", type=int, default=11, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU time, not the clock's: with --threads 1, on a machine that is busy",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    options = parser.parse_args(argv)
    if min(options.runs, options.threads, options.blocks, *(options.size or [1])) < 1:
        raise UserError("runs, threads, blocks and size must be 1 or more", "less")
    print("time as a multiple of the form in use (its own time in brackets), median over rounds in turn", flush=True)
    clock = time.process_time if options.cpu_time else time.perf_counter
    found = []
    for encoder in options.encoder or ENCODERS_MEASURED:
        for size in options.size or (256, 512):
            for figure in figures(encoder, size, options.blocks, options.threads, options.runs, clock):
                print(line(figure), flush=True)
                found.append(figure)
    if options.json:
        write_text(options.json, json.dumps([asdict(figure) for figure in found], indent=1) + "\n")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
