"""One way to end a command: a line that a person can act on, and an exit status a script can test."""

import errno
import io
import signal
import sys
from collections.abc import Callable, Sequence

USAGE_STATUS = 2  # bad input, missing dependency, full disk
INTERRUPTED_STATUS = 128 + signal.SIGINT  # 130, what a shell reports for Ctrl-C


class UserError(Exception):
    """Something only the user can mend.

    The message is one line: what was expected, what was found, the cure.
    """

    def __init__(self, expected: str, found: str = "", cure: str = "") -> None:
        parts = [expected, found and f"found {found}", cure]
        super().__init__("; ".join(part for part in parts if part))


def _os_error_line(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the command again"
    return f"{error.strerror or error}{where}"


def run_command(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and turn what a user can mend into one line on stderr.

    Returns the exit status: 0, 2 for bad input (`UserError`, `OSError`), 130 for Ctrl-C. Any other
    exception is a defect of the program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that no encoding knows
    try:
        return main(argv) or 0
    except UserError as error:
        line = str(error)
    except OSError as error:
        line = _os_error_line(error)
    except KeyboardInterrupt:
        print("\ninterrupted; what was written before is whole", file=sys.stderr)
        return INTERRUPTED_STATUS
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return USAGE_STATUS
