"""One log for each TensorRT library of a process.

TensorRT keeps the first logger that it is given for as long as anything made with it lives, and
ignores the next. So there is one: whoever wants to know what was said clears it first.
"""

import ctypes
import sys
from collections import deque
from functools import cache
from typing import Any

from runtime.common.errors import UserError

KEPT_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING")
KEPT_ENTRIES = 200  # a camera runs for months
# where no driver is installed this follows most other errors, and is never the reason of a failed build
NOT_A_REASON = "CUDA driver version is insufficient"


@cache
def library_log(module: Any) -> Any:
    """Return the `ILogger` of a TensorRT library, the same one at every call.

    It keeps the latest errors and warnings in `entries`, pairs of (severity, text), and prints
    nothing; with `verbose` set it also prints everything on stderr. `reason()` is the last error.
    """
    base: Any = module.ILogger

    class LibraryLog(base):  # type: ignore[misc]  # the class exists only at run time
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants its own initialiser, not super()
            self.entries: deque[tuple[str, str]] = deque(maxlen=KEPT_ENTRIES)
            self.verbose = False

        def log(self, severity: Any, message: str) -> None:
            if severity.name in KEPT_SEVERITIES:
                self.entries.append((severity.name, message))
            if self.verbose:
                print(f"[{severity.name}] {message}", file=sys.stderr)

        def clear(self) -> None:
            self.entries.clear()

        def reason(self) -> str:
            errors = [text for name, text in self.entries if "ERROR" in name and NOT_A_REASON not in text]
            return errors[-1] if errors else "no reason given"

    return LibraryLog()


def make(kind: Any, log: Any, what: str, errors_end_it: bool = False) -> Any:
    """Return `kind(log)`, a library's builder or runtime. Raises `UserError` where it does not start.

    The library then logs why ("CUDA initialization failure with error: 35") and returns nothing, which the binding
    tells as a `TypeError`. With `errors_end_it` what was made is not trusted after a logged error.
    """
    log.clear()
    try:
        made = kind(log)
    except TypeError:
        made = None
    if made is not None and errors_end_it and any("ERROR" in severity for severity, _ in log.entries):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # its destructor would end the process
        made = None
    if made is None:
        cure = "see nvidia-smi: the driver must be as new as the library's CUDA, and the device have free memory"
        _, reason = log.entries[-1] if log.entries else ("", "no reason given")  # TensorRT 8 calls it a warning
        raise UserError(f"{what} must start", reason, cure)
    return made
