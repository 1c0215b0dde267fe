"""Recipes in a file, `--recipes recipes.toml`: read and checked before anything is opened.

    [[recipe]]
    name = "cable"
    engine = "cable.onnx"
    threshold = "strict"         # a name in the sidecar, or a number; left out: the sidecar's own
    roi = "100,50,640,480"

    [[recipe]]
    name = "plug"
    [[recipe.inspect]]           # several detectors, or regions, for one frame
    name = "left"
    engine = "plug.onnx"
    roi = "0,0,320,240"

What an entry leaves out is as on the command line. A recipe is then the command line with some options changed.
"""

import argparse
import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.config_file import options_of, read_toml, words_of_value
from runtime.common.errors import UserError
from runtime.recipes.message import LONGEST
from runtime.recipes.options import OF_INSPECT, OF_RECIPE, entry_parser

MOST_RECIPES = 65535  # what a register of a controller holds
# GenICam's names of what stands while a camera sends: the size and kind of its pictures, and how it sends them
FIXED_NODES = ("Width", "Height", "Binning", "Decimation", "PixelFormat", "Trigger", "Acquisition", "UserSet", "Gev")
EXAMPLE = '[[recipe]], then lines such as name = "cable" and engine = "cable.onnx"'


@dataclass(frozen=True)
class InspectSpec:
    """An entry `[[recipe.inspect]]`, or the only one of a recipe without: `args` is its command line.

    `threshold` is a number, a name in the sidecar, or empty: the sidecar's own.
    """

    name: str
    args: argparse.Namespace
    threshold: float | str

    @contextlib.contextmanager
    def named(self, recipe: str) -> Iterator[None]:
        """Let a `UserError` within say of which recipe and entry it is."""
        try:
            yield
        except UserError as error:
            entry = f", inspect {self.name}" if self.name else ""
            raise UserError(f"recipe {recipe}{entry}: {error}") from None


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe that is not open yet; `args` is the command line as it is with it."""

    name: str
    number: int
    args: argparse.Namespace
    inspects: tuple[InspectSpec, ...]


def read_recipes(path: Path, args: argparse.Namespace, known: Mapping[str, Any]) -> list[RecipeSpec]:
    """Read the file at `path`; `args` is the command line, `known` are the names of all its options.

    Raises `UserError`, in one line, for what is no recipe.
    """
    _, values = read_toml(path, "--recipes")
    entries = values.pop("recipe", None)
    if values:
        raise UserError(f"{path}: all must stand in a [[recipe]]", repr(next(iter(values))), EXAMPLE)
    found = _tables(str(path), "recipe", entries)
    if not found or len(found) > MOST_RECIPES:
        raise UserError(f"{path} must hold 1 to {MOST_RECIPES} recipes", str(len(found)), EXAMPLE)
    specs = [_recipe(path, place, entry, args, known) for place, entry in enumerate(found, 1)]
    for what in ("name", "number"):
        given = [getattr(spec, what) for spec in specs]
        if twice := next((value for i, value in enumerate(given) if value in given[:i]), None):
            raise UserError(f"{path}: each recipe must have a {what} of its own", f"{twice!r} twice", "change one")
    _check_alike(path, specs)
    return specs


def _recipe(
    path: Path, place: int, entry: dict[str, Any], args: argparse.Namespace, known: Mapping[str, Any]
) -> RecipeSpec:
    name = _name(f"{path}, recipe {place}", entry.pop("name", None))
    where = f"{path}, recipe {name!r}"
    number = entry.pop("number", place)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_RECIPES:
        raise UserError(f"{where}: number must be a whole number from 1 to {MOST_RECIPES}", repr(number))
    inspects = _tables(where, "inspect", entry.pop("inspect", []))
    whole = _with(args, entry, where, OF_RECIPE, known)
    if not inspects:
        specs = [_inspect("", whole, where)]
    else:
        specs = [_inspect_entry(where, place, inner, whole, known) for place, inner in enumerate(inspects, 1)]
    names = [spec.name for spec in specs]
    if twice := next((one for i, one in enumerate(names) if one in names[:i]), None):
        raise UserError(f"{where}: each inspect must have a name of its own", f"{twice!r} twice", "change one")
    whole.engine, whole.recipe = specs[0].args.engine, name
    return RecipeSpec(name, number, whole, tuple(specs))


def _inspect_entry(
    where: str, place: int, entry: dict[str, Any], args: argparse.Namespace, known: Mapping[str, Any]
) -> InspectSpec:
    name = _name(f"{where}, inspect {place}", entry.pop("name", None))
    where = f"{where}, inspect {name!r}"
    return _inspect(name, _with(args, entry, where, OF_INSPECT, known), where)


def _inspect(name: str, args: argparse.Namespace, where: str) -> InspectSpec:
    if args.engine is None:
        raise UserError(f"{where} must name its engine", "none", 'engine = "cable.onnx"')
    return InspectSpec(name, args, _threshold(where, args.threshold))


def _threshold(where: str, given: Any) -> float | str:
    """Return a number, or the name of a threshold; a number may stand in quotes, too."""
    if given is None:
        return ""
    try:
        return float(given)
    except ValueError:
        if 0 < len(given) <= LONGEST and given.isprintable():
            return str(given)
    raise UserError(f"{where}: threshold must be a number, or a name in the sidecar", repr(given))


def _with(
    args: argparse.Namespace, entry: dict[str, Any], where: str, allowed: Sequence[str], known: Mapping[str, Any]
) -> argparse.Namespace:
    """Return the command line `args` with what `entry` says in the place of its own."""
    parser = entry_parser(allowed)
    options = options_of(parser)
    words: list[str] = []
    for key, value in entry.items():
        name = key.replace("_", "-")
        if name not in options:
            raise _unknown(where, name, options, known)
        words += words_of_value(options[name], name, value, where)
    said = vars(parser.parse_args(words))
    given = {name: said[name] for name in (key.replace("-", "_") for key in entry)}
    if "genicam" in given:  # the command line's others stay
        given["genicam"] = list({**dict(args.genicam or ()), **dict(given["genicam"])}.items())
    return argparse.Namespace(**{**vars(args), **given})


def _unknown(where: str, name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> UserError:
    if name in known:
        cure = "give it on the command line or in --config, once for all recipes"
        return UserError(f"{where}: {name} cannot change while the line runs", "it in a recipe", cure)
    nearest = difflib.get_close_matches(name, [*options, "name"], 1)
    can_be = ", ".join(["name", *options])
    cure = f"did you mean {nearest[0]}?" if nearest else "leave it out"
    return UserError(f"{where}: a setting must be one of {can_be}", repr(name), cure)


def _tables(where: str, kind: str, given: Any) -> list[dict[str, Any]]:
    if isinstance(given, list) and all(isinstance(entry, dict) for entry in given):
        return [dict(entry) for entry in given]
    found = "none" if given is None else "another kind of value"
    raise UserError(f"{where}: {kind} must be written as [[{kind}]]", found, EXAMPLE)


def _name(where: str, given: Any) -> str:
    good = isinstance(given, str) and given.isprintable() and given == given.strip() and len(given) <= LONGEST
    if not (good and given):
        found = "none" if given is None else ascii(given)[:LONGEST]
        raise UserError(f"{where}: name must be 1 to {LONGEST} printable characters", found, 'name = "cable"')
    return str(given)


def _check_alike(path: Path, specs: Sequence[RecipeSpec]) -> None:
    """Raise `UserError` where one recipe sets what another leaves: it would depend on which was in force before."""
    exposed = [spec.name for spec in specs if spec.args.exposure is not None]
    for spec in specs:
        if exposed and spec.args.exposure is None:
            raise UserError(f"{path}, recipe {spec.name!r} must say exposure too", f"only {exposed[0]!r} says it", _ALL)
        named = dict(spec.args.genicam or ())
        for other in specs:
            for node in dict(other.args.genicam or ()):
                if node not in named:
                    found = f"only {other.name!r} says it"
                    raise UserError(f"{path}, recipe {spec.name!r} must say genicam {node} too", found, _ALL)
                if node.startswith(FIXED_NODES) and dict(other.args.genicam)[node] != named[node]:
                    cure = "give it on the command line, once for all recipes"
                    raise UserError(f"{path}: genicam {node} cannot change while the line runs", "two values", cure)


_ALL = "give it in every recipe, or on the command line for those that do not"
