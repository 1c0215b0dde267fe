"""All recipes of a run and the one that is in force; whoever changes it, changes it here."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from runtime.common.errors import UserError
from runtime.common.notices import say
from runtime.recipes.recipe import Recipe
from runtime.sources.asked import adjustable
from runtime.sources.frame import Source
from runtime.sources.settings import CameraSettings

NOT_BEGUN = "the inspection has not begun"
ENDED = "the inspection has stopped"
NO_RECIPES = "this inspection has no recipes (--recipes)"
UNKNOWN = "there is no recipe of that name"
SHOWN = 20  # names in a refusal

Told = Callable[[Recipe, Recipe, str, str], None]  # the old one, the new one, who asked for it, from where


@dataclass(frozen=True)
class Standing:
    """How a recipe (its name; empty without recipes) stands with its check: `due_s` seconds until the next one is due.

    `reason` says why it gives no verdict, empty where it does; then `due_s` is known.
    """

    recipe: str
    reason: str
    due_s: float | None


class Recipes:
    """The recipes of a run, no two of a name or number; `first` names the one that is in force at the start.

    Any thread may call anything; `use` takes as long as the cameras do that have to be set. `around` is entered while
    the recipe in force is replaced, with the old one and the new one; it may raise `UserError` or `OSError`, and the
    old one stays. `told` are called after each change, in their order.
    """

    def __init__(self, recipes: Sequence[Recipe], first: str = "") -> None:
        self._by_name = {recipe.name: recipe for recipe in recipes}
        self._by_key = {recipe.key: recipe for recipe in recipes}  # those that were replaced, too
        self._in_force = self._by_name[first]
        self._changing = threading.Lock()  # for no longer than cameras, or a sidecar, take
        self.around: Callable[[Recipe, Recipe], AbstractContextManager[None]] = lambda old, new: (
            contextlib.nullcontext()
        )
        self.told: list[Told] = []
        self.withheld: Callable[[Recipe], str] = lambda recipe: ""  # why a recipe may give no verdict now
        # the same of an engine that does not judge yet: the recipe's name, its SHA-256, its limits
        self.would_withhold: Callable[[str, str, tuple[float, float]], str] = lambda recipe, engine, limits: ""
        self.checks: Callable[[], Sequence[Standing]] = tuple  # how each recipe stands with its reference parts
        self.refuses = ""  # why no change is taken; empty where it is

    @property
    def in_force(self) -> Recipe:
        """The recipe that judges now."""
        return self._in_force

    def name_in_force(self) -> str:
        """Return its name, empty in a run without recipes."""
        return self._in_force.name

    def key_in_force(self) -> str:
        """Return what `[]` gives that very recipe for, however often its engine is replaced after this."""
        return self._in_force.key

    @property
    def all(self) -> tuple[Recipe, ...]:
        """Every recipe, in the order of the file."""
        return tuple(self._by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """What can be asked for; nothing in a run without recipes."""
        return tuple(name for name in self._by_name if name)

    def __getitem__(self, key: str) -> Recipe:
        """Return the recipe of a name as it is now, or that of a `key_in_force` as it was then."""
        return self._by_key[key] if "\n" in key else self._by_name[key]

    def numbered(self, number: int) -> str:
        """Return the name of the recipe with that number; empty: there is none."""
        return next((recipe.name for recipe in self.all if recipe.number == number and number), "")

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[Recipe]:
        """Yield the recipe in force, which stays so within: a change of it waits."""
        with self._changing:
            yield self._in_force

    def use(self, name: str, who: str, origin: str) -> str:
        """Judge by the recipe `name` from the next frame, or the next trigger, on.

        Returns why it is refused, and then the old one stays; an empty string where it is in force. `who` asked for
        it, from `origin`.
        """
        with self._changing:
            if not name or name not in self._by_name:
                return self._unknown(name)
            if self.refuses:
                return self.refuses
            old, new = self._in_force, self._by_name[name]
            if new is old:
                return ""
            try:
                with self.around(old, new):
                    self._in_force = new
            except (UserError, OSError) as error:
                return f"the recipe stays {old.name}: {error}"
            say(f"recipe: {new.name} instead of {old.name} ({who}, {origin})")
            for tell in self.told:
                tell(old, new, who, origin)
            return ""

    def replace(self, new: Recipe, note: Callable[[], None]) -> str:
        """Let `new` judge in the place of the recipe of its name, from the next frame, or the next trigger, on.

        Returns why it is refused, and then the old one stays; an empty string where it was done. `note` is called
        before, and may raise: then the old one stays, too.
        """
        with self._changing:
            if self.refuses:
                return self.refuses
            note()
            old = self._by_name[new.name]
            self._by_key[new.key] = new
            self._by_name[new.name] = new
            if self._in_force is old:
                self._in_force = new
            return ""

    def end(self) -> None:
        """Take no change from now on; one that is under way is done, and told, on return."""
        with self._changing:
            self.refuses = ENDED

    def try_cameras(self, sources: Sequence[Source]) -> None:
        """Set the cameras among `sources` to what each recipe needs, the one in force last, before the first frame.

        Raises `UserError` for what one does not take while it runs. One that is not there yet is set when it comes.
        """
        needs = [recipe for recipe in (*self.all, self._in_force) if recipe.camera != CameraSettings()]
        fixed = [source.name for source in sources if not adjustable(source)]
        if needs and fixed:
            raise UserError(
                "recipes with different exposure or genicam need GenICam cameras, which take them while they run",
                ", ".join(fixed),
                "give them on the command line, once for all recipes",
            )
        for recipe in needs:
            with recipe.named():
                for camera in filter(None, map(adjustable, sources)):
                    camera.adjust(recipe.camera)

    def described(self) -> dict[str, Any]:
        """Return what a run's record says of the one in force, as its fields (`runtime.records.run.RunRecord`)."""
        return {**self._in_force.described(), "recipes": tuple(one.row for one in self.all if one.name)}

    def _unknown(self, name: str) -> str:
        if not self.names:
            return NO_RECIPES
        names = ", ".join(self.names[:SHOWN]) + (", ..." if len(self.names) > SHOWN else "")
        return f"{UNKNOWN}: expected {names}, found {name[:100]!a}"
