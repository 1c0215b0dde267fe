"""What holds for every test."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.once_a_run import FOLDER

SHARED_OUT = "PYTEST_XDIST_WORKER" in os.environ  # this process is one of several that share the tests out
if SHARED_OUT:  # before torch is loaded: as many threads as processes, or they wait for each other's turns
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["CFLOW_CACHE"] = ""  # what a test compiles is not kept for this user's own programs

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background job: its programs would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def folder_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the processes of one run a folder in common."""
    if SHARED_OUT:
        folder = Path(tmp_path_factory.getbasetemp().parent, "once-a-run")
        folder.mkdir(exist_ok=True)
        os.environ[FOLDER] = str(folder)
