"""A mark that counts, and which marks are of one part: frames of one part are one piece of evidence, not many."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.moments import parse_moment
from runtime.images.folders import IMAGE_SUFFIXES
from runtime.records.marks import FALSE_ALARM, pictures_of

NEAR_S = 2.0  # between frames of a camera without triggers that may show one part


@dataclass(frozen=True)
class Marked:
    """A judgement that somebody corrected: `false_alarm`, or else a missed part.

    `name` is the frame's, `captured_s` seconds since 1970, `picture` the file of the frame as it was judged, None where
    none was kept.
    """

    judgement: int
    false_alarm: bool
    score: float
    threshold: float
    source: str
    name: str
    part: str
    captured_s: float
    picture: Path | None

    @classmethod
    def of(cls, log: Path, mark: dict[str, Any]) -> "Marked":
        """Return a mark of the log at `log` (`runtime.records.marks.standing`)."""
        about = mark["about"]
        return cls(
            mark["judgement"],
            mark["kind"] == FALSE_ALARM,
            about["score"],
            about["threshold"],
            about["source"],
            about["name"],
            about.get("part") or "",
            parse_moment(about["time"]),
            pictures_of(log) / Path(mark["picture"]).name if mark["picture"] else None,
        )


@dataclass(frozen=True, eq=False)
class KnownPart:
    """An image whose answer is known: labelled data, taken as the line's frames are.

    `place` (H, W) of the map is where its defect lies; None where nobody has drawn that.
    """

    path: Path
    anomalous: bool
    place: NDArray[np.bool_] | None = None


def by_part(marks: Iterable[Marked]) -> list[list[Marked]]:
    """Return the marks by the part that they are of, the oldest part first.

    Those with the id of a part are together; a file is a part of its own; frames of a camera or video without ids are
    together where each follows the one before within `NEAR_S`.
    """
    groups: list[list[Marked]] = []
    known: dict[str, list[Marked]] = {}
    last: dict[tuple[str, bool], list[Marked]] = {}
    for mark in sorted(marks, key=lambda one: (one.captured_s, one.judgement)):
        running = (mark.source, mark.false_alarm)
        if mark.part:
            near = known.setdefault(mark.part, [])
        elif Path(mark.name).suffix.lower() in IMAGE_SUFFIXES:
            near = []
        else:
            near = last.get(running, [])
            if near and mark.captured_s - near[-1].captured_s > NEAR_S:
                near = []
            last[running] = near
        if not near:
            groups.append(near)
        near.append(mark)
    return groups
