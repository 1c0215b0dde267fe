"""Passwords and tokens come from a file or the environment: a command line can be read by every process."""

import os
from pathlib import Path

from runtime.common.files import read_secret_file


def read_secret(path: Path | None, variable: str) -> list[str]:
    """Return the lines of the file at `path` or, without one, the environment's `variable` (none where not set).

    Raises `OSError` for a file that cannot be read and `UserError` for one that is no text.
    """
    if path is None:
        return os.environ.get(variable, "").splitlines()
    return read_secret_file(path).rstrip("\r\n").splitlines()
