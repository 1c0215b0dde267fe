"""Passwords and tokens come from a file or the environment: a command line can be read by every process."""

import os
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.files import read_secret_file


def read_secret(path: Path | None, variable: str) -> list[str]:
    """Return the lines of the file at `path` or, without one, the environment's `variable` (none where not set).

    Raises `OSError` for a file that cannot be read and `UserError` for one that is no text.
    """
    if path is None:
        return os.environ.get(variable, "").splitlines()
    return read_secret_file(path).rstrip("\r\n").splitlines()


def read_user(path: Path | None, user_variable: str, password_variable: str) -> tuple[str, str]:
    """Return user and password from a file of two lines or, without one, from the environment ("" where not set).

    Raises as `read_secret` does, and `UserError` for a file of another form.
    """
    if path is None:
        user, password = ("".join(read_secret(None, name)) for name in (user_variable, password_variable))
        return user, password
    lines = read_secret(path, "")
    if not 1 <= len(lines) <= 2 or not lines[0]:
        raise UserError(f"{path} must hold two lines, user and password", f"{len(lines)} lines")
    return lines[0], "".join(lines[1:])
