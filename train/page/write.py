"""The evaluation as one self-contained HTML file, the mistakes first: `python -m train.evaluate ... --report FILE`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from runtime.common.files import write_text
from runtime.engines.sidecar import Threshold
from runtime.images.overlay import score_colours
from train.judging.curve_points import PixelCurves
from train.judging.judged_set import JudgedSet
from train.judging.metrics import Evaluation
from train.page.cases import Decision, defect_types, show_cases, typical_detections, worst_false_alarms, worst_misses
from train.page.figures import image_histogram, position_histogram, position_rates, pro_chart, roc_chart
from train.page.html import navigation, page, section, side_by_side, text, tiles
from train.page.pictures import ScoreScale
from train.page.tables import counts_table, figures_table, percent

ROWS = 8  # of pictures in a section
COLOUR_STOPS = 33  # of the colour bar's gradient
HEADROOM = 1.01  # the colour scale ends at least this many thresholds up, even where no score reaches the threshold
HEADINGS = {
    "misses": "Worst misses",
    "false-alarms": "Worst false alarms",
    "detections": "Detections by defect type",
    "counts": "Caught and missed",
    "figures": "Figures",
    "distributions": "Distribution of scores",
    "curves": "ROC and PRO curves",
    "threshold": "How the threshold was chosen",
}


def write_report(
    path: Path,
    judged: JudgedSet,
    evaluation: Evaluation,
    threshold: Threshold,
    title: str,
    map_threshold: float | None = None,
    rows: int = ROWS,
) -> None:
    """Write the report on `judged` to `path`.

    An image is judged by `threshold`, a position of its map by `map_threshold` (where None, by `threshold`
    too). A section shows at most `rows` images, that of the detections at least one of each defect type.
    Raises `UserError` naming an image that cannot be read.
    """
    positions = threshold.value if map_threshold is None else map_threshold
    scale = ScoreScale(positions, max(float(judged.maps.max()), HEADROOM * positions))
    judgement = Decision(judged, threshold.value, scale)
    curves = judged.curves
    parts = [
        _summary(judgement, evaluation, title),
        _misses(judgement, rows),
        _false_alarms(judgement, rows),
        _detections(judgement, rows),
        _counts(judgement),
        _figures(evaluation),
        _distributions(judgement),
        _curves(judgement, evaluation, curves),
        _threshold(judgement, threshold),
    ]
    write_text(path, page(title, parts))


def _section(anchor: str, note: str, *parts: str) -> str:
    return section(anchor, HEADINGS[anchor], note, parts)


def _summary(judgement: Decision, evaluation: Evaluation, title: str) -> str:
    judged, called = judgement.judged, judgement.called
    anomalous, good = int(judged.anomalous.sum()), int((~judged.anomalous).sum())
    contents = (
        f"{good + anomalous} images: {good} good, {anomalous} anomalous of {_count(len(defect_types(judged)), 'type')}"
    )
    figures = tiles(
        [
            ("missed", str((judged.anomalous & ~called).sum()), f"of {anomalous} anomalous"),
            ("false alarms", str((~judged.anomalous & called).sum()), f"of {good} good"),
            ("image AUROC", *_tile(evaluation.image_auroc)),
            ("pixel AUROC", *_tile(evaluation.pixel_auroc)),
            ("AUPRO", *_tile(evaluation.aupro)),
        ]
    )
    heading = f'<h1>{text(title)}</h1><p class="soft">{contents}</p>'
    return f"<header>{heading}{figures}{navigation(HEADINGS)}{_colour_bar(judgement.scale)}</header>"


def _tile(value: float | None) -> tuple[str, str]:
    return percent(value), "no masks" if value is None else "%"


def _colour_bar(scale: ScoreScale) -> str:
    """Return the legend of every score map on the page: half of the bar is below the threshold."""
    scores = np.interp(np.linspace(0, 1, COLOUR_STOPS), (0, 0.5, 1), (0, scale.threshold, scale.maximum))
    colours = score_colours(scores, scale.threshold, scale.maximum).tolist()
    stops = ",".join(f"#{bytes(colour).hex()}" for colour in colours)
    return (
        f'<div class="scale"><div class="bar" style="background:linear-gradient(90deg,{stops})"></div>'
        f'<div class="marks"><span>score 0</span><span>threshold {scale.threshold:.3f}</span>'
        f"<span>{scale.maximum:.3f}</span></div>"
        "<div>The colours of every score map on this page. Predicted masks are white where a score is above the "
        "threshold; magenta outlines the ground truth.</div></div>"
    )


def _misses(judgement: Decision, rows: int) -> str:
    missed = int((judgement.judged.anomalous & ~judgement.called).sum())
    nearest = "" if missed else ": these are the nearest to being missed"
    note = f"The anomalous images with the lowest scores. {_count(missed, 'image')} not above the threshold{nearest}."
    return _section("misses", note, *show_cases(judgement, worst_misses(judgement, rows)))


def _false_alarms(judgement: Decision, rows: int) -> str:
    raised = int((~judgement.judged.anomalous & judgement.called).sum())
    nearest = "" if raised else ": these are the nearest to a false alarm"
    note = f"The good images with the highest scores. {_count(raised, 'image')} above the threshold{nearest}."
    return _section("false-alarms", note, *show_cases(judgement, worst_false_alarms(judgement, rows)))


def _detections(judgement: Decision, rows: int) -> str:
    note = "Caught images of every defect type, from the middle of their scores."
    return _section("detections", note, *_detections_by_type(judgement, rows))


def _detections_by_type(judgement: Decision, rows: int) -> Iterator[str]:
    defects = defect_types(judgement.judged)
    for defect in defects:
        shown = typical_detections(judgement, defect, max(1, rows // len(defects)))
        yield f"<h3>{text(defect)}{'' if shown else ': none is caught'}</h3>"
        yield from show_cases(judgement, shown)


def _counts(judgement: Decision) -> str:
    good = judgement.judged.scores[~judgement.judged.anomalous]
    raised = int((~judgement.judged.anomalous & judgement.called).sum())
    alarms = (
        f"<p>{raised} of {_count(len(good), 'good image')} ({percent(raised / len(good))} %) above the threshold; "
        f"their median score is {np.median(good):.3f}.</p>"
    )
    note = f"An image is caught where its score is above the threshold {judgement.threshold:.3f}."
    return _section("counts", note, counts_table(judgement), alarms)


def _figures(evaluation: Evaluation) -> str:
    note = (
        "Only SegF1 depends on the threshold in use. Image and pixel F1 are the best for this very set: what could "
        "be reached, no forecast."
    )
    return _section("figures", note, figures_table(evaluation))


def _distributions(judgement: Decision) -> str:
    positions = position_histogram(judgement)
    note = "How far good and anomalous lie apart, and where the threshold cuts."
    if positions is None:
        note += " Without ground-truth masks nothing can be said of positions."
    return _section("distributions", note, side_by_side(positions, image_histogram(judgement)))


def _curves(judgement: Decision, evaluation: Evaluation, curves: PixelCurves | None) -> str:
    at = None if curves is None else position_rates(judgement)
    overlap = None if curves is None or at is None else pro_chart(evaluation, curves, at)
    note = "What every other threshold would give; a ring marks the one in use."
    return _section("curves", note, side_by_side(roc_chart(judgement, evaluation, curves, at), overlap))


def _threshold(judgement: Decision, threshold: Threshold) -> str:
    note = f"An image is anomalous where its score is above {threshold.value:.6g}: {threshold.method}."
    positions = judgement.scale.threshold
    if positions != threshold.value:
        note += f" A position is predicted anomalous where its score is above {positions:.6g}."
    return _section("threshold", note)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
