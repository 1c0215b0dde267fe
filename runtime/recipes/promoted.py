"""Which engine judges in the place of the one that a line names: a small file beside that one, written by a promotion.

cable.onnx.promoted.json says that cable2.onnx judges where --engine cable.onnx is given. It outlives a restart, and a
line that finds it says so. It counts for the very file that it was written for: a cable.onnx that was built anew judges
itself. An engine that was promoted and is not there any more ends the start: the old one never judges without a word.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import printable, read_json, sha256_of, sync_folder, write_json
from runtime.common.locks import one_writer
from runtime.common.moments import utc
from runtime.common.notices import say
from runtime.engines.remote.address import EngineAt, RemoteEngine
from runtime.recipes.file import RecipeSpec

SCHEMA = "cflow-edge/promoted/1"
LARGEST = 1 << 20  # bytes of the file
PATIENCE_S = 5.0  # for another line that writes it
MOST = 20  # promotions on top of each other
ON_A_SERVER = "an engine on a server is replaced there: write it as a new version (cflow triton), then start again"


@dataclass(frozen=True)
class Step:
    """An engine that was promoted: its `file` from the folder of the one that a line names, who did it, when."""

    file: str
    sha256: str
    time: str
    who: str
    origin: str

    @classmethod
    def of(cls, path: Path, beside: Path, sha256: str, who: str, origin: str) -> "Step":
        """Return the step to the engine at `path` from one in the folder of `beside`."""
        found = os.path.relpath(path.resolve(), beside.resolve().parent)
        return cls(found, sha256, utc(time.time()), printable(who), printable(origin))


@dataclass(frozen=True)
class Standing:
    """What judges where a line names the engine `named`: the last of `steps`, or itself without any.

    `threshold` is what the line gives with that name: a number, a name in the sidecar, or empty. It is for that engine
    alone: one that was promoted has its own.
    """

    named: EngineAt
    steps: tuple[Step, ...] = ()
    threshold: float | str = ""

    @property
    def path(self) -> EngineAt:
        """The engine that judges."""
        return self._at(len(self.steps))

    @property
    def before(self) -> EngineAt | None:
        """The engine that judged before the last promotion; None where there was none."""
        return self._at(len(self.steps) - 1) if self.steps else None

    def _at(self, place: int) -> EngineAt:
        if not place or isinstance(self.named, RemoteEngine):
            return self.named
        return self.named.resolve().parent / self.steps[place - 1].file

    def on(self, step: Step) -> "Standing":
        """Return what is so after a promotion. Raises `UserError` where there were too many."""
        if len(self.steps) >= MOST:
            found = f"{MOST} of them"
            raise UserError(f"promotions from {self.named.name} must end somewhere", found, "name the newest: --engine")
        return replace(self, steps=(*self.steps, step))

    def back(self) -> "Standing":
        """Return what is so once the last promotion is undone."""
        return replace(self, steps=self.steps[:-1])


def note_of(named: Path) -> Path:
    """Return where the promotions from the engine `named` stand."""
    return named.with_name(f"{named.name}.promoted.json")


def standing(named: EngineAt, recipe: str = "", threshold: float | str = "") -> Standing:
    """Return what judges where `recipe` (empty without recipes) names the engine `named`, and say it where it differs.

    Raises `UserError` where that cannot be known, or is not there any more as it was.
    """
    if isinstance(named, RemoteEngine):
        return Standing(named, (), threshold)  # what judges there is changed there
    note = note_of(named)
    entry = _recipes(note).get(recipe) if note.exists() else None
    if entry is None or not named.is_file():
        return Standing(named, (), threshold)
    found = Standing(named, tuple(Step(**step) for step in entry["promoted"]), threshold)
    of = f"recipe {recipe}: " if recipe else ""
    if not found.steps:
        return found
    last = found.steps[-1]
    if sha256_of(named) != entry["sha256"]:
        say(f"{of}engine: {named.name}, which is another file than {last.file} was promoted from; that counts no more")
        return Standing(named, (), threshold)
    cure = f"put it back as it was, or remove {note} to judge with {named.name}"
    expected = f"{of}{last.file}, promoted in the place of {named.name} by {last.who}, {last.time}, must be there"
    path = found.path
    assert isinstance(path, Path)
    if not path.is_file():
        raise UserError(expected, "no such file", cure)
    if sha256_of(path) != last.sha256:
        raise UserError(f"{expected} as it was", "another file", cure)
    own = "" if threshold == "" else "; it has a threshold of its own"
    say(f"{of}engine: {last.file}, promoted in the place of {named.name} by {last.who}, {last.time}{own}")
    return found


def standings_of(args: argparse.Namespace, specs: Sequence[RecipeSpec]) -> dict[str, Standing]:
    """Return what judges where the command line, or each recipe with one detector, names an engine: promotions stand.

    Raises `UserError` where an engine that was promoted is not there any more.
    """
    if not specs:
        return {"": standing(args.engine, "", "" if args.threshold is None else args.threshold)}
    single = [(spec.name, spec.inspects[0]) for spec in specs if len(spec.inspects) == 1]
    return {name: standing(one.args.engine, name, one.threshold) for name, one in single}


def by_standing(spec: RecipeSpec, standings: Mapping[str, Standing]) -> RecipeSpec:
    """Return a recipe with the engine that was promoted in it, which judges by its own threshold."""
    found = standings.get(spec.name)
    if found is None or not found.steps:
        return spec
    [one] = spec.inspects
    args = argparse.Namespace(**{**vars(one.args), "engine": found.path})
    return replace(spec, inspects=(replace(one, args=args, threshold=""),))


def write(now: Standing, recipe: str, sha256: str) -> None:
    """Note what judges from now on; `sha256` is that of the engine which is named. On return it is on the disk.

    Raises `OSError` or `UserError`, with what stood there unchanged.
    """
    if isinstance(now.named, RemoteEngine):
        raise UserError(ON_A_SERVER)
    note = note_of(now.named)
    with one_writer(note, note.name, "try again in a moment", PATIENCE_S):
        entries = _recipes(note) if note.exists() else {}
        if now.steps:
            entries[recipe] = {"sha256": sha256, "promoted": [asdict(step) for step in now.steps]}
        else:
            entries.pop(recipe, None)
        if entries:
            write_json(note, {"schema": SCHEMA, "recipes": entries})
        else:
            note.unlink(missing_ok=True)
        sync_folder(note.parent)


def _recipes(note: Path) -> dict[str, Any]:
    cure = "remove it, and the engine that is named judges again"
    value = read_json(note, LARGEST, cure)
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(value["schema"])
        entries: dict[str, Any] = value["recipes"]
        for entry in entries.values():
            str(entry["sha256"])
            if not all(isinstance(text, str) for step in entry["promoted"] for text in asdict(Step(**step)).values()):
                raise ValueError("no text")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{note} must say what was promoted", f"something else ({error})", cure) from None
    return entries
