"""What this machine can do: the rate of large products in the engines of the report, and that of its memory.

On a GPU, where the products are plans, the memory is the device's, and the launch of a kernel is a limit, too.
"""

from collections.abc import Sequence
from contextlib import ExitStack
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
    on_device = any(product.compiled for product in products)
    with ExitStack() as stack:
        lanes = list(_lanes(products, base, bfloat16, on_device, stack))
        measure_in_turn([lane for _, _, lane in lanes], SECONDS, ROUNDS)
    gflops = _best_gflops(lanes)
    if not on_device:
        return Limits(gflops, round(bandwidth.read_gb_s(threads), 2), f"{HOW}; {bandwidth.HOW}")
    return _device_limits(gflops, base)


def _device_limits(gflops: dict[str, float], base: Subject) -> Limits | None:
    """Return the limits of a GPU with products of `gflops`; None where there is none, of which every row tells."""
    try:
        with Worker(replace(base, runner="device", paths={"copy": "", "launch": ""})) as worker:
            lanes = [Lane(worker, path) for path in worker.paths]
            measure_in_turn(lanes, SECONDS, ROUNDS)
            copy_ms, launch_ms = (min(lane.timing.samples_ms) for lane in lanes)
    except (UserError, ValueError):  # ValueError: no run of a lane
        return None
    return Limits(
        gflops,
        round(device_limits.gb_s(copy_ms), 2),
        f"{HOW_PLANS}; {device_limits.HOW}",
        round(device_limits.launch_us(launch_ms), 3),
    )


def _best_gflops(lanes: Sequence[tuple[str, float, Lane]]) -> dict[str, float]:
    gflops: dict[str, float] = {}
    for operands, flops, lane in lanes:
        if lane.failed:
            continue
        rate = 1e-6 * flops / min(lane.timing.samples_ms)
        gflops[operands] = round(max(rate, gflops.get(operands, 0.0)), 2)
    return gflops


def merged(first: Limits, second: Limits) -> Limits:
    """Return the better of two measurements of the same machine: something else may have run during one of them."""
    gflops = {kind: max(rate, second.gflops.get(kind, 0.0)) for kind, rate in first.gflops.items()}
    launches = [limits.launch_us for limits in (first, second) if limits.launch_us is not None]
    return replace(
        first, gflops=gflops, read_gb_s=max(first.read_gb_s, second.read_gb_s), launch_us=min(launches, default=None)
    )


def _lanes(
    products: Sequence[ModelEntry], base: Subject, bfloat16: bool, on_device: bool, stack: ExitStack
) -> list[tuple[str, float, Lane]]:
    lanes = []
    for product in products:
        assert product.work is not None
        ways: list[tuple[CpuPrecision, str]] = [("float32", product.work.operands)]
        if bfloat16 and product.precision == "fp32" and not on_device:
            ways.append(("bfloat16", "bfloat16"))
        for backend in ENGINES[:1] if on_device else ENGINES:  # a plan has a library of its own
            for precision, operands in ways:
                (subject,) = subjects_of(product, replace(base, backend=backend, precision=precision))
                try:
                    worker = stack.enter_context(Worker(subject))
                except UserError:  # an engine that is not installed, or has no such products: another one counts
                    continue
                lanes.append((operands, product.work.flops, Lane(worker, "network")))
    return lanes
