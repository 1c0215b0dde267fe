"""The threshold of what judges now, as the page shows and changes it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.remote.address import EngineAt
from runtime.engines.sidecar import Threshold, sidecar_path
from runtime.engines.thresholds import BY_HAND, by_hand, store_in_sidecar
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Inspect, Recipe
from runtime.records.run import shown
from runtime.serve.changes import Changes


class ThresholdMoved(Exception):
    """Somebody else has set another threshold, or recipe, since the page was looked at."""


@dataclass(frozen=True)
class ThresholdStatus:
    """What decides now; `method` says how it was chosen.

    `overridden` says that the command line's `--threshold` decided at the start, and will again at the next one.
    `fixed` says why the page cannot change it; empty where it can.
    """

    value: float
    method: str
    maximum: float
    overridden: bool
    fixed: str = ""


class ThresholdControl:
    """Shows and sets the threshold of the recipe in force among `recipes`; `changes` notes who set it.

    Without recipes it is the sidecar's default that is set, and for a recipe that names no threshold. One that a recipe
    names is set in the sidecar under that name. It holds at once for every recipe that would be judged by it after a
    restart. One that is a number stands in the file of the recipes alone.
    """

    def __init__(self, recipes: Recipes, changes: Changes) -> None:
        self._changes = changes
        self._recipes = recipes
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}  # in the sidecar as it is now
        self._kept: dict[int, Threshold] = {}
        self._seen: dict[int, Inspect] = {}  # an engine may be promoted while the line runs
        self._every()

    def status(self) -> ThresholdStatus:
        """Return what decides now."""
        recipe = self._recipes.in_force
        self._every()
        value, kept, fixed = recipe.limits[0], self._kept[id(recipe.first)], _fixed(recipe)
        method = kept.method if value == kept.value else "given on the command line"
        if recipe.name:
            method = fixed or kept.method
        return ThresholdStatus(value, method, recipe.maximum, self._overridden(recipe), fixed)

    def _overridden(self, recipe: Recipe) -> bool:
        """Whether the command line's threshold was in force when it was seen first."""
        return not recipe.name and not recipe.first.threshold_name

    def _every(self) -> list[Inspect]:
        """Return all entries of all recipes, each seen by now."""
        every = [one for recipe in self._recipes.all for one in recipe.inspects]
        for one in every:
            if id(one) not in self._seen:
                sidecar = one.detector.sidecar
                named = self._recipes.names and one.threshold_name
                self._names[id(one)] = one.threshold_name
                self._kept[id(one)] = sidecar.thresholds[one.threshold_name] if named else sidecar.threshold
                self._seen[id(one)] = one
        return every

    def without_folder(self, text: str, more: Sequence[EngineAt] = ()) -> str:
        """Return `text` without the names of the folders of engines, and of `more`, which are nobody's business."""
        engines = [*more, *(one.engine for recipe in self._recipes.all for one in recipe.inspects)]
        folders = {str(path) for engine in engines for path in _parents(engine)} - {"."}
        for folder in sorted(folders, key=len, reverse=True):  # one in another goes first, as a whole
            text = text.replace(f"{folder}/", "")
        return text

    def write(self, value: float, instead_of: float, who: str, origin: str, recipe: str | None = None) -> None:
        """Write `value` to the sidecar as the one that decides, then judge by it; `who` asked for it, from `origin`.

        Takes as long as reading the whole engine file, which the sidecar is checked against. Raises
        `ThresholdMoved` unless the present one is `instead_of`, and `recipe` (None: any) in force, and `UserError` or
        `OSError`, with nothing changed, for a value outside the score's range and a sidecar that cannot be written.
        """
        with self._lock, self._recipes.unchanged() as judges:  # the audit has it before a change of the recipe
            self._every()
            if recipe is not None and recipe != judges.name:
                raise ThresholdMoved(f"the recipe is {judges.name} by now; look at it, then try again")
            if fixed := _fixed(judges):
                cure = "change it in the file of --recipes" if judges.name else "start with --threshold X"
                raise UserError("this threshold cannot be set here", fixed, cure)
            one = judges.first
            assert isinstance(one.engine, Path)  # `_fixed`
            threshold = by_hand(value, self._kept[id(one)], one.detector.sidecar.score_maximum)
            present = one.detector.threshold
            if present != instead_of:
                raise ThresholdMoved(f"the threshold is {present:.6g} by now; look at it, then try again")
            name = BY_HAND if one.follows_default else one.threshold_name
            store_in_sidecar(one.engine, name, threshold, default=one.follows_default)
            for other in self._alike(one, name):
                self._kept[id(other)] = threshold
                other.detector.use(threshold)
            self._note(one, threshold, who, origin)

    def _alike(self, one: Inspect, name: str) -> list[Inspect]:
        """Return all that the sidecar's threshold `name`, just set for `one`, decides for from now on."""
        every = self._every()
        same = [other for other in every if other.detector.session is one.detector.session]
        for other in same:
            if one.follows_default and other.follows_default:
                self._names[id(other)] = name
        return [other for other in same if self._names[id(other)] == name]

    def _note(self, one: Inspect, threshold: Threshold, who: str, origin: str) -> None:
        beside = _sidecar_of(one)
        assert beside is not None  # `_fixed`
        written = sha256_of(beside)
        for other in (other for recipe in self._recipes.all for other in recipe.inspects):
            if _sidecar_of(other) == beside:  # a plan and an ONNX may share it
                other.detector.sidecar_in_force = written
        now = {"threshold": shown(threshold.value), "map threshold": shown(threshold.for_map)}
        self._changes.note({**now, "sidecar": self._recipes.in_force.sidecar_in_force}, who, origin)


def _parents(engine: EngineAt) -> tuple[Path, ...]:
    return (engine.parent, engine.parent.resolve()) if isinstance(engine, Path) else ()


def _sidecar_of(one: Inspect) -> Path | None:
    return sidecar_path(one.engine).resolve() if isinstance(one.engine, Path) else None


def _fixed(recipe: Recipe) -> str:
    """Return why the page cannot set its threshold; empty where it can."""
    if recipe.several:
        return f"{recipe.name} has several thresholds"
    if not isinstance(recipe.first.engine, Path):
        return "the engine's sidecar is on a server"
    if recipe.name and not recipe.first.threshold_name:
        return f"{recipe.name} has a number of its own"
    return ""
