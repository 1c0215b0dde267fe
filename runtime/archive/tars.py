"""The images in a tar, by where each one's bytes lie: read later one by one, in any order, by any process."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from runtime.archive.items import Item
from runtime.archive.storage import Store, words
from runtime.common.errors import UserError
from runtime.common.files import printable
from runtime.images.folders import IMAGE_SUFFIXES

SUFFIX = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_tar(name: str) -> bool:
    """Whether a file of this name is a tar whose images can be read one by one. `UserError` for a compressed one."""
    if name.lower().endswith(PACKED):
        raise UserError(f"{name} must be a .tar that is not compressed", "a compressed one", "unpack it: gunzip")
    return name.lower().endswith(SUFFIX)


def members(store: Store, name: str, place: str) -> Iterator[Item]:
    """Yield the images in the tar at `place` of a store, as NAME/MEMBER.

    Where it is damaged, an item that says so comes last.
    """
    read = 0
    try:
        with store.open(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                read = tar.offset
                path = PurePosixPath(member.name)
                if member.isreg() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                    inner = f"{name}/{printable(member.name)}"
                    yield Item(inner, place, member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]  # or a tar of millions would be kept in memory
            file.seek(tar.offset)  # tarfile takes what is no header for the end
            found = file.read(tarfile.BLOCKSIZE)
            fault = "" if not found.strip(b"\0") else "what is no tar any more"
    except Exception as error:  # what is wrong with one tar, or with the way to it, is not the end of the others
        fault = words(error)
    if fault:
        said = UserError(f"{name} must be a whole tar", f"after {read} bytes: {fault}", "copy it again")
        yield Item(name, place, fault=str(said))
