"""Recipes opened: every engine is loaded and checked before the first frame, each file once."""

import argparse
import contextlib
from collections.abc import Callable, Sequence

from runtime.common.errors import UserError
from runtime.common.machine import own_bytes
from runtime.common.notices import say
from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.engines.sidecar import Sidecar, Threshold
from runtime.images.view import View
from runtime.recipes.file import InspectSpec, RecipeSpec
from runtime.recipes.recipe import Inspect, Recipe
from runtime.sources.settings import CameraSettings

SEEN = ("roi", "mask", "mask_fill")  # what an entry may have of its own
Load = Callable[[EngineAt], Detector]
Views = Callable[[argparse.Namespace], list[View]]
Settings = Callable[[argparse.Namespace], dict[str, str]]


def open_recipes(
    specs: Sequence[RecipeSpec], load: Load, views: Views, settings: Settings, stack: contextlib.ExitStack
) -> list[Recipe]:
    """Open every recipe, with `load` for each engine's file, which `stack` closes; the memory that it takes is said.

    `views` and `settings` read a command line: what is judged of each source's frames, and what an audit asks for.
    Raises `UserError` for an engine, a threshold or a mask that cannot be used.
    """
    before = _memory()
    engines: dict[EngineAt, Detector] = {}
    for spec in specs:
        for one in spec.inspects:
            path = one.args.engine
            if path.resolve() not in engines:
                with one.named(spec.name):
                    engines[path.resolve()] = stack.enter_context(load(path))
    cameras = _camera_settings(specs)
    recipes = [
        Recipe(
            spec.name,
            tuple(_inspect(spec, one, engines[one.args.engine.resolve()], views) for one in spec.inspects),
            spec.number,
            camera,
            _settings(spec, settings),
        )
        for spec, camera in zip(specs, cameras, strict=True)
    ]
    for recipe in recipes:
        recipe.check()
    _check_white(recipes)
    say(f"recipes: {_counted(len(recipes), 'recipe')}, {_counted(len(engines), 'engine')} loaded{_taken(before)}")
    return recipes


def _settings(spec: RecipeSpec, settings: Settings) -> dict[str, str]:
    """Return what an audit asks for: of a single entry as such, of each of several as one text beside the recipe's."""
    if len(spec.inspects) == 1:
        return settings(spec.inspects[0].args) | {"recipe": spec.name}
    return settings(spec.args) | {
        f"inspect {one.name}": ", ".join(
            [one.args.engine.name, *(f"{what} {value}" for what, value in settings(one.args).items() if what in SEEN)]
        )
        for one in spec.inspects
    }


def _inspect(spec: RecipeSpec, one: InspectSpec, engine: Detector, views: Views) -> Inspect:
    with one.named(spec.name):
        seen = tuple(views(one.args))
        threshold, name = chosen_threshold(one.threshold, engine.sidecar)
        detector = engine.beside(threshold)
        if len(spec.inspects) > 1 and not (detector.threshold > 0 and detector.map_threshold > 0):
            raise UserError("each threshold of a recipe with several inspects must be above 0", "0")
    return Inspect(one.name, detector, one.args.engine, seen, name, one.threshold == "")


def chosen_threshold(given: float | str, sidecar: Sidecar) -> tuple[Threshold, str]:
    """Return a threshold and the name that the sidecar has for it, empty for a number.

    Raises `UserError` for a name that it has not.
    """
    if isinstance(given, float):
        return Threshold(given, "given by a recipe", map_value=_map_value(given, sidecar.threshold)), ""
    name = given or sidecar.default_threshold
    if name not in sidecar.thresholds:
        known = ", ".join(sidecar.thresholds)
        raise UserError(f"threshold must be a number or one of the sidecar's ({known})", repr(name))
    return sidecar.thresholds[name], name


def _map_value(value: float, chosen: Threshold) -> float:
    return value if chosen.map_value is None else chosen.map_value


def _camera_settings(specs: Sequence[RecipeSpec]) -> list[CameraSettings]:
    """Return what cameras are set to with each recipe: only what is not the same with all of them."""
    nodes = [dict(spec.args.genicam or ()) for spec in specs]
    exposures = [spec.args.exposure for spec in specs]
    differ = [name for name in nodes[0] if len({of[name] for of in nodes}) > 1]
    exposed = len(set(exposures)) > 1
    return [
        CameraSettings(exposure if exposed else None, tuple((name, of[name]) for name in differ))
        for exposure, of in zip(exposures, nodes, strict=True)
    ]


def _check_white(recipes: Sequence[Recipe]) -> None:
    """Raise `UserError` where engines differ in what is white in 16-bit files: frames are read once for all."""
    first = recipes[0].first
    for recipe in recipes:
        for one in recipe.inspects:
            if one.detector.sidecar.white != first.detector.sidecar.white:
                found = f"{one.detector.sidecar.white} in {one.engine.name}"
                raise UserError(
                    f"all engines must be trained with one white of 16-bit files, {first.detector.sidecar.white}", found
                )


def _memory() -> int | None:
    with contextlib.suppress(OSError):  # no Linux
        return own_bytes()
    return None


def _taken(before: int | None) -> str:
    now = _memory()
    return "" if before is None or now is None else f", {max(0, now - before) / 1e6:.0f} MB of memory"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
