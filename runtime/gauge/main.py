"""Repeatability and reproducibility of the score, %GRR: `cflow gauge --csv study.csv`, or from an inspection log."""

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.moments import parse_moment
from runtime.common.notices import escaped
from runtime.common.program import program_name

if TYPE_CHECKING:
    from runtime.gauge.anova import Gauge
    from runtime.gauge.table import Study

CURE = "pip install 'cflow-edge[statistics]'"
GOOD_PERCENT, BAD_PERCENT = 10.0, 30.0


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.gauge`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.gauge.main"),
        description="How much of the score's spread is the measuring: repeatability, reproducibility, %%GRR (AIAG).",
        epilog="%%GRR below 10: good; 10 to 30: may do; above 30: the score tells too little apart.",
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--csv", type=Path, metavar="FILE", help="columns part, operator, trial, score, verdict")
    which.add_argument("--log", type=Path, metavar="FILE.db", help="judgements with part ids: ID, or ID@OPERATOR")
    add("--from", dest="since", metavar="TIME", help="with --log: captured then or later (UTC)")
    add("--to", dest="until", metavar="TIME", help="with --log: captured before then")
    add("--threshold", type=float, metavar="X", help="also GRR in percent of the room up to this limit")
    add("--plot", type=output_file, metavar="FILE.svg", help="write a plot of all scores")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises `UserError` for what the user can mend."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.csv and (args.since or args.until):
        parser.error("--from and --to are for --log")
    from runtime.common.files import write_text
    from runtime.gauge.anova import gauge
    from runtime.gauge.plot import plot
    from runtime.gauge.table import read_csv, read_log
    from runtime.records.read import Query

    times = [None if text is None else parse_moment(text) for text in (args.since, args.until)]
    study = read_csv(args.csv) if args.csv else read_log(args.log, Query(None, times[0], times[1]))
    try:
        found = gauge(study.scores)
    except ModuleNotFoundError:
        raise UserError("a gauge study needs SciPy", "none", CURE) from None
    print(text_of(study, found, args.threshold))
    if args.plot:
        title = f"Gauge study: %GRR {found.grr_percent:.1f}, ndc {_shown(found.ndc)}"
        write_text(args.plot, plot(study, title, args.threshold))


def text_of(study: "Study", found: "Gauge", threshold: float | None) -> str:
    """Return the study for a person."""
    parts, operators, trials = study.scores.shape
    lines = [f"{parts} parts, {operators} operators, {trials} trials", f"{'':<22}{'std dev':>10}{'% of total':>12}"]
    rows = {
        "repeatability": found.repeatability,
        "reproducibility": found.reproducibility,
        "GRR": found.grr,
        "part to part": found.parts,
        "total": found.total,
    }
    for name, value in rows.items():
        share = 100 * value / found.total if found.total else math.nan
        lines.append(f"{name:<22}{value:>10.6f}{share:>12.1f}")
    if found.p_interaction is not None:
        how = "counted with repeatability" if found.pooled else "counted with reproducibility"
        lines.append(f"part x operator: p {found.p_interaction:.3f}, {how}")
    elif operators == 1:
        lines.append("one operator: reproducibility is not known")
    lines.append(f"%GRR {found.grr_percent:.1f}: {meaning(found.grr_percent)}; ndc {_shown(found.ndc)} (5 or more)")
    if threshold is not None:
        percent = found.tolerance_percent(threshold)
        lines.append(f"GRR by tolerance {percent:.1f} % (3 GRR by threshold - mean): {meaning(percent)}")
    return "\n".join([*lines, *_agreements(study)])


def meaning(percent: float) -> str:
    """Return what AIAG says of a share in percent."""
    if math.isnan(percent):
        return "no spread at all"
    if percent < GOOD_PERCENT:
        return "good"
    return "may do, by what it costs" if percent <= BAD_PERCENT else "too much: improve the measuring first"


def _agreements(study: "Study") -> list[str]:
    """Return how far verdicts agree: an operator's trials with each other, and operators with each other."""
    if study.verdicts is None:
        return []
    from runtime.gauge.anova import kappa

    lines = []
    for j, operator in enumerate(study.operators):
        same = sum(len(set(of_part[j])) == 1 for of_part in study.verdicts)
        lines.append(f"verdicts of {escaped(operator)}: the same in all trials for {same} of {len(study.parts)} parts")
    flat = [[word for of_part in study.verdicts for word in of_part[j]] for j in range(len(study.operators))]
    for (i, a), (j, b) in combinations(enumerate(study.operators), 2):
        value = kappa(flat[i], flat[j])
        shown = "not defined, all verdicts are one" if math.isnan(value) else f"{value:.3f}"
        lines.append(f"kappa of {escaped(a)} and {escaped(b)}: {shown}")
    return lines


def _shown(value: int | None) -> str:
    return "-" if value is None else str(value)


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
