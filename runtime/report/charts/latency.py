"""The picture of how single verdicts spread around the median latency."""

from matplotlib.figure import Figure

from runtime.report.charts import style
from runtime.report.schema import Report, Row, Timing

MARKERS = {"p50": "|", "p95": "d", "p99": "o"}
ROW_IN = 0.27  # inches of a row's height
Verdicts = dict[tuple[int, int], list[tuple[str, Row, Timing]]]  # label, row and its verdicts by input size


def latency_data(report: Report) -> Verdicts:
    """Return what is drawn: CFLOW-AD and engine files, as far as their verdicts were timed."""
    rows = [row for row in report.rows if row.kind in ("cflow", "engine")]
    found: Verdicts = {}
    for row, label in zip(rows, style.row_labels(report, rows), strict=True):
        if row.verdict and row.verdict.samples_ms:
            found.setdefault(row.input_size, []).append((label, row, row.verdict))
    return dict(sorted(found.items()))


def draw(report: Report) -> Figure | None:
    """Draw each row's verdicts as multiples of their median; None where none were timed."""
    verdicts, colours = latency_data(report), style.encoder_colours(report)
    if not verdicts:
        return None
    rows = [row for of_size in verdicts.values() for row in of_size]
    most = max(timing.percentiles["p99"] / timing.p50 for _, _, timing in rows)
    note = f"A tick is a run. Not drawn: runs that took more than {1.1 * most:.2g} times the median."
    longest = max(map(len, verdicts.values()))
    figure = style.new_figure(report, ROW_IN * longest, [note])
    encoders = dict.fromkeys(row.encoder for _, row, _ in rows)
    keys = [style.key(style.short_encoder(encoder), colours[encoder], line="-") for encoder in encoders]
    keys += [style.key(name, style.INK, marker) for name, marker in MARKERS.items() if name != "p50"]
    style.add_title(figure, "From frame to verdict: single runs around their median", keys)
    panels = figure.subplots(1, len(verdicts), sharex=True, squeeze=False)[0]
    for axes, (size, of_size) in zip(panels, verdicts.items(), strict=True):
        for place, (_, row, timing) in enumerate(of_size):
            colour, p50 = colours[row.encoder], timing.p50
            ratios = [ms / p50 for ms in timing.samples_ms]
            axes.plot(ratios, [place] * len(ratios), "|", color=colour, alpha=0.25, markersize=9)
            for name, marker in MARKERS.items():
                look = {"markersize": 14.0} if name == "p50" else {"markersize": 6.0, "markeredgecolor": "white"}
                axes.plot([timing.percentiles[name] / p50], [place], marker, color=colour, **look)
        axes.set_yticks(range(len(of_size)), [f"{label}: {timing.p50:.1f} ms" for label, _, timing in of_size])
        axes.set(xlabel="latency / p50", ylim=(longest - 0.5, -0.5), xlim=(None, 1.1 * most))
        axes.set_title(style.size_text(size))
    return figure
