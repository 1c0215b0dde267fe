"""A mask for a source: the one that it runs with, less the places that are always wrong.

Never over a place where a missed part, a known defect or an alarm that nobody called false lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.images.mask import Scoring, mask_at
from runtime.improve.evidence import Alarm, Evidence
from runtime.improve.marked import by_part
from runtime.improve.places import (
    AROUND,
    MOST,
    Cells,
    always_wrong,
    box_cells,
    cells_of,
    fewest_parts,
    highest,
    rectangle,
    spread,
)
from runtime.improve.proposal import Mistakes, Row, too_few
from runtime.improve.rejudge import Frame, Frames, Known
from runtime.improve.shares import FEWEST
from runtime.improve.views import Seen
from runtime.result import Result

KIND = "mask"


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask (H, W) of the camera's frame for `source`, 255 where it is inspected, and what it does.

    It leaves out `share` of the judged frame more than before; `parts` of `of` false alarms have their highest there.
    `placeless`: of some alarms that nobody called false it is not known where they lie.
    """

    source: str
    pixels: NDArray[np.uint8]
    share: float
    parts: int
    of: int
    row: Row
    known: Row | None
    placeless: bool


def choose(
    evidence: Evidence,
    frames: Frames,
    source: str,
    known: Sequence[Known],
    scoring: Scoring,
    camera_size: tuple[int, int] | None,
) -> Mask | str:
    """Return a mask for `source`, or why there is none.

    `known` are labelled parts; `camera_size` is the (height, width) of the camera's
    frame, which a region of interest hides.
    """
    false_alarms = [frame for frame in frames.false_alarms if frame.mark.source == source]
    groups = by_part(frame.mark for frame in false_alarms)
    if evidence.recipe:
        return "the masks of recipes are in their file, which the log has not: draw it there"
    if not groups:
        return too_few(0, FEWEST, f"false alarms of {source} with their frames")
    of_parts = [[frame.result for frame in false_alarms if frame.mark in group] for group in groups]
    hits = [_cells(part, lambda result: highest(result.anomaly_map)) for part in of_parts]
    if len(hits) < (needed := fewest_parts(hits[0].size)):
        return too_few(len(hits), needed, f"parts of {source} that are false alarms, with their frames")
    seen = frames.seen(source)
    missed = [frame for frame in frames.missed if frame.mark.source == source]
    marked_missed = sum(not mark.false_alarm and mark.source == source for mark in evidence.marks)
    if len(missed) < marked_missed:
        return f"of {marked_missed - len(missed)} missed parts of {source} no frame is known, nor where they are bad"
    if why := _fault(seen, false_alarms, source, camera_size):
        return why
    wrong, parts = always_wrong(hits)
    if not wrong.any():
        return f"no place of {source} is wrong again and again"
    defects = _defects(evidence, missed, known, false_alarms[0])
    above = [_cells(part, lambda result: result.anomaly_map > result.map_threshold) for part in of_parts]
    place = spread(wrong, above) & ~defects
    if not (place & wrong).any():
        return (
            f"where {source} is wrong again and again lies a missed part, a known defect or an alarm not called false"
        )
    judged = [*false_alarms, *missed]
    found = _drawn(seen, place, (source, parts, len(hits)), judged, known, scoring, camera_size)
    return replace(found, placeless=Alarm(source, None) in evidence.alarms) if isinstance(found, Mask) else found


def _cells(part: Sequence[Result], positions: Callable[[Result], NDArray[np.bool_]]) -> Cells:
    """Return the cells in which a part's frames have such `positions` of their maps."""
    cells: Cells = np.any([cells_of(positions(result)) for result in part], axis=0)
    return cells


def _fault(seen: Seen, frames: Sequence[Frame], source: str, camera_size: tuple[int, int] | None) -> str:
    """Say why no mask can be drawn for a source."""
    if seen.filled:
        return "the line paints over what its mask leaves out: the detector would have to be trained anew"
    if len({frame.size for frame in frames}) > 1:
        return f"the marked frames of {source} have several sizes"
    if seen.view.options.roi is not None and seen.mask is None and camera_size is None:
        return f"{source} is judged in a region: name the size of the camera's frame (--camera-size)"
    return ""


def _defects(evidence: Evidence, missed: Sequence[Frame], known: Sequence[Known], like: Frame) -> Cells:
    """Return the cells in which something bad has been; `like` is a frame of the source."""
    size = like.result.anomaly_map.shape
    found = np.zeros_like(cells_of(np.zeros(size, bool)))
    for frame in missed:
        found |= cells_of(highest(frame.result.anomaly_map, AROUND, 0))
    for one in known:
        if one.part.anomalous:
            place = one.part.place
            found |= cells_of(
                highest(one.result.anomaly_map, AROUND, 0) if place is None else place
            )  # (H, W) of the map
    for alarm in evidence.alarms:
        if alarm.source == like.mark.source and alarm.box is not None:
            found |= box_cells(alarm.box, like.size, (size[0], size[1]))
    return found


def _drawn(
    seen: Seen,
    place: Cells,
    said: tuple[str, int, int],
    frames: Sequence[Frame],
    known: Sequence[Known],
    scoring: Scoring,
    camera_size: tuple[int, int] | None,
) -> Mask | str:
    """Return the mask that leaves out `place`, and what it does; or why it may not."""
    source, parts, of = said
    judged, size = frames[0].size, frames[0].result.anomaly_map.shape
    left_out = np.zeros(judged, bool)
    for row, column in zip(*np.nonzero(place), strict=True):
        left_out[rectangle(int(row), int(column), (size[0], size[1]), judged)] = True
    if (share := float(left_out.mean())) > MOST:
        return f"the places where {source} is wrong are {share:.0%} of the picture, more than {MOST:.0%}"
    camera = np.dstack([seen.mask if seen.mask is not None else _white(seen, judged, camera_size)] * 3)
    inner = seen.view.seen(camera)
    if inner.shape[:2] != judged:
        found, wanted = ("x".join(map(str, shape[1::-1])) for shape in (inner.shape, judged))
        return f"of a camera's frame of that size {source} would judge {found}; its marked frames are {wanted}"
    inner[left_out] = 0
    seen.view.put_back(camera, inner)
    masked = replace(seen, mask=np.ascontiguousarray(camera[..., 0]))
    inside = mask_at(inner[..., 0] > 0, (size[0], size[1]))
    if scoring.most_inside(inside) < scoring.top_count((size[0], size[1])):
        return f"the mask of {source} would leave too little of the picture to find anything"
    rows = [
        _row(on, judged_by, (seen, masked), scoring)
        for on, judged_by in (
            ("marked frames", [(frame.result, not frame.mark.false_alarm) for frame in frames]),
            ("known parts (--data)", [(one.result, one.part.anomalous) for one in known]),
        )
    ]
    gone = rows[0].now.false_alarms.count - rows[0].then.false_alarms.count
    if gone < FEWEST:
        return f"without the places where {source} is wrong {gone} false alarms would go; it needs at least {FEWEST}"
    if rows[1].then.misses.count > rows[1].now.misses.count:
        return f"without the places where {source} is wrong known defects would be missed"
    assert masked.mask is not None
    return Mask(source, masked.mask, share, parts, of, rows[0], rows[1] if known else None, False)


def _row(on: str, results: Sequence[tuple[Result, bool]], masks: tuple[Seen, Seen], scoring: Scoring) -> Row:
    """Return the mistakes on results (and whether each part is bad), inside the mask now and inside the new one."""
    ways = []
    for seen in masks:
        alarms = [(seen.inspected(result, scoring).verdict == "anomalous", bad) for result, bad in results]
        ways.append(Mistakes.of([one for one, bad in alarms if not bad], [one for one, bad in alarms if bad]))
    return Row(on, ways[0], ways[1])


def _white(seen: Seen, judged: tuple[int, int], camera_size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return a mask of all of the camera's frame, whose judged frame is of (height, width) `judged`."""
    upright = judged if seen.view.options.rotate % 180 == 0 else judged[::-1]
    return np.full(camera_size or upright, 255, np.uint8)
