"""Words on pictures: the caption bar of an overlay, readable at any size of the frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.images.opencv import opencv
from runtime.images.pixels import Image8

BAR_SHADE = 0.25  # the caption bar leaves this much of the frame's brightness
BAR_MOST = 0.35  # of the frame's height: the defect matters more than the words
LETTER_HEIGHT = 22  # pixels of OpenCV's simplex font at scale 1
SMALLEST_LETTERS = 9.0  # pixels: about the smallest text that a person reads
LINE_HEIGHT = 2.0  # of a letter
LEGEND_RGB = (215, 215, 215)


def draw_caption(
    picture: Image8, words: Sequence[str], rgb: tuple[int, int, int], legend: Image8, marks: Sequence[str]
) -> None:
    """Write `words` over a darkened bar at the bottom, in as few lines as leave them readable.

    At the right, where there is room, stands `legend` (N, 3): the colours from left to right, with three `marks`
    below its left end, middle and right end where these are readable, and a tick at its middle.
    """
    height, width = picture.shape[:2]
    wanted = min(max(SMALLEST_LETTERS, 0.028 * height), 0.5 * height)
    lines, letters = _break(words, wanted, width, height)
    scale, step = letters / LETTER_HEIGHT, LINE_HEIGHT * letters
    bar = min(height, round(step * len(lines)))
    picture[height - bar :] = (picture[height - bar :] * BAR_SHADE).astype(np.uint8)
    left = round(0.03 * width)
    for i, line in enumerate(lines):
        baseline = height - bar + round((i + 0.72) * step)
        write(picture, line, (left, baseline), scale, rgb)
    used = left + max(text_width(line, scale) for line in lines) + round(2 * letters)
    room = width - left - used
    if room >= max(5 * letters, 1) and bar:  # of a frame of a few pixels nothing is left
        _draw_legend(picture[height - bar :, used : width - left], legend, marks, letters)


def _break(words: Sequence[str], wanted: float, width: int, height: int) -> tuple[list[str], float]:
    """Return `words` in lines, and the height of their letters: the fewest lines at which these are readable."""
    best = (["  ".join(words)], 0.0)
    for count in range(1, len(words) + 1):
        first = len(words) - count + 1  # words of the first line
        lines = ["  ".join(words[:first]), *words[first:]]
        widest = max(text_width(line, 1.0) for line in lines)
        letters = min(wanted, 0.94 * width / widest * LETTER_HEIGHT)
        if count > 1 and LINE_HEIGHT * letters * count > BAR_MOST * height:
            break
        if letters > best[1]:
            best = (lines, letters)
        if letters >= min(wanted, SMALLEST_LETTERS):
            break
    return best


def _draw_legend(bar: Image8, legend: Image8, marks: Sequence[str], letters: float) -> None:
    """Draw into `bar` (h, w, 3), the free part of the caption bar, aligned to the right."""
    cv2 = opencv()
    height, room = bar.shape[:2]
    small = 0.75 * letters
    scale = small / LETTER_HEIGHT
    widths = [text_width(mark, scale) for mark in marks]
    width = min(room, max(1, round(14 * letters)))
    named = small >= SMALLEST_LETTERS and width >= 1.5 * sum(widths)
    thick = min(height, max(3, round((0.5 if named else 0.8) * letters)))
    top = round(0.3 * letters) if named else (height - thick) // 2
    left = room - width
    bar[top : top + thick, left:] = cv2.resize(legend[None], (width, thick), interpolation=cv2.INTER_LINEAR)
    middle = left + width // 2
    tick = max(1, round(letters / 12))
    bar[max(0, top - tick) : top + thick + tick, middle - tick // 2 : middle - tick // 2 + tick] = 255
    if named:
        places = (left, middle - widths[1] // 2, room - widths[2])
        for mark, x in zip(marks, places, strict=True):
            write(bar, mark, (x, round(top + thick + 1.35 * small)), scale, LEGEND_RGB)


def _font() -> Any:
    return opencv().FONT_HERSHEY_SIMPLEX


def _thickness(scale: float) -> int:
    return max(1, round(1.6 * scale))


def drawable(text: str) -> str:
    """Return `text` with a question mark for every letter that OpenCV's font lacks, or that is none: names of files."""
    return text.encode("ascii", "replace").decode("ascii")


def text_width(text: str, scale: float) -> int:
    """Return the width in pixels that `write` needs."""
    return int(opencv().getTextSize(drawable(text), _font(), scale, _thickness(scale))[0][0])


def write(picture: Image8, text: str, origin: tuple[int, int], scale: float, rgb: tuple[int, int, int]) -> None:
    """Write `text`, its baseline beginning at `origin` (x, y)."""
    cv2 = opencv()
    cv2.putText(picture, drawable(text), origin, _font(), scale, rgb, _thickness(scale), cv2.LINE_AA)
