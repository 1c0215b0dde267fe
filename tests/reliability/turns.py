"""What clients cost the inspection, told by turns without and with them."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.paths import ROOT

MOST_UNREST = 0.15  # between two turns without clients; above it, a turn with clients says nothing
MOST_FPS = 600


@contextlib.contextmanager
def clients(module: str, *words: str, patience_s: float) -> Iterator[list[str]]:
    """Run the module `tests.reliability.MODULE` until left; then the list holds what it printed, if it ended."""
    command = [sys.executable, "-m", f"tests.reliability.{module}", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        yield said
    finally:
        try:
            said.append(process.communicate(timeout=patience_s)[0].strip())
        except subprocess.TimeoutExpired:
            process.kill()


def rate(lines: Path, seconds: float) -> float:
    """Return the frames judged a second, counted for so long."""
    begin, started = lines.read_bytes().count(b"\n"), time.perf_counter()
    time.sleep(seconds)
    end = lines.read_bytes().count(b"\n")
    return (end - begin) / (time.perf_counter() - started)


@dataclass
class Turns:
    """`rounds` turns of `seconds` each, with `settle_s` for all clients to come, and to go."""

    rounds: int
    seconds: float
    settle_s: float
    _ratios: list[float] = field(default_factory=list)
    _unrest: list[float] = field(default_factory=list)
    _rates: list[str] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many images are enough for all turns."""
        return int(MOST_FPS * (5 + self.rounds * (3 * self.seconds + 2 * self.settle_s + 4)))

    def take(self, lines: Path, come: Callable[[], AbstractContextManager[list[str]]]) -> None:
        """Count the `lines` of the inspection before, while and after the clients of `come` are there."""
        for _ in range(self.rounds):
            before = rate(lines, self.seconds)
            with come() as self._said:
                time.sleep(self.settle_s)
                during = rate(lines, self.seconds)
            time.sleep(self.settle_s)
            after = rate(lines, self.seconds)
            self._ratios.append(2 * during / (before + after))
            self._unrest.append(2 * abs(before - after) / (before + after))
            self._rates.append(f"{before:.0f} {during:.0f} {after:.0f}")

    @property
    def lost(self) -> float:
        """Return the part of the frames that the clients cost."""
        return 1 - statistics.median(self._ratios)

    @property
    def told(self) -> bool:
        """Whether the turns say anything: on a busy machine they do not."""
        return statistics.median(self._unrest) < MOST_UNREST

    @property
    def details(self) -> str:
        """Return what was lost, the rates, and what the clients of the last turn printed."""
        turns = f"a second before, during, after: {', '.join(self._rates)}"
        details = f"{100 * self.lost:.1f} % fewer frames ({turns}); answers: {self._said[0] if self._said else 'none'}"
        return details if self.told else f"not told, others are busy on this machine: {details}"
