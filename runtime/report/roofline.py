"""How near a row comes to what the machine can do: the larger of its operations' and its bytes' shortest time."""

from dataclasses import dataclass

from runtime.report.schema import Limits, Row, Timing


@dataclass(frozen=True)
class Roof:
    """The shortest time of one frame on this machine, and the share of it that was reached.

    `bound` says which limit it is: "arithmetic" or "bytes". Rates are of the measured median.
    """

    floor_ms: float
    bound: str
    reached: float
    gflops: float
    gb_s: float


def timing_of(row: Row) -> Timing | None:
    """Return what a row's work is held against: encoder and decoders alone, else the whole way."""
    return row.network or row.verdict


def roof_of(row: Row, limits: Limits | None) -> Roof | None:
    """Return the roof over a row; None without its work, its time, or the limit for its type of operand."""
    timing = timing_of(row)
    if limits is None or row.work is None or timing is None or row.work.operands not in limits.gflops:
        return None
    arithmetic_ms = 1e-6 * row.work.flops / limits.gflops[row.work.operands]
    moved = row.work.weight_bytes + row.work.frame_bytes
    bytes_ms = 1e-6 * moved / limits.read_gb_s
    floor_ms = max(arithmetic_ms, bytes_ms)
    return Roof(
        floor_ms,
        "arithmetic" if arithmetic_ms >= bytes_ms else "bytes",
        floor_ms / timing.p50,
        1e-6 * row.work.flops / timing.p50,
        1e-6 * moved / timing.p50,
    )
