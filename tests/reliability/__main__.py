"""Attack the commands and print what came of it: `python -m tests.reliability [--short]`. Status 1: anything is wrong.

The full form takes hours: 100 kills of each command, ten minutes of fuzzing for each reader, an hour with all sinks.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.reliability.checks import NAMES, run_check
from tests.reliability.result import Result, Scale
from tests.reliability.table import as_json, as_markdown, as_text

SHORT = Scale(short=True, kills=3, minutes=0.05, soak_minutes=0.4, seed=0)
FULL = Scale(short=False, kills=100, minutes=10.0, soak_minutes=60.0, seed=0)


def main() -> int:
    """Run the checks that are asked for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--short", action="store_true", help="everything a little, in about three minutes, as CI does")
    parser.add_argument("--only", action="append", choices=NAMES, help="this check only (repeat for several)")
    parser.add_argument("--kills", type=int, help="of each command")
    parser.add_argument("--minutes", type=float, help="of fuzzing for each reader")
    parser.add_argument("--soak-minutes", type=float, help="with every sink on")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--out", type=Path, default=Path("build/reliability"), help="for table.json and table.md")
    options = parser.parse_args()
    default = SHORT if options.short else FULL
    scale = Scale(
        short=options.short,
        kills=default.kills if options.kills is None else options.kills,
        minutes=default.minutes if options.minutes is None else options.minutes,
        soak_minutes=default.soak_minutes if options.soak_minutes is None else options.soak_minutes,
        seed=options.seed,
    )
    results: list[Result] = []
    for name in NAMES:
        if not options.only or name in options.only:
            started = time.monotonic()
            results += run_check(name, scale)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            _write(options.out, results)  # as far as it has come
    print(as_text(results))
    return int(any(result.wrong for result in results))


def _write(folder: Path, results: list[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(as_json(results), encoding="utf-8")
    (folder / "table.md").write_text(as_markdown(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
