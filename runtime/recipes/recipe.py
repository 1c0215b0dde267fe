"""A recipe that is open: engines, their thresholds, and what each of them sees of a frame."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import printable
from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.images.parts import JOINT_THRESHOLD
from runtime.images.view import View
from runtime.sources.settings import CameraSettings

ALTOGETHER = ", "


def _limits(detector: Detector) -> str:
    value, of_map = detector.threshold, detector.map_threshold
    return f"{value:.9g}" if value == of_map else f"{value:.9g}, map {of_map:.9g}"


@dataclass(frozen=True, eq=False)
class Inspect:
    """One detector and what it sees of a frame.

    `name` is empty where a recipe has only one. `detector` has this entry's own threshold, and may share its engine
    with others. `views` has one for each source, in their order, or none at all. `threshold_name` is the sidecar's name
    of its threshold; empty: it was given as a number. `follows_default`: it is whichever the sidecar names by itself.
    """

    name: str
    detector: Detector
    engine: EngineAt
    views: tuple[View, ...] = ()
    threshold_name: str = ""
    follows_default: bool = False


@dataclass(frozen=True, eq=False)
class Recipe:
    """What judges the frames of a run while this recipe is in force.

    `name` is empty, and `number` 0, in a run without recipes. `camera` is what cameras are set to with it. `settings`
    are those whose change an audit asks for, by name as texts (`runtime.records.options`). `run` is the id of the run
    that records name where its engine was changed while the line runs; empty: the one that began at the start.
    """

    name: str
    inspects: tuple[Inspect, ...]
    number: int = 0
    camera: CameraSettings = field(default_factory=CameraSettings)
    settings: Mapping[str, str] = field(default_factory=dict)
    run: str = ""

    @classmethod
    def plain(cls, detector: Detector, engine: EngineAt = Path(), views: Sequence[View] = ()) -> "Recipe":
        """Return the recipe of a run without recipes."""
        chosen = detector.sidecar
        name = chosen.default_threshold if detector.threshold == chosen.threshold.value else ""
        return cls("", (Inspect("", detector, engine, tuple(views), name, True),))

    @property
    def key(self) -> str:
        """What tells it from all others of the run, those of its name with another engine too."""
        return f"{self.name}\n{self.run}"

    @property
    def first(self) -> Inspect:
        """Its only entry, or the first of several."""
        return self.inspects[0]

    @property
    def several(self) -> bool:
        """Whether several detectors, or one on several regions, judge a frame."""
        return len(self.inspects) > 1

    @property
    def slots(self) -> int:
        """How many executions of it may be under way; several detectors judge a frame before the next one is taken."""
        return 1 if self.several else self.first.detector.session.slots

    @cached_property
    def engine(self) -> str:
        """The names of its engines' files."""
        return ALTOGETHER.join(dict.fromkeys(one.engine.name for one in self.inspects))

    @cached_property
    def engine_sha256(self) -> str:
        """The SHA-256 of its engines' files, each once, in the order of `engine`."""
        return ALTOGETHER.join(dict.fromkeys(one.detector.hashes.engine for one in self.inspects))

    @cached_property
    def sidecar_sha256(self) -> str:
        """The SHA-256 of their sidecars as they were loaded."""
        return ALTOGETHER.join(dict.fromkeys(one.detector.hashes.sidecar for one in self.inspects))

    @property
    def sidecar_in_force(self) -> str:
        """The SHA-256 of their sidecars as they are now: a threshold that the page sets is written into one."""
        return ALTOGETHER.join(dict.fromkeys(one.detector.sidecar_in_force for one in self.inspects))

    @property
    def limits(self) -> tuple[float, float]:
        """What a frame's score and its map are held against."""
        if self.several:
            return JOINT_THRESHOLD, JOINT_THRESHOLD
        return self.first.detector.threshold, self.first.detector.map_threshold

    @property
    def maximum(self) -> float:
        """The largest score that there is with it."""
        if self.several:
            detectors = [one.detector for one in self.inspects]
            return max(one.sidecar.score_maximum / one.map_threshold for one in detectors)
        return self.first.detector.sidecar.score_maximum

    @property
    def tiles(self) -> int:
        """Into how many tiles its engines cut a frame, all of them together; 0: none does."""
        grids = [one.detector.sidecar.tiles for one in self.inspects]
        return sum(grid.count for grid in grids if grid is not None)

    @property
    def audited(self) -> dict[str, str]:
        """What an audit compares beside engine and threshold of the frame: of several entries each one's, as it is now.

        The joint threshold is always 1, whatever theirs are.
        """
        limits = {f"inspect {one.name} threshold": _limits(one.detector) for one in self.inspects if self.several}
        return {**self.settings, **limits}

    @property
    def row(self) -> tuple[str, str, str, str]:
        """What a run's record says of it among its recipes: name, engines and the hashes of these and of sidecars."""
        return printable(self.name), printable(self.engine), self.engine_sha256, self.sidecar_sha256

    def described(self) -> dict[str, Any]:
        """Return what a run's record says of it in force, as its fields (`runtime.records.run.RunRecord`)."""
        _, engine, engine_sha256, sidecar_sha256 = self.row
        threshold, map_threshold = self.limits
        return {
            "engine": engine,
            "engine_sha256": engine_sha256,
            "sidecar_sha256": sidecar_sha256,
            "device": self.first.detector.session.device,
            "threshold": threshold,
            "map_threshold": map_threshold,
        }

    def check(self) -> None:
        """Raise `UserError` where a view leaves too little of a map, before the first frame."""
        with self.named():
            for one in self.inspects:
                for view in one.views:
                    view.check_map(one.detector.session.input_size, one.detector.sidecar.scoring)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Let a `UserError` within say which recipe it is of, where there are recipes."""
        try:
            yield
        except UserError as error:
            if not self.name:
                raise
            raise UserError(f"recipe {self.name}: {error}") from None
