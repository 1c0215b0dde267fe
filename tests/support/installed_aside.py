"""Packages that the tests' environment does not hold (large, or of another version), installed beside it and kept."""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cflow-edge-tests"
INSTALL_S = 600


def kept(name: str, make: Callable[[Path], None], folder: Path = CACHE) -> Path:
    """Return a folder of that name in the cache, which `make` fills once, whatever processes ask for it together."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "ready").exists():
            make(place)
            (place / "ready").touch()
    return place


def installed_aside(*requirements: str) -> Path:
    """Return a folder with these pinned packages, without what they need; skips the test where pip gets them not."""
    assert all("==" in one for one in requirements)
    words = " ".join([*sorted(requirements), "{}.{}".format(*sys.version_info)])

    def make(place: Path) -> None:
        install = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--upgrade"]
        command = [sys.executable, "-m", "pip", *install, "--target", str(place / "site"), *requirements]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
        if ended.returncode:
            pytest.skip(f"pip install {' '.join(requirements)}: {ended.stderr.strip().splitlines()[-1]}")

    return kept(hashlib.sha256(words.encode()).hexdigest()[:16], make) / "site"


def run_with(sites: Sequence[Path], *words: str, libraries: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with `sites` before this environment's packages; `libraries` is where its loader looks first."""
    paths = [*map(str, sites), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300)
