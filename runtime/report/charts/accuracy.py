"""The picture of accuracy over latency: what a faster engine costs in AUROC."""

from matplotlib.figure import Figure

from runtime.report.charts import style
from runtime.report.schema import Accuracy, Report, Row, Timing

METRICS = {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc"}
LEAST_RANGE = 1.0  # points of AUROC that an axis shows at least: less means nothing
Measured = tuple[Row, Timing, Accuracy]  # a row, its verdicts, and what its model's answers are worth


def accuracy_data(report: Report) -> list[Measured]:
    """Return the rows whose very model was judged on labelled images, once for each set of them.

    What was judged in the row's own precision counts before what was judged in another one.
    """
    found: list[Measured] = []
    for row in report.rows:
        same = [one for one in report.accuracy if row.model_sha256 and one.model_sha256 == row.model_sha256]
        own = [one for one in same if one.precision == row.precision] or same
        found += [(row, row.verdict, one) for one in own if row.verdict and row.verdict.samples_ms]
    return found


def draw(report: Report) -> Figure | None:
    """Draw image and pixel AUROC over latency, a line of panels for each data set; None without judged rows."""
    judged, colours = accuracy_data(report), style.encoder_colours(report)
    if not judged:
        return None
    sets = list(dict.fromkeys((one.data, one.images) for _, _, one in judged))
    note = "The marker is the median, the line goes to p95. Less than a point of AUROC means little."
    figure = style.new_figure(report, 2.4 * len(sets), [note])
    panels = figure.subplots(len(sets), len(METRICS), squeeze=False)
    keys = {}
    for (data, images), line in zip(sets, panels, strict=True):
        of_set = [item for item in judged if (item[2].data, item[2].images) == (data, images)]
        for axes, (metric, name) in zip(line, METRICS.items(), strict=True):
            for row, timing, accuracy in of_set:
                if (value := getattr(accuracy, name)) is not None:
                    other = "" if accuracy.precision == row.precision else f" (AUROC: {accuracy.precision})"
                    label = f"{row.file}, {row.precision.upper()}, {row.engine}{other}"
                    marker = style.PRECISION_MARKERS.get(row.precision, "X")
                    colour = colours[row.encoder]
                    axes.plot([timing.p50, timing.percentiles["p95"]], [100 * value] * 2, color=colour)
                    look = {"color": colour, "markersize": 8, "markeredgecolor": "white", "label": label}
                    keys[label] = axes.plot(timing.p50, 100 * value, marker, linestyle="none", **look)[0]
            low, high = axes.get_ylim()
            spare = max(LEAST_RANGE - (high - low), 0.0) / 2
            axes.set(ylim=(low - spare, high + spare), xlim=(0, None), xlabel="milliseconds, frame to verdict")
            axes.set_title(f"{metric} in percent, {data} ({images} images)")
    style.add_title(figure, "What the answers are worth, and how long they take", list(keys.values()))
    return figure
