"""A disk that is really small: a tmpfs of a megabyte, where this machine lets a test mount one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Mount a tmpfs of `size` at `folder`; skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=30)
    except OSError as error:
        pytest.skip(f"no small disk: {error}")
    if done.returncode:
        pytest.skip(f"no small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


def fill(disk: Path, *files: Path) -> Path:
    """Fill `disk` to its last page, and with line ends what is left of the last pages of `files`; return the filler."""
    for path, data in ((disk / "filler", b"x" * 4096), *((file, b"\n") for file in files)):
        with suppress(OSError), path.open("ab", buffering=0) as file:
            while file.write(data):
                pass
    return disk / "filler"
