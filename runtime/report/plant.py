"""How many boxes for so many cameras: python -m runtime.report.plant --report report.json --cameras 4 --fps 25.

Computed from the times that a report has measured (`runtime.report --output DIR`), and from nothing else.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.program import program_name
from runtime.report.schema import read_report
from runtime.report.sizing import Demand, Plan, sizing, to_markdown, to_text

FORMATS = {"text": to_text, "markdown": to_markdown}
UTILISATION = 0.7  # the rest is for bursts, for the page and the log, and for the next release


def _number(text: str, wanted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return number


def _rate(text: str) -> float:
    number = _number(text, "frames a second above 0")
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected frames a second above 0, found {text!r}")
    return number


def _share(text: str) -> float:
    number = _number(text, "a share above 0 and below 1")
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and below 1, found {text!r}")
    return number


def _milliseconds(text: str) -> float:
    number = _number(text, "milliseconds from 0 up")
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected milliseconds from 0 up, found {text!r}")
    return number


def _size(text: str) -> tuple[int, int]:
    """Return (height, width) for S or HxW."""
    height, between, width = text.lower().partition("x")
    try:
        return count(height), count(width if between else height)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a size such as 256 or 272x240, found {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.report.plant"), description=__doc__)
    add = parser.add_argument
    add(
        "--report",
        type=Path,
        required=True,
        action="append",
        metavar="FILE",
        help="a report.json of the box; repeat for several kinds of boxes",
    )
    add("--cameras", type=count, nargs="+", required=True, metavar="N", help="cameras, or several numbers of them")
    add("--fps", type=_rate, nargs="+", required=True, metavar="RATE", help="frames a second of each camera")
    add("--size", type=_size, metavar="S or HxW", help="the detectors' input size (default: all of the report)")
    add(
        "--utilisation",
        type=_share,
        default=UTILISATION,
        metavar="SHARE",
        help="of a box's time that is planned for (default: %(default)s)",
    )
    add(
        "--overhead",
        type=_milliseconds,
        default=0.0,
        metavar="MS",
        help="milliseconds of a frame beside its verdict, as runtime.overhead measures them (default: %(default)s)",
    )
    add("--format", choices=sorted(FORMATS), default="text", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    arguments = _parser().parse_args(argv)
    demands = tuple(Demand(cameras, fps) for fps in arguments.fps for cameras in arguments.cameras)
    plan = Plan(demands, arguments.utilisation, arguments.overhead)
    reports = [read_report(path) for path in arguments.report]
    print(FORMATS[arguments.format](sizing(reports, plan, arguments.size)), end="")


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
