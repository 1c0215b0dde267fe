"""What an auditor asks of a shift, a day or a month, from the inspection log: `cflow report --day 2026-11-28 ...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.common.argument_types import output_file
from runtime.common.errors import run_command
from runtime.common.program import program_name

PERIODS = ("--shift", "--day", "--month")


def is_asked(words: Sequence[str]) -> bool:
    """Whether a command line of `cflow report` asks for the report of a period, and not for measurements."""
    return any(word.partition("=")[0] in PERIODS for word in words)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.period.main`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.period.main"),
        description="Write what an inspection log knows of a period as one HTML file, to be read or printed to PDF.",
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--shift", metavar="SHIFT", help="DATE START..END, as '2026-11-28 22:00..06:00'")
    which.add_argument("--day", metavar="DATE", help="as 2026-11-28")
    which.add_argument("--month", metavar="MONTH", help="as 2026-11")
    add("--log", type=Path, required=True, metavar="FILE.db", help="what runtime.infer --log writes")
    add("--output", type=output_file, required=True, metavar="FILE.html", help="the report to write")
    add("--zone", metavar="ZONE", help="the clock on the wall, as Europe/Berlin (default: this machine's)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report. Raises `UserError` for what the user can mend."""
    args = build_parser().parse_args(argv)
    from runtime.common.files import write_text
    from runtime.period.facts import gather
    from runtime.period.page import page
    from runtime.period.span import day, month, shift, zone_of

    zone = zone_of(args.zone)
    given = ((args.shift, shift), (args.day, day), (args.month, month))
    [span] = [read(text, zone) for text, read in given if text is not None]
    facts = gather(args.log, span)
    write_text(args.output, page(args.log, span, facts))
    print(f"wrote {args.output}: {facts.verdicts.total()} judgements")


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
