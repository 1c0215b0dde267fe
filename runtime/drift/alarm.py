"""What is said of a drift: what moved, from where to where, since when, and who knows of it."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from runtime.drift.numbers import NUMBERS, number_of

ALSO = 3  # other numbers that are named


@dataclass(frozen=True)
class Moved:
    """That a `number` went from `before` to `now`: by `sigmas` standard deviations of a block's median."""

    number: str
    before: float
    now: float
    sigmas: float

    @property
    def name(self) -> str:
        """What it is called: light, focus, ..."""
        return number_of(self.number).name

    def text(self) -> str:
        """Return from where to where, in a unit."""
        what = number_of(self.number)
        before, now = (what.text.format(what.shown(value)) for value in (self.before, self.now))
        return f"from {before.split(' ')[0]} to {now}"


@dataclass(frozen=True)
class Alarm:
    """A drift of a `source` under a `recipe`; `moved` is what moved, the cause first, never empty.

    Seconds are since 1970: `since_s` is when it is estimated to have begun, `began_s` when it was found.
    `acknowledged_by` is who said that it is known; empty before.
    """

    number: int
    source: str
    recipe: str
    moved: tuple[Moved, ...]
    since_s: float
    began_s: float
    acknowledged_by: str = ""

    @property
    def cause(self) -> str:
        """What moved most: light, contrast, focus, colour, position, compression, the score or a tap."""
        return self.moved[0].name

    def what(self) -> str:
        """Return what moved, as a sentence's end."""
        also = list(dict.fromkeys(one.name for one in self.moved[1:] if one.name != self.cause))
        more = f" (also {', '.join(also[:ALSO])})" if also else ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since_s))
        return f"{self.cause}, {self.moved[0].text()}, since {since}{more}"

    def text(self) -> str:
        """Return it as a sentence."""
        return f"{place(self.source, self.recipe)}: drift of {self.what()}"

    def said(self) -> dict[str, Any]:
        """Return it for programs: the page, MQTT."""
        moved = [{"number": one.number, "name": one.name, "sigmas": round(one.sigmas, 1)} for one in self.moved]
        return {
            "number": self.number,
            "source": self.source,
            "recipe": self.recipe,
            "cause": self.cause,
            "text": self.text(),
            "moved": moved,
            "since": self.since_s,
            "found": self.began_s,
            "acknowledged_by": self.acknowledged_by,
        }

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Alarm":
        """Rebuild it. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        moved = tuple(Moved(str(one["number"]), *_three(one)) for one in value["moved"])
        if not moved:
            raise ValueError("an alarm must say what moved")
        source, recipe, known_by = (str(value[name]) for name in ("source", "recipe", "acknowledged_by"))
        since_s, began_s = float(value["since_s"]), float(value["began_s"])
        return cls(int(value["number"]), source, recipe, moved, since_s, began_s, known_by)


def place(source: str, recipe: str) -> str:
    """Return where a drift is, in words."""
    return f"{source} ({recipe})" if recipe else source


def is_of_picture(number: str) -> bool:
    """Whether `number` is of the picture itself; score and taps follow it."""
    return number in NUMBERS


def _three(value: dict[str, Any]) -> tuple[float, float, float]:
    return float(value["before"]), float(value["now"]), float(value["sigmas"])
