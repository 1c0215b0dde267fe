"""The command line of a line that goes by checks of reference parts: `--check-every`; this loads no library."""

import argparse
import contextlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.recipes.book import Recipes

UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
LEAST_S, MOST_S = 10.0, 366 * 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `open_gate` reads."""
    group = parser.add_argument_group("reference parts")
    group.add_argument(
        "--check-every",
        type=_duration,
        metavar="TIME",
        help="no verdicts unless cflow check passed with this engine and recipe within TIME, such as 8h (needs --log)",
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to."""
    if args.check_every is not None and args.log is None:
        parser.error("--check-every needs --log FILE, where cflow check writes what it found")


def open_gate(args: argparse.Namespace, recipes: "Recipes", stack: contextlib.ExitStack) -> None:
    """Let `recipes` judge only while a check of theirs holds, where that was asked for; `stack` ends it."""
    if args.check_every is None:
        return
    from runtime.checks.gate import Gate

    gate = stack.enter_context(Gate(args.log, recipes, args.check_every))
    recipes.withheld, recipes.would_withhold, recipes.checks = gate.withheld, gate.would_withhold, gate.standings


def _duration(text: str) -> float:
    """Return the seconds of "8h", "30min", "90s" or "1d"."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|d)", text.strip().lower())
    value = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if not LEAST_S <= value <= MOST_S:
        raise argparse.ArgumentTypeError(f"expected a time such as 8h, 30min or 1d, 10s to 366d, found {text!r}")
    return value
