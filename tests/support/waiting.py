"""Waiting for what another thread or process does, without asserting how long it takes."""

import time
from collections.abc import Callable

LONGEST_S = 120  # of a machine with much else to do


def wait_until(condition: Callable[[], object], what: str = "it did not come to that") -> None:
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
