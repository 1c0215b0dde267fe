"""The command line of recipes: `--recipes`, `--recipe`; importing this loads no library."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.config_file import options_of
from runtime.common.errors import UserError
from runtime.engines.remote.address import engine, there

if TYPE_CHECKING:
    from runtime.recipes.file import RecipeSpec


# an option and the one that it is for: where that does not count, neither does it (`runtime.common.config`)
BELONGS = {"recipe": "recipes", "recipe_topic": "recipes", "threshold": "engine", "shadow_recipe": "recipes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names the engine: `--engine`, or `--recipes` with several."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--engine",
        type=engine,
        metavar="FILE",
        help="a .plan or .onnx with its .json beside it, or a server's grpc://HOST:8001/cable, http://HOST:8000/cable; "
        "this or --recipes is needed, here or in the --config file",
    )
    which.add_argument(
        "--recipes",
        type=Path,
        metavar="FILE.toml",
        help="engine, threshold, region, mask and camera settings by name, changed while the line runs; relative paths "
        "in it count from the folder that the command runs in",
    )
    parser.add_argument("--recipe", metavar="NAME", help="the recipe to start with (default: the first of --recipes)")
    parser.add_argument(
        "--recipe-topic",
        metavar="TOPIC",
        help="a message on TOPIC of the broker of --mqtt changes the recipe; TOPIC/in-force says which one judges",
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to."""
    for name in ("recipe", "recipe_topic"):
        if getattr(args, name) is not None and args.recipes is None:
            parser.error(f"--{name.replace('_', '-')} needs --recipes FILE")
    if args.recipes is not None and args.threshold is not None:
        parser.error("--threshold is for --engine: with --recipes each recipe has its own, threshold = X")
    if args.recipe_topic is not None and args.mqtt is None:
        parser.error("--recipe-topic needs --mqtt URL, for the broker")


def specs_from(args: argparse.Namespace, parser: argparse.ArgumentParser) -> "list[RecipeSpec]":
    """Return the recipes that were asked for, in the file's order; none without `--recipes`.

    Raises `UserError` for a file that holds no recipes, and for a `--recipe` that is not among them.
    """
    if args.recipes is None:
        return []
    from runtime.recipes.file import read_recipes

    specs = read_recipes(args.recipes, args, options_of(parser))
    first_of(specs, args)
    return specs


def first_of(specs: "list[RecipeSpec]", args: argparse.Namespace) -> "RecipeSpec":
    """Return the recipe that is in force at the start. Raises `UserError` where `--recipe` names none."""
    for spec in specs:
        if args.recipe in (None, spec.name):
            return spec
    names = ", ".join(spec.name for spec in specs)
    raise UserError(f"--recipe must be one of {args.recipes} ({names})", repr(args.recipe))


def describe(specs: "list[RecipeSpec]", args: argparse.Namespace) -> list[str]:
    """Return, for --dry-run, a line on each recipe, and on each part of it where it has several."""
    from runtime.common.files import printable
    from runtime.sources.arguments import views_from

    lines = []
    for spec in specs:
        start = ", at the start" if spec is first_of(specs, args) else ""
        for one in spec.inspects:
            of = f"recipe {spec.number} {spec.name}" + (f", {one.name}" if one.name else "")
            threshold = one.threshold if one.threshold != "" else "the engine's own"
            with one.named(spec.name):
                views = [said for view in views_from(one.args) if (said := view.describe())]
            seen = f", view {views[0] if len(views) == 1 else views}" if views else ""
            missing = "" if there(one.args.engine) else ", would not open: no such file"
            lines.append(f"{of}: engine {printable(str(one.args.engine))}, threshold {threshold}{seen}{missing}{start}")
    return lines
