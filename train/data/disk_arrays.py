"""Arrays of one shape on disk, read as one array: what is in memory does not grow with how many there are.

They lie in a file without a name, which goes with the process, also with one that is killed.
"""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.common.errors import UserError


class DiskArrays:
    """`shape` (N, ...) in a file in `folder`; `what` they are, and the `cure` where there is no room, for people.

    Raises `UserError` where `folder` has not the room for all of them, or no longer has.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, folder: Path, what: str, cure: str) -> None:
        self._what, self._cure, self._folder = what, cure, folder
        needed, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(folder).free
        if needed > free:
            expected = f"{shape[0]} {what} of {'x'.join(map(str, shape[1:3]))} need {needed / 1e9:.1f} GB of disk"
            raise UserError(expected, f"{free / 1e9:.1f} GB free in {folder}", cure)
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".arrays-")  # noqa: SIM115
        self._file.truncate(needed)
        self.whole: NDArray[Any] = np.memmap(self._file, dtype, "r", shape=shape)

    def store(self, index: int, array: NDArray[Any]) -> None:
        """Write an array: not through the map, where a full disk would end the process."""
        bytes_of = np.ascontiguousarray(array, self.whole.dtype)
        try:
            self._file.seek(index * bytes_of.nbytes)
            self._file.write(bytes_of.data)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._what} must fit the disk of {self._folder}", str(error), self._cure) from None
