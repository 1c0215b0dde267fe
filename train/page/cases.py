"""Which judged images an engineer wants to see, and how one is shown: its pictures in a row beside its score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.images.preprocess import read_image, resize
from train.data.open import LabelledImage
from train.judging.judged_set import JudgedSet
from train.page.html import text
from train.page.pictures import ScoreScale, fit, photograph, predicted_mask, score_map


@dataclass(frozen=True, eq=False)
class Decision:
    """A judged set with what decides: a score above `threshold`, a position above `scale.threshold`."""

    judged: JudgedSet
    threshold: float
    scale: ScoreScale

    @property
    def called(self) -> NDArray[np.bool_]:
        """Which images are judged anomalous, (N,)."""
        return self.judged.scores.astype(np.float64) > self.threshold  # in double precision, as the runtime judges

    def verdict(self, index: int) -> str:
        """Return what a judgement is worth, in a word or two."""
        if self.judged.images[index].anomalous:
            return "caught" if self.called[index] else "missed"
        return "false alarm" if self.called[index] else "rightly good"


def defect_types(judged: JudgedSet) -> list[str]:
    """Return the names of the defects in a set, in order."""
    return sorted({image.defect for image in judged.images if image.anomalous})


def worst_misses(judgement: Decision, count: int) -> list[int]:
    """Return the anomalous images with the lowest scores, the lowest first."""
    return _by_score(judgement, judgement.judged.anomalous)[:count]


def worst_false_alarms(judgement: Decision, count: int) -> list[int]:
    """Return the good images with the highest scores, the highest first."""
    return _by_score(judgement, ~judgement.judged.anomalous)[::-1][:count]


def typical_detections(judgement: Decision, defect: str, count: int) -> list[int]:
    """Return caught images of one defect type, spread evenly over their scores: the median one for a count of 1."""
    of_type = np.array([image.defect == defect for image in judgement.judged.images])
    caught = _by_score(judgement, of_type & judgement.called)
    places = np.linspace(0, len(caught) - 1, min(count, len(caught)) + 2)[1:-1]
    return [caught[place] for place in sorted({round(place) for place in places})]


def _by_score(judgement: Decision, chosen: NDArray[np.bool_]) -> list[int]:
    order = np.argsort(judgement.judged.scores, kind="stable")
    return [int(index) for index in order if chosen[index]]


def show_cases(judgement: Decision, indices: Sequence[int]) -> list[str]:
    """Return the images at `indices` as HTML, one after another. Raises `UserError` naming one that cannot be read."""
    return [_show(judgement, index) for index in indices]


def _show(judgement: Decision, index: int) -> str:
    panels = "".join(_panels(judgement, index))
    return (
        f'<article class="case"><div class="facts">{"".join(_facts(judgement, index))}</div>'
        f'<div class="panels">{panels}</div></article>'
    )


def _facts(judgement: Decision, index: int) -> Iterator[str]:
    entry, score = judgement.judged.images[index], float(judgement.judged.scores[index])
    called = bool(judgement.called[index])
    style = "right" if called == entry.anomalous else "wrong"
    margin = f"{abs(score - judgement.threshold):.3f} {'above' if called else 'below'}"
    yield f'<span class="verdict {style}">{judgement.verdict(index)}</span>'
    yield f'<div class="score">{score:.3f}</div>'
    yield f'<div class="soft">{margin} the threshold {judgement.threshold:.3f}</div>'
    yield f'<div>{text(entry.defect)}</div><div class="mono">{_name(entry)}</div>'
    if _astray(judgement, index):
        yield '<div class="soft">for the wrong reason: nothing is predicted on the defect</div>'


def _name(entry: LabelledImage) -> str:
    return text(f"{entry.path.parent.name}/{entry.path.name}")


def _astray(judgement: Decision, index: int) -> bool:
    """Return whether an image is caught while its known defect lies outside the predicted mask."""
    truth = judgement.judged.masks[index]
    if truth is None or not truth.any() or not judgement.called[index]:
        return False
    return not (judgement.judged.maps[index][truth] > judgement.scale.threshold).any()


def _panels(judgement: Decision, index: int) -> Iterator[str]:
    judged, scale = judgement.judged, judgement.scale
    size = judged.maps.shape[1:]
    picture = resize(read_image(judged.images[index].path, judged.read), size)  # as the network saw it
    anomaly_map, anomalous = judged.maps[index], judged.images[index].anomalous
    truth = judged.masks[index] if anomalous else None
    shown = [("image", photograph(picture, None))]
    if truth is not None:
        shown.append(("ground truth", photograph(picture, truth)))
    shown.append(("score map", score_map(anomaly_map, scale)))
    shown.append(("predicted mask", predicted_mask(anomaly_map > scale.threshold, truth)))
    height, width = fit(size)
    for what, uri in shown:
        alt = f"{what} of {_name(judged.images[index])}"
        yield (
            f'<figure><img src="{uri}" width="{width}" height="{height}" alt="{alt}">'
            f"<figcaption>{what}</figcaption></figure>"
        )
