"""Two processes that write the same thing at once: one does, the other one says that it may not."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from runtime.common.errors import run_command
from tests.reliability import victims
from tests.reliability.forks import finish, holds, last_line, start
from tests.reliability.result import Result, Scale
from tests.reliability.victims import Victim

REFUSED = 2
MAKERS: dict[str, Callable[[Path], Victim]] = {
    "two trainings to one checkpoint": victims.fitting,
    "two builds of one engine": victims.building,
    "two fillings of one calibration set": victims.calibrating,
    "two thresholds of one engine": victims.choosing,  # these are short, and wait for each other
    "two inspections into one folder": lambda folder: victims.inspecting(folder, []),
}


def at_once(victim: Victim, number: int, wrong: list[str]) -> int:
    """Run the command twice at the same time; return how many of the two wrote."""
    logs = [victim.folder.parent / f"said-{number}-{which}" for which in ("one", "other")]
    words = [[str(word) for word in victim.words(number)] for _ in logs]

    def work(which: int) -> Callable[[], int]:
        return lambda: run_command(victim.main, words[which])

    statuses = [finish(pid) for pid in [start(work(which), log) for which, log in enumerate(logs)]]
    for status, log in zip(statuses, logs, strict=True):
        told = last_line(log).startswith("error: ") and "one writer at a time" in last_line(log)
        if status != 0 and not (status == REFUSED and told):
            wrong.append(f"{victim.name}: ended with {status}: {last_line(log)}")
    if 0 not in statuses:
        wrong.append(f"{victim.name}: neither wrote")
    if not holds(victim.check, logs[0]):
        wrong.append(f"{victim.name}: not whole: {last_line(logs[0])}")
    if left := victim.leftovers():
        wrong.append(f"{victim.name}: left {left[0]}")
    return statuses.count(0)


def run(scale: Scale) -> list[Result]:
    """Let two of each command meet."""
    tries, results = (1 if scale.short else 10), []
    for name, make in MAKERS.items():
        wrong: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            victim = make(Path(folder))
            victim.folder.mkdir(exist_ok=True)
            both = sum(at_once(victim, number, wrong) == 2 for number in range(1, tries + 1))
        details = f"{tries - both} times one was refused, {both} times one waited for the other"
        for line in wrong:
            print(f"  {line}", file=sys.stderr, flush=True)
        results.append(Result("writers", name, tries, len(wrong), wrong[0] if wrong else details))
    return results


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for result in run(Scale("short" in sys.argv, 0, 0, 0, 0)):
        print(result)
