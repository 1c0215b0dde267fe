"""Two reports side by side: what changed, and by how much more than the noise of both."""

from dataclasses import dataclass

from runtime.common.text_table import align
from runtime.report.findings import Finding, findings
from runtime.report.schema import Report, Row

TIMES_NOISE = 3.0  # a change that the noise of the two medians rarely makes
LEAST_CHANGE = 0.02  # below that nothing is called a change, however quiet both were
HEADER = ("what", "before", "now", "now / before", "noise", "x noise", "")


@dataclass(frozen=True)
class Change:
    """A figure of both reports: medians in milliseconds, or ratios.

    `noise` is that of both, as a share, None where one of them does not tell its own.
    """

    what: str
    before: float
    now: float
    noise: float | None
    of_time: bool

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
        """Whether it is the "same", what it changed to, or "too few runs" to tell."""
        if abs(self.ratio - 1) <= LEAST_CHANGE:
            return "same"
        if self.times_noise is None:
            return "too few runs"
        if self.times_noise <= TIMES_NOISE:
            return "same"
        if self.of_time:
            return "slower" if self.ratio > 1 else "faster"
        return "higher" if self.ratio > 1 else "lower"


def compare(old: Report, new: Report) -> list[Change]:
    """Return every latency and every finding that both reports have, in the order of the new one."""
    before = {row.key: row for row in old.rows}
    changes = [change for row in new.rows if row.key in before for change in _latencies(before[row.key], row)]
    known = {finding.text: finding for finding in findings(old)}
    return changes + [_ratio(known[f.text], f) for f in findings(new) if f.text in known]


def _latencies(old: Row, new: Row) -> list[Change]:
    found = []
    name, _, size, engine, precision = new.key
    for what, before, now in (("network", old.network, new.network), ("verdict", old.verdict, new.verdict)):
        if before is not None and now is not None:
            title = f"{name} {size} {engine} {precision}, {what}, p50 ms"
            found.append(Change(title, before.p50, now.p50, _together(before.noise, now.noise), of_time=True))
    return found


def _ratio(old: Finding, new: Finding) -> Change:
    what, together = new.text.replace("{}", "..."), _together(old.noise, new.noise)
    return Change(what, old.ratio, new.ratio, together, of_time=False)


def _together(before: float | None, now: float | None) -> float | None:
    """Return the noise of a ratio of two figures."""
    return None if before is None or now is None else float((before**2 + now**2) ** 0.5)


def to_text(changes: list[Change], old: Report, new: Report) -> str:
    """Return the changes as a table, and below it what the two reports do not share."""
    rows = [
        (
            change.what,
            f"{change.before:.3g}",
            f"{change.now:.3g}",
            f"{change.ratio:.3f}",
            "-" if change.noise is None else f"{100 * change.noise:.1f} %",
            "-" if change.times_noise is None else f"{min(change.times_noise, 999):.1f}",
            change.verdict,
        )
        for change in changes
    ]
    keys = {row.key for row in old.rows} ^ {row.key for row in new.rows}
    changed = sum(change.verdict not in ("same", "too few runs") for change in changes)
    lines = [
        f"compared with the report of {old.method.measured_at}: {changed} of {len(changes)} figures changed by more "
        f"than {TIMES_NOISE:g} times their noise and {100 * LEAST_CHANGE:g} %",
        align([HEADER, *rows]),
    ]
    if old.machine.device != new.machine.device or old.machine.cores != new.machine.cores:
        lines.append(
            f"the machines differ: {old.machine.device}, {old.machine.cores} cores; now {new.machine.device}, "
            f"{new.machine.cores} cores"
        )
    if keys:
        lines.append("in one of the two only: " + "; ".join(sorted(" ".join(key) for key in keys)))
    return "\n".join(lines) + "\n"
