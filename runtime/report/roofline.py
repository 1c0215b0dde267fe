"""How near a row comes to what the machine can do: the larger of its operations' and its bytes' shortest time.

On a GPU the launches of its kernels come on top.
"""

from dataclasses import dataclass

from runtime.report.schema import Limits, Row, SweepPoint, Timing, Work


@dataclass(frozen=True)
class Roof:
    """The shortest time of one run on this machine, and the share of it that was reached.

    `bound` says which limit it is: "arithmetic", "bytes" or "launches". The rate is of the measured median.
    """

    floor_ms: float
    bound: str
    reached: float
    gflops: float


def timing_of(row: Row) -> Timing | None:
    """Return what a row's work is held against: encoder and decoders alone, else the whole way."""
    return row.network or row.verdict


def roof_of(row: Row, limits: Limits | None) -> Roof | None:
    """Return the roof over a row; None without its work, its time, or the limit for its type of operand."""
    return _roof(row.work, timing_of(row), row.kernels.get("network" if row.network else "verdict"), limits)


def roof_of_point(point: SweepPoint, limits: Limits | None) -> Roof | None:
    """Return the roof over a point of a sweep, as `roof_of` does."""
    return _roof(point.work, point.timing, point.kernels, limits)


def _roof(work: Work | None, timing: Timing | None, kernels: int | None, limits: Limits | None) -> Roof | None:
    if limits is None or work is None or timing is None or work.operands not in limits.gflops:
        return None
    flops = timing.batch * work.flops
    parts_ms = {
        "arithmetic": 1e-6 * flops / limits.gflops[work.operands],
        "bytes": 1e-6 * (work.weight_bytes + timing.batch * work.frame_bytes) / limits.read_gb_s,
        "launches": 1e-3 * (limits.launch_us or 0.0) * (kernels or 0),
    }
    # a product's operands can be read while others are multiplied, but no kernel runs while it is launched
    floor_ms = max(parts_ms["arithmetic"], parts_ms["bytes"]) + parts_ms["launches"]
    return Roof(floor_ms, max(parts_ms, key=parts_ms.__getitem__), floor_ms / timing.p50, 1e-6 * flops / timing.p50)
