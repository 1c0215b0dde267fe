"""Two reports side by side: what changed, and by how much more than the noise of both."""

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.common.text_table import align
from runtime.report.ratios import anchor_row, full_to_encoder, times_anchor
from runtime.report.schema import Report, Timing
from runtime.report.statistics import noise, round_ratios

TIMES_NOISE = 3.0  # a change that the noise of the two medians rarely makes
LEAST_CHANGE = 0.02  # below that nothing is called a change, however quiet both were
HEADER = ("what", "before", "now", "now / before", "noise", "x noise", "")
Figure = tuple[float, float | None]  # a median in milliseconds or a ratio, and its noise as a share if that is known


@dataclass(frozen=True)
class Change:
    """A figure of both reports; `noise` is that of both, as a share, None where one of them does not tell its own."""

    what: str
    before: float
    now: float
    noise: float | None

    @property
    def ratio(self) -> float:
        """Now over before."""
        return self.now / self.before

    @property
    def times_noise(self) -> float | None:
        """The change in units of the noise; infinite where both were free of any, None where that is not known."""
        if self.noise is None:
            return None
        change = abs(self.ratio - 1)
        return change / self.noise if self.noise else float("inf") if change else 0.0

    @property
    def verdict(self) -> str:
        """Whether it is the "same", "higher" or "lower", or "too few runs" to tell."""
        if abs(self.ratio - 1) <= LEAST_CHANGE:
            return "same"
        if self.times_noise is None:
            return "too few runs"
        return "same" if self.times_noise <= TIMES_NOISE else "higher" if self.ratio > 1 else "lower"


def compare(old: Report, new: Report) -> list[Change]:
    """Return every latency and every ratio that both reports have, in the order of the new one."""
    before, now = dict(_figures(old)), dict(_figures(new))
    return [
        Change(what, before[what][0], value, _together(before[what][1], moved))
        for what, (value, moved) in now.items()
        if what in before
    ]


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    for rows in report.groups():
        anchor = anchor_row(rows)
        for row in rows:
            name, _, size, engine, precision = row.key
            title = f"{name} {size} {engine} {precision}"
            for path, timing in (("network", row.network), ("verdict", row.verdict)):
                if timing:
                    yield f"{title}, {path}, p50 ms", (timing.p50, timing.noise)
            if row is not anchor and (times := times_anchor(row, anchor)):
                yield f"{title}, x {anchor.name}", (times, _ratio_noise(anchor.verdict, row.verdict))
            if share := full_to_encoder(row, rows):
                alone = next(other for other in rows if (other.kind, other.precision) == ("encoder", precision))
                yield f"{title}, full / encoder", (share, _ratio_noise(alone.network, row.network))


def _ratio_noise(first: Timing | None, other: Timing | None) -> float | None:
    """Return how far the ratio of two rows that were measured in turn moved under way, as a share."""
    return noise(round_ratios(first.rounds_ms, other.rounds_ms)) if first and other else None


def _together(before: float | None, now: float | None) -> float | None:
    """Return the noise of a ratio of two figures."""
    return None if before is None or now is None else float((before**2 + now**2) ** 0.5)


def to_text(changes: list[Change], old: Report, new: Report) -> str:
    """Return the changes as a table, and below it what the two reports do not share."""
    changed = sum(change.verdict not in ("same", "too few runs") for change in changes)
    lines = [
        f"compared with the report of {old.method.measured_at}: {changed} of {len(changes)} figures changed by more "
        f"than {TIMES_NOISE:g} times their noise and {100 * LEAST_CHANGE:g} %",
        align([HEADER, *map(_cells, changes)]),
    ]
    if (old.machine.device, old.machine.cores) != (new.machine.device, new.machine.cores):
        first, second = (f"{report.machine.device}, {report.machine.cores} cores" for report in (old, new))
        lines.append(f"the machines differ: {first}; now {second}")
    if keys := {row.key for row in old.rows} ^ {row.key for row in new.rows}:
        lines.append("in one of the two only: " + "; ".join(sorted(" ".join(key) for key in keys)))
    return "\n".join(lines) + "\n"


def _cells(change: Change) -> tuple[str, ...]:
    figures = f"{change.before:.3g}", f"{change.now:.3g}", f"{change.ratio:.3f}"
    moved = "-" if change.noise is None else f"{100 * change.noise:.1f} %"
    times = "-" if change.times_noise is None else f"{min(change.times_noise, 999):.1f}"
    return change.what, *figures, moved, times, change.verdict
