"""Ratios of rows that were measured in turn, as the tables show them."""

from collections.abc import Sequence

from runtime.report.schema import Row
from runtime.report.statistics import speed_ratio


def anchor_row(rows: Sequence[Row]) -> Row:
    """Return the row of a group that the others are compared with: CFLOW-AD in FP32, else the first."""
    return next((row for row in rows if row.kind == "cflow" and row.precision == "fp32"), rows[0])


def times_anchor(row: Row, anchor: Row) -> float | None:
    """Return a row's frames per second, frame to verdict, as a multiple of the anchor's."""
    return speed_ratio(anchor.verdict.rounds_ms, row.verdict.rounds_ms) if row.verdict and anchor.verdict else None


def full_to_encoder(row: Row, rows: Sequence[Row]) -> float | None:
    """Return CFLOW-AD's frames per second over those of its encoder alone, by the paper's clock, in one precision."""
    alone = next((other for other in rows if (other.kind, other.precision) == ("encoder", row.precision)), None)
    if row.kind != "cflow" or row.network is None or alone is None or alone.network is None:
        return None
    return speed_ratio(alone.network.rounds_ms, row.network.rounds_ms)


def paper_full_to_encoder(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the paper's figure for `full_to_encoder`."""
    alone = next((other.paper for other in rows if other.kind == "encoder" and other.paper), None)
    if row.kind != "cflow" or not (row.paper and alone and row.paper.fps and alone.fps):
        return None
    return row.paper.fps / alone.fps
