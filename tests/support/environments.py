"""Virtual environments of their own for servers whose packages cannot live beside this project's.

Each is made once and kept in a folder named for what is in it: CFLOW_TEST_SERVERS, or the user's cache.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.installed_aside import CACHE, kept

INSTALL_S = 900


def environment(name: str, wanted: Sequence[str], *words: str) -> Path:
    """Return the folder of an environment with the packages `wanted`; `words` are more of pip's command line.

    Skips the test where it cannot be made.
    """
    digest = hashlib.sha256("\n".join([sys.version, *wanted, *words]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("CFLOW_TEST_SERVERS") or CACHE)
    return kept(f"{name}-{digest}", lambda place: _make(name, place / "venv", [*words, *wanted]), folder) / "venv"


def _make(name: str, venv: Path, words: list[str]) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", str(venv)], check=True, capture_output=True, timeout=INSTALL_S)
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        pytest.skip(f"{name} cannot be installed here: {' '.join(done.stderr.split())[-200:]}")
