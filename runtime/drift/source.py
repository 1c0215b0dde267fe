"""The drift of one source under one recipe and engine: frames ─▶ blocks ─▶ a test for each number ─▶ one alarm.

`BLOCK` measured frames make a block, and the blocks' means, without the tenth of the frames at either end, go to the
tests. So neighbouring frames, which are alike, count once, and a few anomalous parts do not move anything.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from runtime.drift.alarm import Alarm, Moved, is_of_picture, place
from runtime.drift.numbers import number_of
from runtime.drift.ranks import BLOCKS_A_MONTH, RankCusum
from runtime.images.population import Population, expected_index

BLOCK = 60  # measured frames
ENDS = 10  # the part of a block that does not count, at either end
RECENT = 120  # blocks that are kept as they came
LATEST = 5  # blocks that say where a number is now: so many, at least, it takes to find a change
WINDOW = 1000  # measured frames that the stability index is of
FEWEST = 100  # before it is given
LARGE = 0.25  # a stability index that is usually called a large change
SIGMAS = 1.5  # of a block's mean: a number that moved less is not named


class Change(NamedTuple):
    """That an alarm "began", is now "of more", or "ended" (and then `alarm` is what it was)."""

    kind: str
    alarm: Alarm


class Drift:
    """`names` are the numbers that are watched; `population` is how they were in training, None where nobody knows.

    While nothing changes there are at most `rate` alarms a month, on average.
    """

    def __init__(
        self, source: str, recipe: str, names: Sequence[str], population: Population | None = None, rate: float = 1.0
    ) -> None:
        self.source, self.recipe, self.names = source, recipe, tuple(names)
        self.alarm: Alarm | None = None
        self.indices: dict[str, float] = {}  # the stability index of each number
        self._population = population
        self._limit = BLOCKS_A_MONTH * len(self.names) / rate
        self._random = np.random.default_rng()  # the places of ties
        self._rows: list[list[float]] = []
        self._began_s = 0.0  # of the block
        self._recent: deque[tuple[float, list[float]]] = deque(maxlen=RECENT)
        self._window: deque[list[float]] = deque(maxlen=WINDOW)
        self._compared = False  # with training, once
        self._tests = self._new_tests()

    def _new_tests(self) -> dict[str, RankCusum]:
        return {name: RankCusum(self._limit, number_of(name).least) for name in self.names}

    @property
    def compares(self) -> bool:
        """Whether it knows how the numbers were in training."""
        return self._population is not None

    @property
    def learned(self) -> int:
        """How many blocks later ones are held against."""
        return min(test.learned for test in self._tests.values())

    def add(self, numbers: Mapping[str, float], captured_s: float, next_number: int = 1) -> list[Change]:
        """Take a measured frame; `next_number` is that of an alarm that begins."""
        if not self._rows:
            self._began_s = captured_s
        row = [numbers[name] for name in self.names]
        self._rows.append(row)
        self._window.append(row)
        if len(self._rows) < BLOCK:
            return []
        ordered = np.sort(np.array(self._rows), 0)[len(self._rows) // ENDS : -(len(self._rows) // ENDS) or None]
        means = [float(value) for value in ordered.mean(0)]
        self._rows = []
        self._recent.append((self._began_s, means))
        self._index()
        return self._test(means, captured_s, next_number)

    def _test(self, means: Sequence[float], captured_s: float, next_number: int) -> list[Change]:
        changed = [
            name
            for name, value in zip(self.names, means, strict=True)
            if self._tests[name].add(value, float(self._random.random()), self._began_s)
        ]
        if not changed:
            return []
        before = self.alarm
        if not any(test.alarm for test in self._tests.values()):
            self.alarm = None
            return [Change("ended", before)] if before is not None else []
        if before is None:
            since_s, moved = self._moved()
            self.alarm = Alarm(next_number, self.source, self.recipe, moved, since_s, captured_s)
            return [Change("began", self.alarm)]
        if not any(self._tests[name].alarm for name in changed):  # one of several is back
            return []
        since_s, moved = self._moved()
        self.alarm = replace(before, moved=moved, since_s=min(since_s, before.since_s))
        named = {one.name for one in before.moved}
        if self.alarm.cause == before.cause and {one.name for one in moved} <= named:
            return []
        return [Change("of more", self.alarm)]

    def _moved(self) -> tuple[float, tuple[Moved, ...]]:
        """Return since when, and what moved: the cause first, numbers of the picture before those that follow it."""
        alarming = [test.since for test in self._tests.values() if test.since is not None]
        since_s = min(alarming)
        after = np.median([row for _, row in list(self._recent)[-LATEST:]], 0)
        found = []
        for name, now in zip(self.names, after, strict=True):
            test = self._tests[name]
            moved = Moved(name, test.reference[1], float(now), test.moved(float(now)))
            if test.alarm or (abs(moved.sigmas) >= SIGMAS and abs(moved.now - moved.before) >= test.least):
                found.append(moved)
        return since_s, tuple(sorted(found, key=lambda one: (not _may_be_cause(one), -abs(one.sigmas))))

    def renew(self) -> None:
        """Take what came since the alarm began for the new normal: later blocks are held against that."""
        since_s = self.alarm.since_s if self.alarm is not None else 0.0
        kept = [(began_s, row) for began_s, row in self._recent if began_s >= since_s]
        self.alarm, self._tests = None, self._new_tests()
        for began_s, row in kept:
            for name, value in zip(self.names, row, strict=True):
                self._tests[name].add(value, float(self._random.random()), began_s)
        if any(test.alarm for test in self._tests.values()):  # it moved on meanwhile: learn what is to come
            self._tests = self._new_tests()

    def _index(self) -> None:
        if self._population is None or len(self._window) < FEWEST:
            return
        values = dict(zip(self.names, np.array(self._window).T, strict=True))
        self.indices = {
            name: self._population.stability_index(name, values[name], number_of(name).least)
            for name in self.names
            if name in self._population.points
        }

    def unlike_training(self) -> str:
        """Say once, when the first `WINDOW` is full, what of it is not as in training; empty where all is, and later.

        A number is named whose index is large beyond chance, and whose median is outside of training's middle 80 %.
        """
        population = self._population
        if population is None or self._compared or len(self._window) < WINDOW or not self.indices:
            return ""
        self._compared = True
        limit = LARGE + 2 * expected_index(population.count, WINDOW)
        medians = dict(zip(self.names, np.median(np.array(self._window), 0), strict=True))
        said = []
        for name, index in self.indices.items():
            low, middle, high = population.middle(name)
            least = number_of(name).least
            now = float(medians[name])
            if index > limit and not low - least <= now <= high + least:
                what = number_of(name)
                said.append(f"{what.name} {Moved(name, middle, now, 0.0).text()} (stability index {index:.2f})")
        found = "; ".join(said)
        return f"{place(self.source, self.recipe)}: not as in training: {found}" if found else ""

    def to_json(self) -> dict[str, Any]:
        """Return what has to survive a restart; `restore` takes it."""
        return {
            "names": list(self.names),
            "tests": {name: test.to_json() for name, test in self._tests.items()},
            "recent": [[began_s, row] for began_s, row in self._recent],
            "alarm": None if self.alarm is None else self.alarm.to_json(),
            "compared": self._compared,
        }

    def restore(self, value: Mapping[str, Any]) -> None:
        """Go on where `to_json` was. Raises `KeyError`, `TypeError` or `ValueError`, unchanged, for anything else."""
        if tuple(value["names"]) != self.names:
            raise ValueError("other numbers are watched")
        tests = self._new_tests()
        for name, test in tests.items():
            test.restore(value["tests"][name])
        recent = [(float(began_s), [float(one) for one in row]) for began_s, row in value["recent"]]
        if any(len(row) != len(self.names) for _, row in recent):
            raise ValueError("a block has other numbers")
        alarm = None if value["alarm"] is None else Alarm.from_json(value["alarm"])
        if (alarm is None) == any(test.alarm for test in tests.values()):
            raise ValueError("alarm and tests contradict each other")
        self._tests, self.alarm, self._compared = tests, alarm, bool(value["compared"])
        self._recent = deque(recent, RECENT)


def _may_be_cause(moved: Moved) -> bool:
    """Whether it is a cause: score and taps follow what happens to the picture."""
    return is_of_picture(moved.number) and abs(moved.sigmas) >= SIGMAS
