"""The paper's Table 6 on this machine: `python -m runtime.report`; or engines of yours: `... ENGINE ...`.

Every model runs in a process of its own, and all of a group take turns, round by round, so that a machine that grows
hot or busy slows all of them alike and the ratios stay.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.common.errors import UserError, run_command
from runtime.common.files import write_text
from runtime.common.notices import say
from runtime.period import main as period
from runtime.report.compare import compare
from runtime.report.options import build_parser, options_of
from runtime.report.schema import Report, read_report, to_json
from runtime.report.table6_models import models_of
from runtime.report.tables import FORMATS, to_markdown, to_text


def _measured(arguments: argparse.Namespace, words: Sequence[str]) -> Report:
    options = options_of(arguments, words)
    try:
        from runtime.report.measure import make_report
    except ModuleNotFoundError as error:
        raise UserError("measuring needs psutil", str(error), "pip install 'cflow-edge[report]'") from None
    return make_report(models_of(arguments), options, say)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json, .txt, .md and, where matplotlib is installed, the pictures into `folder`; return the paths."""
    from runtime.report.charts import draw_charts

    pictures: list[Path] = []
    texts = {"report.json": to_json(report), "report.txt": to_text(report)}
    for name, text in texts.items():  # first: the rest can be made from the JSON again
        write_text(folder / name, text)
    try:
        pictures = draw_charts(report, folder)
    except UserError as error:
        say(f"no pictures: {error}")
    write_text(folder / "report.md", to_markdown(report, [path.name for path in pictures]))
    return [*(folder / name for name in (*texts, "report.md")), *pictures]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the report, and write it where `--output` says."""
    words = sys.argv[1:] if argv is None else argv
    if period.is_asked(words):  # a shift, a day or a month of the inspection log instead
        return period.main(words)
    arguments = build_parser().parse_args(argv)
    old = read_report(arguments.compare) if arguments.compare else None  # a wrong file ends it before the measuring
    report = read_report(arguments.show) if arguments.show else _measured(arguments, words)
    print(FORMATS[arguments.format](report), end="")
    if old is not None:
        print(f"\n{compare(old, report)}", end="")
    if arguments.output:
        for path in write_report(report, arguments.output):
            say(f"wrote {path}")


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
