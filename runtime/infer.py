"""Judge the frames of a camera, a video, an image or a folder of images: `python -m runtime.infer`."""

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runtime.checks import arguments as check_arguments
from runtime.common import config
from runtime.common.argument_types import count, seconds
from runtime.common.errors import BROKEN_PIPE_STATUS, run_command
from runtime.common.program import program_name
from runtime.controller import arguments as controller_arguments
from runtime.drift import arguments as drift_arguments
from runtime.engines.backends import add_arguments
from runtime.inputs import arguments as input_arguments
from runtime.line import open_line
from runtime.recipes import arguments as recipe_arguments
from runtime.serve import arguments as serve_arguments
from runtime.shadow import arguments as shadow_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sources import arguments as source_arguments

if TYPE_CHECKING:
    from runtime.recipes.file import RecipeSpec

INCOMPLETE_STATUS = 1  # a frame got no verdict, a sink did not get every result, or a source is lost at the end


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.infer`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.infer"),
        description="Judge camera frames, a video or images with a built engine: a line a frame, then a summary.",
        epilog="Ends at the end of the sources, after --limit frames, with q (cameras), with Ctrl-C or SIGTERM.",
    )
    recipe_arguments.add_arguments(parser)
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="a score above X is anomalous (default: the engine's own)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="stop after N frames")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    parser.add_argument(
        "--batch-cameras",
        action="store_true",
        help="judge frames of several cameras in one execution",
    )
    parser.add_argument(
        "--frozen-after",
        type=seconds,
        default=10.0,
        metavar="S",
        help="no verdict on a camera's picture that has not changed for S seconds; 0: for cameras without any noise "
        "(default: %(default)g)",
    )
    source_arguments.add_arguments(parser)
    sink_arguments.add_arguments(parser)
    input_arguments.add_arguments(parser)
    serve_arguments.add_arguments(parser)
    controller_arguments.add_arguments(parser)
    check_arguments.add_arguments(parser)
    shadow_arguments.add_arguments(parser)
    drift_arguments.add_arguments(parser)
    config.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; returns the status of a signal that ended it, raises `UserError` for what the user can mend."""
    args = config.parse_args(build_parser, argv, recipe_arguments.BELONGS)
    parser = build_parser()
    checking = (recipe_arguments, sink_arguments, input_arguments, controller_arguments, check_arguments)
    for arguments in (*checking, drift_arguments, shadow_arguments):
        arguments.check_arguments(parser, args)
    source_arguments.check_output(args.output, args)
    recipes = recipe_arguments.specs_from(args, parser)
    if recipes:
        args = recipe_arguments.first_of(recipes, args).args
    if args.dry_run:
        lines = [source_arguments.describe_sources(args), *recipe_arguments.describe(recipes, args)]
        lines += shadow_arguments.describe(args)
        print("\n".join(lines))
        return None
    return _run(args, recipes)


def _run(args: argparse.Namespace, recipes: "list[RecipeSpec]") -> int | None:
    """Open everything, judge, then close and tell what it came to, however it ends; return the exit status."""
    with contextlib.ExitStack() as stack:
        with _quick_start():
            line = open_line(args, stack, recipes)
        try:
            line.inspection.run(line.look)
        finally:
            complete = line.close_and_tell()
    status = line.signals.status()
    if status is None and line.outputs.unread():
        return BROKEN_PIPE_STATUS
    return INCOMPLETE_STATUS if status is None and not complete else status


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """While open, the objects of imported modules are not looked through for garbage; later ones alone are."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's products here are too small for threads that wait
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
