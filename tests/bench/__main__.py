"""Old and new in turn: python -m tests.bench --against DIR [CASE ...].

DIR is a checkout of the commit to compare with (`git worktree add DIR COMMIT`). Each case runs in a process of its own
for either checkout, which imports that checkout's packages, and the two take turns, so that what else the machine does
meets both. Medians over the rounds; the last column is new over old.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.common.errors import UserError, run_command
from runtime.common.text_table import align
from tests.bench.cases import CASES

HERE = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """A process that runs one case with the packages of `checkout`, a sample each time it is asked."""

    def __init__(self, checkout: Path, case: str, engine: Path | None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", str(WORKER), case, str(engine.resolve()) if engine else ""]
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def sample(self) -> dict[str, float]:
        """Return one sample of every row of the case. Raises `UserError` where the process has ended."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("{"):  # commands may say things of their own
                return json.loads(line)
        raise UserError("the case must run in both checkouts", f"exit status {self._process.wait()}", "see above")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def compare(case: str, old: Path, engine: Path | None, rounds: int) -> list[list[str]]:
    """Return a row for each figure of `case`: its name, old, new, and new over old."""
    workers = [Worker(checkout, case, engine) for checkout in (old, HERE)]
    try:
        for worker in workers:
            worker.sample()  # the first use imports and allocates
        samples = [[worker.sample() for worker in workers] for _ in range(rounds)]
    finally:
        for worker in workers:
            worker.close()
    rows = []
    for name in samples[0][1]:
        before, after = (float(np.median([each[place].get(name, np.nan) for each in samples])) for place in (0, 1))
        rows.append([case, name, f"{before:.4g}", f"{after:.4g}", f"{after / before:.3f}"])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default: those that can run)")
    parser.add_argument("--against", type=Path, required=True, metavar="DIR", help="a checkout to compare with")
    parser.add_argument("--engine", type=Path, metavar="FILE", help="an .onnx with its sidecar, for the cases with one")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)
    if not (args.against / "runtime").is_dir():
        raise UserError("--against must be a checkout", str(args.against), "git worktree add DIR COMMIT")
    if unknown := set(args.cases) - set(CASES):
        raise UserError(f"a case is one of {', '.join(CASES)}", ", ".join(sorted(unknown)))
    chosen = args.cases or [name for name, case in CASES.items() if args.engine or not case.engine]
    if not args.engine and (wanting := [name for name in chosen if CASES[name].engine]):
        raise UserError(f"{', '.join(wanting)} need --engine FILE", "none", "name an .onnx with its sidecar")
    rows = [row for case in chosen for row in compare(case, args.against.resolve(), args.engine, args.rounds)]
    print(align([["case", "figure", "old", "new", "new / old"], *rows], left=2))


if __name__ == "__main__":
    sys.exit(run_command(main))
