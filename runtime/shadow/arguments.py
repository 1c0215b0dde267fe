"""The command line of a candidate: `--shadow`, `--shadow-mask`, `--shadow-recipe`; importing this loads no library."""

import argparse
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.common.errors import UserError
from runtime.engines.remote.address import EngineAt, RemoteEngine, engine, there

if TYPE_CHECKING:
    from runtime.detector import Detector
    from runtime.images.view import View
    from runtime.recipes.book import Recipes
    from runtime.recipes.promoted import Standing
    from runtime.recipes.recipe import Inspect
    from runtime.records.log import Log
    from runtime.records.run import RunRecord
    from runtime.shadow.candidate import Candidate
    from runtime.shadow.promotion import Promotion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `open_shadow` reads."""
    group = parser.add_argument_group("a candidate beside the engine")
    group.add_argument(
        "--shadow",
        type=engine,
        metavar="FILE",
        help="an engine that judges the same frames beside the one in force and is compared with it, to be promoted",
    )
    group.add_argument(
        "--shadow-mask",
        action="append",
        metavar="FILE",
        help="the candidate sees with this mask instead of --mask; with several sources one each, or none; it may then "
        "be the very engine that judges",
    )
    group.add_argument(
        "--shadow-recipe", metavar="NAME", help="the recipe that it is for (default: the one to start with)"
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to."""
    if args.shadow_recipe is not None and (args.shadow is None or args.recipes is None):
        parser.error("--shadow-recipe needs --shadow FILE and --recipes FILE")
    if args.shadow_mask is not None:
        if args.shadow is None:
            parser.error("--shadow-mask needs --shadow FILE, which may be the engine itself")
        if args.recipes is not None or args.mask_fill:
            parser.error("--shadow-mask is for a line without --recipes and without --mask-fill")


def recipe_of(args: argparse.Namespace, recipes: "Recipes") -> str:
    """Return the name of the candidate's recipe. Raises `UserError` for none, and for one with several."""
    name = str(args.shadow_recipe or recipes.name_in_force())
    if name and name not in recipes.names:
        raise UserError(f"--shadow-recipe must be one of {', '.join(recipes.names)}", repr(name))
    if recipes[name].several:
        found = f"recipe {name} with {len(recipes[name].inspects)}"
        raise UserError("--shadow needs a recipe with one detector", found, "name another one by --shadow-recipe")
    return name


def candidate_of(
    args: argparse.Namespace,
    recipe: str,
    recipes: "Recipes",
    standing: "Standing",
    masked: "Mapping[str, View] | None" = None,
) -> "Candidate":
    """Return the engine that judges in shadow: that of `--shadow`; where that judges already, the one before it.

    What it sees by masks of its own is `masked`, by source. Raises `UserError` for one that cannot stand beside the
    engine that judges.
    """
    from runtime.shadow.candidate import Candidate

    one = recipes[recipe].first
    path: EngineAt = args.shadow
    itself = there(path) and path.resolve() == one.engine.resolve()
    if masked:
        found = Candidate.of_inspect(one) if itself else _candidate_at(path, args)
        return _checked(replace(found, views=masked), one)
    if itself:
        if standing.before is None:
            raise UserError("--shadow must be another engine than the one that judges", str(path), "name another file")
        path = standing.before
    found = _candidate_at(path, args)
    if standing.steps and path.resolve() == standing.named.resolve():
        found = _as_named(found, standing, recipe)
    return _checked(found, one)


def _candidate_at(path: EngineAt, args: argparse.Namespace) -> "Candidate":
    from runtime.engines.remote.options import options_of
    from runtime.shadow.candidate import Candidate

    return Candidate.of_server(path, options_of(args)) if isinstance(path, RemoteEngine) else Candidate.of_file(path)


def _checked(found: "Candidate", one: "Inspect") -> "Candidate":
    """Return the candidate. Raises `UserError` for one that cannot see what `one` sees, or too little of it."""
    white = one.detector.sidecar.white
    if found.sidecar.white != white:
        expected = f"--shadow must be trained with the white of 16-bit files of {one.engine.name}, {white}"
        raise UserError(expected, f"{found.sidecar.white} in {found.path.name}")
    for view in found.views.values() or one.views:
        view.check_map(found.sidecar.input_size, found.sidecar.scoring)
    return found


def _as_named(found: "Candidate", standing: "Standing", recipe: str) -> "Candidate":
    """Return the engine that the command line names as it would judge by that: with the threshold given there."""
    from runtime.engines.thresholds import on_scale
    from runtime.recipes.opened import chosen_threshold

    threshold, name = chosen_threshold(standing.threshold, found.sidecar)
    threshold = on_scale(threshold, found.sidecar.score_maximum)
    return replace(
        found, threshold=threshold, threshold_name=name, follows_default=not recipe or standing.threshold == ""
    )


def loader(args: argparse.Namespace) -> "Callable[[EngineAt], Detector]":
    """Return what opens an engine as the line does."""
    from runtime.detector import load
    from runtime.engines.backends import load_options

    return lambda path: load(path, threads=args.threads, **load_options(args))


def put_candidate(
    args: argparse.Namespace, recipes: "Recipes", standings: "Mapping[str, Standing]", stack: contextlib.ExitStack
) -> str:
    """Let the candidate judge in the place of its recipe's engine, before a line begins; return the recipe's name."""
    if args.shadow_mask is not None:
        raise UserError("a candidate to be checked judges as it would once promoted", "--shadow-mask", "leave it out")
    name = recipe_of(args, recipes)
    candidate = candidate_of(args, name, recipes, standings[name])
    one = candidate.inspect(stack.enter_context(loader(args)(candidate.path)), recipes[name].first)
    recipes.refuses = ""
    recipes.replace(replace(recipes[name], inspects=(one,)), lambda: None)
    return name


def describe(args: argparse.Namespace) -> list[str]:
    """Return, for --dry-run, a line on the candidate; nothing where there is none."""
    if args.shadow is None:
        return []
    from runtime.common.files import printable

    missing = "" if there(args.shadow) else ", would not open: no such file"
    return [f"shadow: {printable(str(args.shadow))}{missing}"]


def open_shadow(
    args: argparse.Namespace,
    recipes: "Recipes",
    standings: "Mapping[str, Standing]",
    run: "RunRecord",
    log: "Log | None",
    live: Collection[str],
    stack: contextlib.ExitStack,
    masked: "Mapping[str, View] | None" = None,
) -> "Promotion | None":
    """Return the candidate beside the line, with what promotes it; None where none was asked for. `stack` closes it.

    `masked` are the views of `--shadow-mask`, by source. Raises `UserError` for one that cannot be opened, or not stand
    beside the engine that judges.
    """
    if args.shadow is None:
        return None
    from runtime.common.files import sha256_of
    from runtime.engines.backends import load_options
    from runtime.shadow.beside import Shadow
    from runtime.shadow.promotion import Line, Promotion

    recipe = recipe_of(args, recipes)
    standing = standings[recipe]
    candidate = candidate_of(args, recipe, recipes, standing, masked)
    options: Mapping[str, Any] = load_options(args)
    kept = stack.enter_context(contextlib.ExitStack())
    shadow = stack.enter_context(Shadow(candidate, recipe, recipes, options, log, live))
    digest = recipes[recipe].first.detector.hashes.engine
    if standing.steps and isinstance(standing.named, Path):  # another one judges
        digest = sha256_of(standing.named)
    return Promotion(Line(recipes, run, loader(args), log, kept), shadow, standing, digest)
