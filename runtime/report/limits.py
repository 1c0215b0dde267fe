"""What this machine can do: the rate of large products in the engines of the report, and that of its memory.

On a GPU, where the products are plans, the memory is the device's, and the launch of a kernel is a limit, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from runtime.common.errors import UserError
from runtime.engines.backends import Backend
from runtime.engines.session import CpuPrecision
from runtime.report import bandwidth, device_limits
from runtime.report.models import ModelEntry
from runtime.report.rounds import Lane, measure_in_turn
from runtime.report.schema import Limits
from runtime.report.worker import Subject
from runtime.report.workers import Worker, subjects_of

SECONDS = 4.0
ROUNDS = 30
HOW = "GFLOP/s: the best run of a 1024 x 1024 x 1024 product in the engines that are here"
HOW_PLANS = "GFLOP/s: the best run of large 1 x 1 convolutions"
ENGINES: tuple[Backend, ...] = ("onnxruntime", "openvino")


def measure_limits(products: Sequence[ModelEntry], base: Subject, threads: int, bfloat16: bool) -> Limits | None:
    """Run the large products in every engine that is here, and read memory; None without products.

    The best run counts, not the median: a limit is what can be reached. No one engine will do, since some do not use
    all that a processor has.
    """
    if not products:
        return None
    gflops: dict[str, float] = {}
    with ExitStack() as stack:
        lanes = []
        for operands, flops, subject in _ways(products, base, bfloat16):
            with suppress(UserError):  # an engine that is not installed, or has no such products: another one counts
                lanes.append((operands, flops, Lane(stack.enter_context(Worker(subject)), "network")))
        measure_in_turn([lane for _, _, lane in lanes], SECONDS, ROUNDS)
    for operands, flops, lane in lanes:
        if not lane.failed:
            rate = round(1e-6 * flops / min(lane.timing.samples_ms), 2)
            gflops[operands] = max(rate, gflops.get(operands, 0.0))
    if any(product.compiled for product in products):
        return _device_limits(gflops, base)
    return Limits(gflops, round(bandwidth.read_gb_s(threads), 2), f"{HOW}; {bandwidth.HOW}")


def _ways(products: Sequence[ModelEntry], base: Subject, bfloat16: bool) -> Iterator[tuple[str, float, Subject]]:
    """Yield the operands, the operations and the subject of every product in every way to run it."""
    for product in products:
        assert product.work is not None
        precisions: list[tuple[CpuPrecision, str]] = [("float32", product.work.operands)]
        if bfloat16 and product.precision == "fp32" and not product.compiled:
            precisions.append(("bfloat16", "bfloat16"))
        for backend in ENGINES[:1] if product.compiled else ENGINES:  # a plan has a library of its own
            for precision, operands in precisions:
                (subject,) = subjects_of(product, replace(base, backend=backend, precision=precision))
                yield operands, product.work.flops, subject


def _device_limits(gflops: dict[str, float], base: Subject) -> Limits | None:
    """Return the limits of a GPU with products of `gflops`; None where there is none, of which every row tells."""
    try:
        with Worker(replace(base, runner="device", paths={"copy": "", "launch": ""})) as worker:
            lanes = [Lane(worker, path) for path in worker.paths]
            measure_in_turn(lanes, SECONDS, ROUNDS)
            copy_ms, launch_ms = (min(lane.timing.samples_ms) for lane in lanes)
    except (UserError, ValueError):  # ValueError: no run of a lane
        return None
    rate, launch_us = round(device_limits.gb_s(copy_ms), 2), round(device_limits.launch_us(launch_ms), 3)
    return Limits(gflops, rate, f"{HOW_PLANS}; {device_limits.HOW}", launch_us)


def merged(first: Limits, second: Limits) -> Limits:
    """Return the better of two measurements of the same machine: something else may have run during one of them."""
    gflops = {kind: max(rate, second.gflops.get(kind, 0.0)) for kind, rate in first.gflops.items()}
    launches = [limits.launch_us for limits in (first, second) if limits.launch_us is not None]
    return replace(
        first, gflops=gflops, read_gb_s=max(first.read_gb_s, second.read_gb_s), launch_us=min(launches, default=None)
    )
