"""How well scores separate: the figures of an evaluation, by image and by pixel, in the field's own terms.

AUROC, best F1 and AUPRO follow from the curves of `train.judging.curves`; AUPIMO, SegF1 and AU-sPRO have their own
definitions, each said where it is computed.
"""

from dataclasses import dataclass
from operator import attrgetter

from export.images.labelled import auroc
from train.judging.curve_points import PixelCurves
from train.judging.curves import best_pixel_f1, f1_by_pixel, rates_above
from train.judging.judged_set import JudgedSet
from train.judging.pimo import aupimo
from train.judging.saturated import au_spro
from train.judging.thresholds import best_f1, check_finite

FALSE_POSITIVE_LIMIT = 0.3  # of AUPRO, as in the paper and in MVTec AD's own evaluation
STRICT_LIMIT = 0.05  # the limit of MVTec AD 2 and MVTec LOCO


@dataclass(frozen=True)
class Evaluation:
    """Areas and F1 in [0, 1]; an F1's threshold is the score to cut at: what lies above it is called anomalous.

    The figures by pixel are None where an anomalous image has no mask that marks a pixel of it; `seg_f1` too where
    no threshold was given, and `au_spro` where no defect has a saturation (MVTec LOCO's do).
    """

    images: int
    anomalous: int
    image_auroc: float
    pixel_auroc: float | None
    aupro: float | None
    image_f1: float
    image_f1_threshold: float
    pixel_f1: float | None
    pixel_f1_threshold: float | None
    aupro_5: float | None = None
    aupimo: float | None = None
    seg_f1: float | None = None
    au_spro: float | None = None


def pixel_auroc(curves: PixelCurves) -> float:
    """Return the area under the ROC curve by pixel, in [0, 1]."""
    return curves.area(attrgetter("true_positive_rate"), 1)


def aupro(curves: PixelCurves, limit: float = FALSE_POSITIVE_LIMIT) -> float:
    """Return the area under region overlap over false-positive rates up to `limit` (in (0, 1]), divided by it."""
    return curves.area(attrgetter("region_overlap"), limit) / limit


def mean_aupimo(judged: JudgedSet) -> float | None:
    """Return the mean AUPIMO of the images with a mask; None where every image has one."""
    areas = aupimo(judged.maps, [mask for mask in judged.masks if mask is not None])
    return None if areas is None else float(areas.mean())


def seg_f1(judged: JudgedSet, curves: PixelCurves, threshold: float) -> float:
    """Return MVTec AD 2's SegF1: the F1 by pixel at a threshold that was chosen before these images were seen."""
    rates = rates_above(judged.maps, [mask for mask in judged.masks if mask is not None], threshold)
    return float(f1_by_pixel(curves, rates.true_positive_rate, rates.false_positive_rate))


def evaluate_judged(judged: JudgedSet, map_threshold: float | None = None) -> Evaluation:
    """Return every figure of a judged set; those by pixel only where every anomalous image has its mask.

    `map_threshold` is what the model itself cuts its maps at. Raises `UserError` if only one class is present, or
    for a score that is not finite.
    """
    anomalous = judged.anomalous
    check_finite(judged.scores, "every image score")
    image_auroc = auroc(judged.scores, anomalous)
    image_f1, image_threshold = best_f1(judged.scores, anomalous)
    curves = judged.curves
    if curves is None:
        none = None
        return Evaluation(
            len(anomalous), int(anomalous.sum()), image_auroc, none, none, image_f1, image_threshold, none, none
        )
    pixel_f1, pixel_threshold = best_pixel_f1(curves)
    return Evaluation(
        images=len(judged.images),
        anomalous=int(anomalous.sum()),
        image_auroc=image_auroc,
        pixel_auroc=pixel_auroc(curves),
        aupro=aupro(curves),
        image_f1=image_f1,
        image_f1_threshold=image_threshold,
        pixel_f1=pixel_f1,
        pixel_f1_threshold=pixel_threshold,
        aupro_5=aupro(curves, STRICT_LIMIT),
        aupimo=mean_aupimo(judged),
        seg_f1=None if map_threshold is None else seg_f1(judged, curves, map_threshold),
        au_spro=au_spro(judged, STRICT_LIMIT),
    )
