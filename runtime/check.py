"""Check a line with reference parts at shift start: `cflow check --golden parts --engine cable.onnx --log i.db`.

Takes the options of `runtime.infer`, so that the line's own --config can be given: parts are judged as the line judges.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.checks import arguments as check_arguments
from runtime.common import config
from runtime.common.argument_types import count, label, seconds
from runtime.common.errors import UserError, run_command
from runtime.common.notices import escaped, say
from runtime.common.program import program_name
from runtime.common.text_table import align, number
from runtime.controller import arguments as controller_arguments
from runtime.engines.backends import add_arguments as add_backend
from runtime.inputs import arguments as input_arguments
from runtime.recipes import arguments as recipe_arguments
from runtime.serve import arguments as serve_arguments
from runtime.shadow import arguments as shadow_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sources import arguments as source_arguments

if TYPE_CHECKING:
    from runtime.checks.reference import ReferencePart
    from runtime.checks.showing import Show
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe
    from runtime.records.checks import Check
    from runtime.result import Result

FAILED_STATUS = 1
TOLERANCE = 0.1  # score units: a tap is worth 1
FILES, LIVE = "files", "live"
HEAD = ("part", "expected", "verdict", "recorded", "score", "")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.check`: that of `runtime.infer`, of which --help shows what a check uses."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.check"),
        description="Judge known good and bad parts: each must come out as it was recorded.",
        epilog="Status 0: passed, 1: a part did not come out as recorded, 2: something that you can mend. The other "
        "options of runtime.infer are taken too, so that the line's own --config can be given.",
    )
    add = parser.add_argument
    add("--golden", type=Path, required=True, metavar="DIR", help="the parts: good/ and bad/ with an image of each")
    add("--record", action="store_true", help="keep what the parts score now as what they must score")
    add(
        "--tolerance",
        type=seconds,
        default=TOLERANCE,
        metavar="X",
        help="a score may be X from the recorded one (default: %(default)g)",
    )
    add(
        "--candidate",
        action="store_true",
        help="check the engine of --shadow in the place of the one that judges by its recipe",
    )
    add("--live", action="store_true", help="ask for each part by name, before the camera or stream")
    add("--who", type=label, metavar="NAME", help="who checks (default: the user of the operating system)")
    recipe_arguments.add_arguments(parser)
    add("--threshold", type=float, metavar="X", help="as the line's own")
    add("--threads", type=count, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_backend(parser)
    source_arguments.add_arguments(parser)
    for group in parser._mutually_exclusive_groups:  # images need no source
        group.required = group.required and "--camera" not in group._group_actions[0].option_strings
    _add_rest_of_the_line(parser)
    config.add_arguments(parser)
    return parser


def _add_rest_of_the_line(parser: argparse.ArgumentParser) -> None:
    """Take what only the line itself uses, and leave it out of --help."""
    known = len(parser._actions)
    parser.add_argument("--limit", type=count)
    parser.add_argument("--batch-cameras", action="store_true")
    parser.add_argument("--frozen-after", type=seconds)
    others = (sink_arguments, input_arguments, serve_arguments, controller_arguments, check_arguments)
    for arguments in (*others, shadow_arguments):
        arguments.add_arguments(parser)
    for action in parser._actions[known:]:
        if action.dest != "log":
            action.help = argparse.SUPPRESS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 where a part did not come out as recorded."""
    args = config.parse_args(build_parser, argv)
    if args.dry_run:
        raise UserError("a check judges, and so has no --dry-run", "it", "leave it out")
    given = [*(args.camera or ()), *(args.source or ()), *(args.watch or ())]
    if args.live and len(given) != 1:
        found = f"{len(given)} sources"
        raise UserError("--live needs one camera or stream", found, "add --camera N, or check each by itself")
    if not args.live:
        args.camera, args.watch, args.source, args.name = None, None, [str(args.golden)], None
        _one_view(args)
    with contextlib.ExitStack() as stack:
        recipes = _open(args, stack)
        checked = [_one(args, recipe, folder) for recipe, folder in _chosen(args, recipes)]
    return 0 if all(checked) else FAILED_STATUS


def _one_view(args: argparse.Namespace) -> None:
    for name in ("roi", "mask", "rotate", "flip"):
        values = getattr(args, name) or ()
        if len(set(values)) > 1:
            found = f"{len(values)} different ones"
            raise UserError(f"images are checked with one --{name}", found, "give that of one camera, or use --live")
        setattr(args, name, list(values[:1]) or None)


def _open(args: argparse.Namespace, stack: contextlib.ExitStack) -> "Recipes":
    from runtime.line import open_recipes
    from runtime.recipes.promoted import standings_of

    specs = recipe_arguments.specs_from(args, build_parser())
    if args.candidate and args.shadow is None:
        raise UserError(
            "--candidate is checked as the line has it", "no --shadow FILE", "add it, or the line's --config"
        )
    standings = standings_of(args, specs)
    recipes = open_recipes(args, specs, stack, standings)
    if args.candidate:
        args.recipe = shadow_arguments.put_candidate(args, recipes, standings, stack) or None
    return recipes


def _chosen(args: argparse.Namespace, recipes: "Recipes") -> "Iterator[tuple[Recipe, Path]]":
    """Yield what to check, and where its parts lie: the recipe of --recipe, or each that has parts."""
    from runtime.checks.reference import LAYOUT, folder_of

    if not args.golden.is_dir():
        raise UserError(f"{args.golden} must be a folder of reference parts", "no folder", LAYOUT)
    if not recipes.names:
        yield recipes.in_force, args.golden
        return
    named = args.recipe is not None
    wanted = [recipes[args.recipe]] if named else list(recipes.all)
    found = [(recipe, folder) for recipe in wanted if (folder := folder_of(args.golden, recipe.name))]
    if not named:
        own = [(recipe, folder) for recipe, folder in found if folder != args.golden]
        missing = [recipe.name for recipe in recipes.all if recipe.name not in [one.name for one, _ in own]]
        for name in missing:
            say(f"recipe {name}: not checked, it has no folder of that name in {args.golden}")
        found = own
    if not found:
        cure = f"make {args.golden}/RECIPE/good and bad for each, or name one with --recipe"
        raise UserError(f"{args.golden} must hold the parts of a recipe", "none", cure)
    yield from found


def _one(args: argparse.Namespace, recipe: "Recipe", folder: Path) -> bool:
    """Check one recipe, or record its parts; return whether it passed."""
    from runtime.checks.compare import check_of, judged
    from runtime.checks.reference import read_parts, read_recorded
    from runtime.records.checks import add_check
    from runtime.records.run import os_user

    way, who, parts = LIVE if args.live else FILES, args.who or os_user(), read_parts(folder)
    recorded = {} if args.record else read_recorded(folder, recipe.name, way, recipe.engine_sha256)
    with _shown(args, recipe) as show:
        results = judged(recipe, parts, show)
    if args.record:
        return _record(args, recipe, folder, parts, results, who)
    check = check_of(recipe, parts, results, recorded, args.tolerance, way, who)
    print(_table(check))
    if args.log is not None:
        add_check(args.log, check)
    of = f"recipe {recipe.name}: " if recipe.name else ""
    print(f"{of}{check.text()}" + ("" if args.log else "; not in any log, so no line goes by it (--log)"))
    return check.passed


@contextlib.contextmanager
def _shown(args: argparse.Namespace, recipe: "Recipe") -> "Iterator[Show]":
    from runtime.checks.showing import from_camera, from_files

    white = recipe.first.detector.sidecar.white
    if not args.live:
        yield from_files(source_arguments.options_from(args, white).read)
        return
    [source] = source_arguments.sources_from(args, white)
    with source, from_camera(source, recipe.camera) as show:
        yield show


def _record(
    args: argparse.Namespace,
    recipe: "Recipe",
    folder: Path,
    parts: "Sequence[ReferencePart]",
    results: "Sequence[Result]",
    who: str,
) -> bool:
    """Keep what the parts score, unless one does not come out as it must: it could never pass."""
    from runtime.checks.compare import wrongly
    from runtime.checks.reference import Recorded, image_hash, write_recorded
    from runtime.records.checks import note_recorded

    if wrong := wrongly(parts, results):
        print("\n".join(map(escaped, wrong)))
        print("not recorded: take other parts, or choose another threshold")
        return False
    way = LIVE if args.live else FILES
    rows = [
        Recorded(part.name, part.expected, result.image_score, "" if args.live else image_hash(part))
        for part, result in zip(parts, results, strict=True)
    ]
    write_recorded(folder, recipe.name, way, recipe.engine_sha256, who, rows)
    if args.log is not None:
        note_recorded(args.log, recipe.name, f"{len(rows)} recorded ({way})", who)
    print(f"{len(rows)} parts recorded in {folder}")
    return True


def _table(check: "Check") -> str:
    rows = [
        [
            escaped(part["name"]),
            part["expected"],
            part["verdict"],
            number(part["recorded"], 4),
            number(part["score"], 4),
            escaped(part["why"]),
        ]
        for part in check.parts
    ]
    return align([HEAD, *rows], left=len(HEAD))


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
