"""SIGKILL and SIGTERM at random moments: what stood stays whole, and the command run again succeeds and tidies up."""

import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.reliability import victims
from tests.reliability.forks import AT_THE_START_S, holds, killed, last_line, moments
from tests.reliability.forks import run as run_to_its_end
from tests.reliability.result import Result, Scale
from tests.reliability.surroundings import answers, broker, forked_webhook, free_port
from tests.reliability.victims import Victim

ENDS = {signal.SIGTERM: {0, 143}, signal.SIGKILL: {0, -signal.SIGKILL}}
INCOMPLETE = 1  # of infer: a frame got no verdict; the others are whole


def at_random_moments(victim: Victim, kills: int, rng: random.Random) -> Result:
    """Kill `victim` so often, run it to its end after each, and count what was not as it must be."""
    wrong: list[str] = []
    log = victim.folder.parent / "said"
    lasted_s, met = [_ran(victim, 0, log, wrong)], 0
    for number in range(1, kills + 1):
        if victim.name.startswith("runtime.infer"):
            victims.emptied(victim)
        with_signal, delay_s = rng.choice(list(ENDS)), moments(rng, rng.choice(lasted_s[-9:]))
        log.unlink(missing_ok=True)
        status = killed(victim.main, victim.words(number), log, delay_s, with_signal)
        met += status != 0
        allowed = ENDS[with_signal] | ({-with_signal} if delay_s < AT_THE_START_S else set())
        how = f"{with_signal.name} after {delay_s:.3f} s"
        if status not in allowed:
            wrong.append(f"{how}: ended with {status}: {last_line(log)}")
        if not holds(victim.check, log):
            wrong.append(f"{how}: what stood is not whole: {last_line(log)}")
        lasted_s.append(_ran(victim, number, log, wrong))
        if not holds(victim.check, log):
            wrong.append(f"{how}, run again: not whole: {last_line(log)}")
        if left := victim.leftovers():
            wrong.append(f"{how}, run again: left {left[0]}")
    longest = f"{met} met it at work, in runs of {min(lasted_s):.1f} to {max(lasted_s):.1f} s"
    details = longest if not wrong else wrong[0]
    for line in wrong:
        print(f"  {victim.name}: {line}", file=sys.stderr, flush=True)
    return Result("kills", f"{victim.name} killed at random moments", kills, len(wrong), details)


def _ran(victim: Victim, number: int, log: Path, wrong: list[str]) -> float:
    """Run the command to its end and return how long that took."""
    log.unlink(missing_ok=True)
    started = time.monotonic()
    status = run_to_its_end(victim.main, victim.words(number), log)
    if status != 0:
        wrong.append(f"run to its end: ended with {status}: {last_line(log)}")
    return time.monotonic() - started


@contextlib.contextmanager
def _network(folder: Path) -> Iterator[list[object]]:
    """Yield the words for the page, a webhook and, where there is a mosquitto, MQTT."""
    port = free_port()
    with forked_webhook(folder) as url, broker(folder) as mqtt:
        yield ["--webhook", url, "--webhook-all", "--serve", port, *(["--mqtt", mqtt[0]] if mqtt else [])]
        assert not answers(port), "a page goes on listening"


def run(scale: Scale, names: "tuple[str, ...]" = ()) -> list[Result]:
    """Kill each command so often as the scale says."""
    import torch

    torch.set_num_threads(1)  # threads would not survive a fork
    results = []
    makers = {"fit": victims.fitting, "build": victims.building, "calibrate": victims.calibrating}
    makers["threshold"] = victims.choosing
    for name, make in makers.items():
        if not names or name in names:
            with tempfile.TemporaryDirectory() as folder:
                victim = make(Path(folder))
                victim.folder.mkdir(exist_ok=True)
                results.append(at_random_moments(victim, scale.kills, random.Random(scale.seed)))
    if not names or "infer" in names:
        with tempfile.TemporaryDirectory() as folder, _network(Path(folder)) as network:
            (Path(folder) / "run").mkdir()
            victim = victims.inspecting(Path(folder) / "run", network)
            victim.folder.mkdir()
            results.append(at_random_moments(victim, scale.kills, random.Random(scale.seed)))
    return results


if __name__ == "__main__":
    for result in run(Scale(False, int(sys.argv[1]), 0, 0, 0), tuple(sys.argv[2:])):
        print(result)
