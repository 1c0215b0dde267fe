"""Correct verdicts from the command line: `cflow review --log inspections.db --false-alarm 17 --reason dust`.

Without a correction it lists those that stand. The page does the same (`runtime.serve`); both may run beside the line.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.files import printable
from runtime.common.notices import escaped, say
from runtime.common.program import program_name
from runtime.common.text_table import align, number
from runtime.records.marks import (
    FALSE_ALARM,
    LONGEST_REASON,
    LONGEST_WHO,
    MISSED,
    WITHDRAWN,
    Mark,
    add_mark,
    judgement,
    pictures_of,
    standing,
)
from runtime.records.run import os_user

NOTHING_STATUS = 1
ORIGIN = "cflow review"
HEAD = ("marked", "judgement", "part", "what", "score", "threshold", "reason", "who", "picture")
NOTHING = "-"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.review`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.review"),
        description="Say in an inspection log that a verdict was wrong, take that back, or list what was said.",
        epilog="Status 1: nothing is marked. A judgement's number is id in cflow trace --json.",
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, metavar="FILE.db", help="what runtime.infer --log writes")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--false-alarm", type=count, metavar="ID", help="this judgement called a good part anomalous")
    what.add_argument("--missed", type=count, metavar="ID", help="this judgement called a bad part good")
    what.add_argument("--undo", type=count, metavar="ID", help="take back what was said of this judgement")
    what.add_argument("--json", action="store_true", help="list as a JSON object a line, with everything that is known")
    add("--reason", type=_at_most(LONGEST_REASON), default="", metavar="TEXT", help="what it was: dust, a reflection")
    add("--who", type=_at_most(LONGEST_WHO), metavar="NAME", help="who says so (default: the user, and the machine)")
    return parser


def _at_most(length: int) -> Any:
    def text(given: str) -> str:
        if len(given) > length:
            raise argparse.ArgumentTypeError(f"must have at most {length} characters, found {len(given)}")
        return given

    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 where nothing is marked."""
    parser = build_parser()
    args = parser.parse_args(argv)
    said = {FALSE_ALARM: args.false_alarm, MISSED: args.missed, WITHDRAWN: args.undo}
    kind, number = next(((kind, number) for kind, number in said.items() if number is not None), ("", 0))
    if not kind:
        if args.reason or args.who:
            parser.error("--reason and --who need --false-alarm, --missed or --undo")
        return _list(args.log, args.json)
    mark = Mark(judgement(args.log, number), kind, args.reason, os_user() if args.who is None else args.who, ORIGIN)
    add_mark(args.log, mark)
    print(f"judgement {number}: {kind.replace('_', ' ')}")
    return 0


def _list(log: Path, as_json: bool) -> int:
    marks = list(standing(log).values())
    if not marks:
        say(f"nothing is marked in {log}")
        return NOTHING_STATUS
    if as_json:
        for mark in marks:
            print(json.dumps({**mark, "picture": _picture(log, mark)}))
    else:
        print(align([list(HEAD), *(_row(log, mark) for mark in marks)], left=len(HEAD)))
    return 0


def _picture(log: Path, mark: dict[str, Any]) -> str:
    return str(pictures_of(log) / mark["picture"]) if mark["picture"] else ""


def _row(log: Path, mark: dict[str, Any]) -> list[str]:
    about = mark["about"]
    numbers = [number(about.get(name), 4) for name in ("score", "threshold")]
    said = [mark["kind"].replace("_", " "), *numbers, mark["reason"], mark["who"], _picture(log, mark)]
    cells = [mark["time"], str(mark["judgement"]), about.get("part") or "", *said]
    return [escaped(printable(cell)) or NOTHING for cell in cells]  # part ids and reasons come from outside


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
