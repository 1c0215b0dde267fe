"""Files written by torch.save, read without running any code that they may hold."""

from pathlib import Path
from typing import Any

import torch

from runtime.errors import UserError


def read_torch_file(path: Path, expected: str) -> Any:
    """Return what torch.save put into `path`, on the CPU; only tensors and plain types are unpickled.

    Raises `FileNotFoundError`, and `UserError` saying that `path` must be `expected` where it is anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} must be {expected}", first) from None
