"""What is dear to make is made once a run, also where pytest-xdist's processes share the tests out among them."""

import fcntl
import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FOLDER = "CFLOW_TESTS_ONCE_A_RUN"  # environment: the folder that this run's processes share; not set in a run of one

Argument = TypeVar("Argument")
Made = TypeVar("Made")


def once_a_run(make: Callable[[Argument], Made]) -> Callable[[Argument], Made]:
    """Return `make`, which keeps what it made for each argument; one process makes it, the others read it."""

    @functools.cache
    def made(argument: Argument) -> Made:
        folder = os.environ.get(FOLDER)
        if folder is None:
            return make(argument)
        name = hashlib.sha256(f"{make.__module__}.{make.__qualname__}({argument!r})".encode()).hexdigest()
        path = Path(folder, name)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if not path.exists():
                value = make(argument)
                path.write_bytes(pickle.dumps(value))
                return value
        return pickle.loads(path.read_bytes())

    return made
