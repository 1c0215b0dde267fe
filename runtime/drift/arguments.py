"""The command line of the drift watch: `--drift`, `--drift-rate`, `--drift-state`; this loads no library."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.drift.watch import DriftWatch, Enter
    from runtime.recipes.book import Recipes

LEAST_RATE, MOST_RATE = 0.001, 100.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `watch_from` reads."""
    group = parser.add_argument_group("drift")
    group.add_argument(
        "--drift",
        choices=("on", "off"),
        default="on",
        help="watch light, focus, colour, position and score of cameras and streams over hours (default: %(default)s)",
    )
    group.add_argument(
        "--drift-rate",
        type=_rate,
        default=1.0,
        metavar="N",
        help="false alarms a month and source, at most, on average (default: %(default)g)",
    )
    group.add_argument(
        "--drift-state",
        type=Path,
        metavar="FILE",
        help="keep here what was learned, for a restart (default: beside --log, FILE.drift.json)",
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to."""
    if args.drift == "off" and args.drift_state is not None:
        parser.error("--drift-state needs --drift on")
    if args.drift_state is not None and args.drift_state.is_dir():
        parser.error(f"--drift-state must be a file, found the folder {args.drift_state}")


def watch_from(
    args: argparse.Namespace, live: set[str], recipes: "Recipes", enter: "Enter | None", stack: ExitStack
) -> "DriftWatch | None":
    """Return the watch of the sources `live` that was asked for, None for none; `stack` closes it."""
    if args.drift == "off" or not live:
        return None
    from runtime.drift.store import beside
    from runtime.drift.watch import DriftOptions, DriftWatch

    state = args.drift_state or (None if args.log is None else beside(args.log))
    return stack.enter_context(DriftWatch(live, recipes, DriftOptions(args.drift_rate, state), enter))


def _rate(text: str) -> float:
    """Return false alarms a month."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST_RATE <= value <= MOST_RATE:
        expected = f"expected false alarms a month, {LEAST_RATE:g} to {MOST_RATE:g}"
        raise argparse.ArgumentTypeError(f"{expected}, found {text!r}")
    return value
