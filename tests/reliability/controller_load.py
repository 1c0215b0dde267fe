"""What controllers that poll cost the inspection: `python -m tests.reliability.controller_load ROUNDS SECONDS`.

The inspection rate of `python -m runtime.infer` with an engine of about 2 ms is counted in turns without and with 50
clients that read a whole answer ten times a second each (see `controller_clients`).
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.reliability.page_load import MOST_FPS, MOST_UNREST, inspecting, rate
from tests.reliability.result import Result, Scale, Skipped
from tests.support.paths import ROOT

CLIENTS = 50
MOST_LOST = 0.15
SETTLE_S = 4.0  # for all clients to connect, and to go
KINDS = {"modbus": ("pymodbus", r"^Modbus [^:]*:(\d+)"), "opcua": ("asyncua", r"^OPC UA [^:]*:(\d+)")}


@contextlib.contextmanager
def _polling(kind: str, port: int) -> Iterator[list[str]]:
    command = [sys.executable, "-m", "tests.reliability.controller_clients", kind, str(port), str(CLIENTS)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        yield said
    finally:
        try:
            said.append(process.communicate(timeout=30)[0].strip())
        except subprocess.TimeoutExpired:
            process.kill()


def measure(kind: str, rounds: int, seconds: float) -> Result:
    """Return the row of one protocol, of `rounds` turns of `seconds` each."""
    ratios, unrest, rates, said = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        frames = int(MOST_FPS * (5 + rounds * (3 * seconds + 2 * SETTLE_S + 4)))
        with inspecting(Path(folder), frames, (f"--{kind}", "0"), KINDS[kind][1]) as (port, lines):
            time.sleep(1.0)
            for _ in range(rounds):
                before = rate(lines, seconds)
                with _polling(kind, port) as said:
                    time.sleep(SETTLE_S)
                    during = rate(lines, seconds)
                time.sleep(SETTLE_S)
                after = rate(lines, seconds)
                ratios.append(2 * during / (before + after))
                unrest.append(2 * abs(before - after) / (before + after))
                rates.append(f"{before:.0f} {during:.0f} {after:.0f}")
    lost = 1 - statistics.median(ratios)
    turns = f"a second before, during, after: {', '.join(rates)}"
    details = f"{100 * lost:.1f} % fewer frames ({turns}); {said[0] if said else 'no answer'}"
    told = statistics.median(unrest) < MOST_UNREST
    if not told:
        details = f"not told, others are busy on this machine: {details}"
    name = f"{CLIENTS} clients poll by {kind}"
    return Result("controller", name, rounds if told else 0, int(told and lost > MOST_LOST), details)


def run(scale: Scale) -> list[Result]:
    """Return the rows of the table; see the package."""
    kinds = [kind for kind, (library, _) in KINDS.items() if find_spec(library)]
    if not kinds:
        raise Skipped("neither pymodbus nor asyncua is installed")
    rounds, seconds = (2, 1.0) if scale.short else (10, 5.0)
    return [measure(kind, rounds, seconds) for kind in kinds]


if __name__ == "__main__":
    for one in KINDS:
        print(measure(one, int(sys.argv[1]), float(sys.argv[2])))
