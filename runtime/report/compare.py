"""Two reports side by side: what changed, and by how much more than the noise of both."""

from dataclasses import dataclass

from runtime.report.findings import Finding, findings
from runtime.report.schema import Report, Row, Timing
from runtime.text_table import align

TIMES_NOISE = 3.0  # a change that the noise of the two medians rarely makes
LEAST_CHANGE = 0.02  # below that nothing is called a change, however quiet both were
HEADER = ("what", "before", "now", "now / before", "noise", "x noise", "")


@dataclass(frozen=True)
class Change:
    """A figure of both reports: medians in milliseconds, or ratios; `noise` is that of both, as a share."""

    what: str
    before: float
    now: float
    noise: float
    of_time: bool

    @property
    def ratio(self) -> float:
        """Now over before."""
        return self.now / self.before

    @property
    def times_noise(self) -> float:
        """The change in units of the noise; infinite where both were free of any."""
        change = abs(self.ratio - 1)
        return change / self.noise if self.noise else float("inf") if change else 0.0

    @property
    def verdict(self) -> str:
        """ "same", or what it changed to."""
        if self.times_noise <= TIMES_NOISE or abs(self.ratio - 1) <= LEAST_CHANGE:
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
            found.append(Change(title, before.p50, now.p50, _noise(before, now), of_time=True))
    return found


def _ratio(old: Finding, new: Finding) -> Change:
    return Change(
        new.text.replace("{}", "..."), old.ratio, new.ratio, (old.noise**2 + new.noise**2) ** 0.5, of_time=False
    )


def _noise(before: Timing, now: Timing) -> float:
    return float((before.noise**2 + now.noise**2) ** 0.5)


def to_text(changes: list[Change], old: Report, new: Report) -> str:
    """Return the changes as a table, and below it what the two reports do not share."""
    rows = [
        (
            change.what,
            f"{change.before:.3g}",
            f"{change.now:.3g}",
            f"{change.ratio:.3f}",
            f"{100 * change.noise:.1f} %",
            f"{min(change.times_noise, 999):.1f}",
            change.verdict,
        )
        for change in changes
    ]
    keys = {row.key for row in old.rows} ^ {row.key for row in new.rows}
    changed = sum(change.verdict != "same" for change in changes)
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
