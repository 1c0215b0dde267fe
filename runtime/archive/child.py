"""A process that judges images: `python -m runtime.archive.child LINK`, started by `runtime.archive.keeper` alone.

One engine, one thread of computing, and whatever a damaged file does to a decoder ends this process and no other. LINK
is the number of an inherited socket; the process ends when that does, so none stays behind a killed command.
"""

import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from runtime.archive.judging import Judge
from runtime.archive.setup import Identity, Setup
from runtime.common.errors import UserError

IDLE_S = 300.0  # without a question: a cluster's worker whose command was killed keeps no engine in memory


def serve(link: "Connection[Any, Any]") -> None:
    """Open what the first message says and tell what it is; then give the rows of the items of each message."""
    setup: Setup = link.recv()
    try:
        detector = setup.open()
    except (UserError, OSError) as error:
        link.send({"error": str(error)})
        return
    with detector:
        try:
            judge, identity = Judge(setup, detector), Identity.of(setup, detector)
        except (UserError, OSError) as error:
            link.send({"error": str(error)})
            return
        link.send({"identity": identity})
        while link.poll(IDLE_S):
            link.send(list(judge.rows(link.recv())))


def main() -> None:
    """Serve until the link ends."""
    with suppress(EOFError, OSError), Connection(int(sys.argv[1])) as link:
        serve(link)


if __name__ == "__main__":
    main()
