"""What a report says in sentences: ratios of rows that were measured in turn, with the paper's beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime.report.models import BASELINE_KINDS, FORM_KINDS
from runtime.report.schema import Report, Row, Timing
from runtime.report.statistics import noise, round_ratios, speed_ratio

OTHER_FORMS = ("eager", "unfused", "anomalib-cflow", "anomalib-efficientad")


@dataclass(frozen=True)
class Finding:
    """One ratio: `text`, with braces where it goes, names it in every report; `noise` is how far it may move by
    itself, as a share, None if not known; `paper` is the paper's own figure where it has one.
    """

    text: str
    ratio: float
    noise: float | None = 0.0
    paper: float | None = None

    @property
    def sentence(self) -> str:
        """The finding for a person."""
        paper = f" (the paper: {_short(self.paper)})" if self.paper is not None else ""
        return f"{self.text.format(_short(self.ratio))}{paper}"


def _short(ratio: float) -> str:
    """Return a ratio with two decimals below 10, none from 100 on."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def anchor_row(rows: Sequence[Row]) -> Row:
    """Return the row of a group that the others are compared with: CFLOW-AD in FP32, else the first."""
    return next((row for row in rows if row.kind == "cflow" and row.precision == "fp32"), rows[0])


def times_anchor(row: Row, anchor: Row) -> float | None:
    """Return a row's frames per second, frame to verdict, as a multiple of the anchor's."""
    return speed_ratio(anchor.verdict.rounds_ms, row.verdict.rounds_ms) if row.verdict and anchor.verdict else None


def full_to_encoder(row: Row, rows: Sequence[Row]) -> float | None:
    """Return CFLOW-AD's frames per second over those of its encoder alone, by the paper's clock, in one precision."""
    alone = _encoder_timing(row, rows)
    if row.kind != "cflow" or row.network is None or alone is None:
        return None
    return speed_ratio(alone.rounds_ms, row.network.rounds_ms)


def _encoder_timing(row: Row, rows: Sequence[Row]) -> Timing | None:
    """Return the time of the encoder alone in the row's precision."""
    alone = _encoder_row(row, rows)
    return alone.network if alone else None


def _encoder_row(row: Row, rows: Sequence[Row]) -> Row | None:
    return next((other for other in rows if (other.kind, other.precision) == ("encoder", row.precision)), None)


def _built_row(row: Row, rows: Sequence[Row], anchor: Row) -> Row:
    """Return what a form is compared with: the engine as the kit builds and runs it, in the form's precision."""
    return next((other for other in rows if (other.kind, other.precision) == ("cflow", row.precision)), anchor)


def paper_full_to_encoder(row: Row, rows: Sequence[Row]) -> float | None:
    """Return the paper's figure for `full_to_encoder`."""
    alone = next((other.paper for other in rows if other.kind == "encoder" and other.paper), None)
    return row.paper.fps / alone.fps if row.paper and alone and row.paper.fps and alone.fps else None


def findings(report: Report) -> list[Finding]:
    """Return every ratio that the report's rows allow, by group."""
    return [finding for rows in report.groups() for finding in _of_group(rows)]


def _of_group(rows: Sequence[Row]) -> Iterator[Finding]:
    anchor = anchor_row(rows)
    height, width = anchor.input_size
    where = f"{height}x{width}"
    for row in rows:
        if (share := full_to_encoder(row, rows)) is not None:
            text = f"{row.name} {where} {row.precision} has {{}} of its encoder's frames per second"
            moved = _noise(_encoder_timing(row, rows), row.network)
            yield Finding(text, share, moved, paper_full_to_encoder(row, rows))
        alone = _encoder_row(row, rows)
        if row.kind == "cflow" and alone is not None:
            text = f"{row.name} {where} {row.precision} has {{}} of its encoder's, from a frame in the host's memory"
            yield from _verdict_to_encoder(text, row, alone)
    for row in rows:
        ratio = times_anchor(row, anchor)
        if row is anchor or row.kind == "encoder" or ratio is None:
            continue
        moved = _noise(anchor.verdict, row.verdict)
        if row.kind in FORM_KINDS:
            yield from _form(row, _built_row(row, rows, anchor), where)
            continue
        if row.kind in BASELINE_KINDS or row.kind in OTHER_FORMS:
            text = f"{anchor.name} {where} is {{}} x as fast as {row.name}"
            yield Finding(text, 1 / ratio, moved, _paper_speed(anchor, row))
            if row.kind == "eager":
                yield from _faster_than_eager(rows, anchor, row, ratio, where)
        else:
            text = f"{row.name} {where} {row.precision} is {{}} x as fast as {anchor.name} {anchor.precision}"
            yield Finding(text, ratio, moved)
        if row.kind in BASELINE_KINDS:
            text = f"{anchor.name} {where} takes {{}} of the bytes of {row.name}"
            yield Finding(text, anchor.size_mb / row.size_mb, 0.0, _paper_size(anchor, row))


def _verdict_to_encoder(text: str, row: Row, alone: Row) -> Iterator[Finding]:
    """Yield `full_to_encoder` from a frame in the host's memory: to the verdict there, and to the taps on the GPU."""
    ratio = times_anchor(row, alone)
    if ratio is not None:
        yield Finding(text, ratio, _noise(alone.verdict, row.verdict))


def _form(row: Row, built: Row, where: str) -> Iterator[Finding]:
    ratio = times_anchor(row, built)
    if ratio is not None:
        text = f"{built.name} {where} {built.precision} is {{}} x as fast as {row.name}"
        yield Finding(text, 1 / ratio, _noise(built.verdict, row.verdict))


def _faster_than_eager(rows: Sequence[Row], anchor: Row, eager: Row, ratio: float, where: str) -> Iterator[Finding]:
    """Yield the other precisions' speed over eager PyTorch's: they had no rounds in common, but both had the anchor's.

    `ratio` is eager PyTorch's speed over the anchor's.
    """
    for row in rows:
        times = times_anchor(row, anchor) if row.kind == "cflow" and row is not anchor else None
        if times is not None:
            yield Finding(f"{row.name} {where} {row.precision} is {{}} x as fast as {eager.name}", times / ratio, None)


def _paper_speed(anchor: Row, row: Row) -> float | None:
    """Return the paper's ratio, of a GPU's frames per second to a CPU's."""
    if row.kind not in BASELINE_KINDS or not (anchor.paper and row.paper and anchor.paper.fps and row.paper.fps):
        return None
    return anchor.paper.fps / row.paper.fps


def _paper_size(anchor: Row, row: Row) -> float | None:
    if not (anchor.paper and row.paper and anchor.paper.size_mb and row.paper.size_mb):
        return None
    return anchor.paper.size_mb / row.paper.size_mb


def _noise(first: Timing | None, other: Timing | None) -> float | None:
    """Return how far the ratio of two rows that were measured in turn moved under way, as a share."""
    return noise(round_ratios(first.rounds_ms, other.rounds_ms)) if first and other else None
