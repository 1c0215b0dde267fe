"""The marked frames judged once more by the engine in force, for their maps.

A frame must come out as the log has it: one that does not was judged in another way than is known here (the mask of a
recipe, say), and proves nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.images.preprocess import read_image
from runtime.improve.evidence import Evidence
from runtime.improve.marked import KnownPart, Marked
from runtime.improve.views import Seen, seen_by
from runtime.result import Result

MOST_FRAMES = 300  # marked frames whose maps are held in memory: the newest
MOST_BYTES = 1 << 30  # of these maps: of a tiled engine they are as large as its frames
TOLERANCE = 0.05  # of a score: what other libraries and other processors compute otherwise
NO_FRAME = "without a frame"
DAMAGED = "whose frame is gone or damaged"
UNFIT = "whose frame the engine cannot judge"
OTHERWISE = "whose frame scores otherwise than in the log (another mask, another library)"
RIGHT = "that the threshold in force judges right"


@dataclass(frozen=True, eq=False)
class Frame:
    """A marked frame, its (height, width), and what the engine in force says of what the line inspects of it."""

    mark: Marked
    size: tuple[int, int]
    result: Result

    @property
    def wrong(self) -> bool:
        """Whether it is judged as it was marked as wrong for."""
        return (self.result.verdict == "anomalous") == self.mark.false_alarm


@dataclass(frozen=True, eq=False)
class Frames:
    """The marked frames, judged; and how many marks have none, or are not `wrong` any more, by why."""

    judged: tuple[Frame, ...]
    left_out: Counter[str]
    seen: Callable[[str], Seen]  # of a source

    @property
    def false_alarms(self) -> list[Frame]:
        """Good parts that the threshold in force calls anomalous."""
        return [one for one in self.judged if one.mark.false_alarm and one.wrong]

    @property
    def missed(self) -> list[Frame]:
        """Bad parts that were missed, those that the threshold in force finds too."""
        return [one for one in self.judged if not one.mark.false_alarm]


@dataclass(frozen=True, eq=False)
class Known:
    """A part whose answer is known, and what the engine in force says of it."""

    part: KnownPart
    result: Result


def rejudge(detector: Detector, evidence: Evidence) -> Frames:
    """Judge the marked frames; `detector` has the threshold in force.

    Raises `UserError` where the mask that the line runs with is not known any more.
    """

    @cache
    def seen(source: str) -> Seen:
        return seen_by(evidence.log, evidence.run, evidence.recipe, source)

    newest = sorted(evidence.marks, key=lambda mark: -mark.judgement)
    most = most_maps(detector)
    found, left_out = [], Counter({f"older than the newest {most}": len(newest[most:])})
    for mark in newest[:most]:
        frame = _judged(detector, mark, seen)
        if isinstance(frame, str):
            left_out[frame] += 1
        else:
            found.append(frame)
            left_out[RIGHT] += not frame.wrong
    return Frames(tuple(found), +left_out, seen)


def most_maps(detector: Detector) -> int:
    """Return how many frames' maps are held in memory."""
    height, width = detector.session.input_size
    return max(1, min(MOST_FRAMES, MOST_BYTES // (4 * height * width)))


def _judged(detector: Detector, mark: Marked, seen: Callable[[str], Seen]) -> Frame | str:
    """Return a marked frame, judged, or why there is none."""
    if mark.picture is None:
        return NO_FRAME
    try:
        image = read_image(mark.picture)
    except (UserError, OSError):
        return DAMAGED
    if not _fits(detector, image):
        return UNFIT
    result = seen(mark.source).inspected(detector(image), detector.sidecar.scoring)
    if result.verdict == "none":
        return UNFIT
    if abs(result.image_score - mark.score) > TOLERANCE * max(mark.score, detector.threshold):
        return OTHERWISE
    return Frame(mark, (image.shape[0], image.shape[1]), result)


def _fits(detector: Detector, image: NDArray[np.uint8]) -> bool:
    try:
        detector.check(image)
    except UserError:
        return False
    return True


def judge_known(detector: Detector, parts: Sequence[KnownPart]) -> list[Known]:
    """Judge labelled images whole; those that give no verdict are left out. Raises `UserError` for a damaged one."""
    judged = (Known(part, detector(read_image(part.path))) for part in parts)
    return [one for one in judged if one.result.verdict != "none"]
