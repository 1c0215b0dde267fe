"""Waiting for what another thread or process does, without asserting how long it takes."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str = "it did not come to that") -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)
