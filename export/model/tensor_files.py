"""Files written by torch.save: whole or not at all, and read without running any code that they may hold."""

import zipfile
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import torch

from runtime.common.errors import UserError
from runtime.common.files import check_regular, whole_file
from runtime.common.interrupts import lasting_interrupt

Value = TypeVar("Value")
WRAPPERS = ("module.", "_orig_mod.")


class _Disk(FileIO):
    """A file that keeps the disk's error, which torch.save hides behind one of its own."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            view = memoryview(data).cast("B")
            done = 0
            while done < len(view):  # a raw file may take a part
                done += super().write(view[done:])
        except OSError as error:
            self.error = error
            raise
        return done


def save_torch_file(path: Path, content: Any) -> None:
    """Write `content` by torch.save, whole or not at all. Raises `OSError` where the disk does not take it.

    Ctrl-C and SIGTERM, too, are hidden by torch.save behind an error of its own, and are raised here as what they are.
    """
    with whole_file(path) as temporary, _Disk(temporary, "w") as disk, lasting_interrupt() as check_interrupt:
        try:
            torch.save(content, disk)
        except RuntimeError:
            check_interrupt()
            if disk.error is not None:
                raise disk.error from None
            raise


class StandIn:
    """What an object of a type that is not loaded becomes: it keeps what was pickled and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_torch_file(path: Path, expected: str) -> Any:
    """Return what torch.save put into `path`, on the CPU; only tensors and plain types are unpickled.

    Raises `FileNotFoundError`, and `UserError` saying that `path` must be `expected` where it is anything else.
    """
    check_regular(path, f"{path} must be {expected}")
    _check_sizes(path, expected)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        raise UserError(f"{path} must be {expected}", _reason(error)) from None


def _check_sizes(path: Path, expected: str) -> None:
    """Raise `UserError` for an archive whose parts claim to be larger than it is: memory is taken for what they claim.

    torch.save does not compress, so that such a file is damaged or made to exhaust the machine.
    """
    if not zipfile.is_zipfile(path):  # torch.save before 1.6, or no such file at all: torch.load will tell
        return
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} must be {expected}", f"a damaged archive ({error})") from None
    size = path.stat().st_size
    if claimed > size:
        raise UserError(f"{path} must be {expected}", f"parts of {claimed} bytes in a file of {size}")


def _reason(error: Exception) -> str:
    """Return the line that says what is wrong, without torch's advice to load the file in ways that run its code."""
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Weights only load failed")]
    return lines[0].strip().partition(" Please use ")[0] if lines else type(error).__name__


def read_with_stand_ins(path: Path, expected: str) -> tuple[Any, list[str]]:
    """Read like `read_torch_file`, but put a `StandIn` wherever the file names any other class or function.

    Returns the content and the names that stand-ins took the place of. Nothing that the file names is imported
    or called. Raises as `read_torch_file` does, also for names that torch refuses outright (those of `os` and `sys`).
    """
    names = _foreign_names(path)
    with torch.serialization.safe_globals([_stand_in(name) for name in names]):
        return read_torch_file(path, expected), names


def _foreign_names(path: Path) -> list[str]:
    # torch.save before 1.6 made no archive, and read_torch_file will tell of no such file
    if not path.is_file() or not zipfile.is_zipfile(path):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged archive, of which read_torch_file says what is wrong
        return []


def _stand_in(name: str) -> type[StandIn]:
    module, _, qualified = name.rpartition(".")
    return type(qualified, (StandIn,), {"__module__": module, "__qualname__": qualified})


def unwrapped(state: Mapping[str, Value]) -> dict[str, Value]:
    """Return a state dict without what (Distributed)DataParallel and torch.compile put in front of every name."""
    for wrapper in WRAPPERS:
        if state and all(isinstance(name, str) and name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return dict(state)
