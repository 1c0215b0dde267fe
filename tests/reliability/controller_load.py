"""What controllers that poll cost the inspection: `python -m tests.reliability.controller_load ROUNDS SECONDS`.

The inspection rate of `python -m runtime.infer` with an engine of about 2 ms is counted in turns without and with 50
clients that read a whole answer ten times a second each (see `controller_clients`).
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.reliability.page_load import inspecting
from tests.reliability.result import Result
from tests.reliability.turns import Turns, clients

CLIENTS = 50
MOST_LOST = 0.15
SETTLE_S = 4.0  # for all clients to connect, and to go
SAID = {"modbus": r"^Modbus [^:]*:(\d+)", "opcua": r"^OPC UA [^:]*:(\d+)"}


def measure(kind: str, rounds: int, seconds: float) -> Result:
    """Return the row of one protocol, of `rounds` turns of `seconds` each."""
    turns = Turns(rounds, seconds, SETTLE_S)
    with (
        tempfile.TemporaryDirectory() as folder,
        inspecting(Path(folder), turns.frames, (f"--{kind}", "0"), SAID[kind]) as (port, lines),
    ):
        time.sleep(1.0)
        turns.take(lines, lambda: clients("controller_clients", kind, str(port), str(CLIENTS), patience_s=30.0))
    failed = int(turns.told and turns.lost > MOST_LOST)
    return Result("controller", f"{CLIENTS} clients poll by {kind}", rounds if turns.told else 0, failed, turns.details)


if __name__ == "__main__":
    for one in SAID:
        print(measure(one, int(sys.argv[1]), float(sys.argv[2])))
