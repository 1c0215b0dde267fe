"""Ratios of rows that were measured in turn, as the tables show them, each with its noise."""

from collections.abc import Sequence

from runtime.report.schema import Row, Timing
from runtime.report.statistics import noise, round_ratios, speed_ratio

Ratio = tuple[float, float | None]  # and how far it moved under way, as a share; None if that is not known


def _ratio(first: Timing | None, other: Timing | None) -> Ratio | None:
    """Return the other's speed as a multiple of the first's; None where no round has both."""
    ratio = speed_ratio(first.rounds_ms, other.rounds_ms) if first and other else None
    return (ratio, noise(round_ratios(first.rounds_ms, other.rounds_ms))) if first and other and ratio else None


def anchor_row(rows: Sequence[Row]) -> Row:
    """Return the row of a group that the others are compared with: CFLOW-AD in FP32, else the first."""
    return next((row for row in rows if row.kind == "cflow" and row.precision == "fp32"), rows[0])


def times_anchor(row: Row, anchor: Row) -> Ratio | None:
    """Return a row's frames per second, frame to verdict, as a multiple of the anchor's."""
    return _ratio(anchor.verdict, row.verdict)


def full_to_encoder(row: Row, rows: Sequence[Row]) -> Ratio | None:
    """Return CFLOW-AD's frames per second over those of its encoder alone, by the paper's clock, in one precision."""
    alone = next((other for other in rows if (other.kind, other.precision) == ("encoder", row.precision)), None)
    return _ratio(alone.network, row.network) if alone and row.kind == "cflow" else None


def paper_full_to_encoder(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the paper's figure for `full_to_encoder`."""
    alone = next((other.paper for other in rows if other.kind == "encoder" and other.paper), None)
    known = row.kind == "cflow" and row.paper and alone and row.paper.fps and alone.fps
    return row.paper.fps / alone.fps if known else None  # type: ignore[union-attr,operator]
