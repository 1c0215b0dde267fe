"""What an archive holds: a folder, a tar, folders of tars, the frames of an inspection log; here or by a URL."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from runtime.archive import logged, tars
from runtime.archive.items import WHOLE, Item, Shard, each_once
from runtime.archive.storage import Store
from runtime.common.addresses import is_url
from runtime.common.errors import UserError
from runtime.common.files import check_regular, printable
from runtime.images.folders import IMAGE_SUFFIXES, is_hidden_folder

KINDS = "a folder of images or of .tar files, a .tar, or an inspection log (.db)"


def is_log(archive: str) -> bool:
    """Whether an archive is an inspection log."""
    return not is_url(archive) and archive.endswith(logged.SUFFIX)


def list_archive(archive: str, shard: Shard = WHOLE) -> list[Item]:
    """Return the images of a shard of an archive, by name: those in folders below too, hidden ones left out.

    Raises `UserError` for what is no archive or holds no image at all, `OSError` where a folder cannot be read.
    """
    found, ours = 0, []
    for item in _found(archive):
        found += 1
        if item.name in shard:
            ours.append(item)
    if not found:
        expected = f"{Store(archive).shown} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        kept = "no frame that was kept" if is_log(archive) else "none"
        cure = "events and marks keep frames" if is_log(archive) else "check the path"
        raise UserError(expected, kept, cure)
    return each_once(ours)


def _found(archive: str) -> Iterator[Item]:
    store = Store(archive)
    if store.remote:
        yield from _of_url(store)
        return
    path = Path(archive)
    if path.is_dir():
        yield from _of_folder(store, path)
        return
    check_regular(path, f"{path} must be {KINDS}")
    if not path.is_file() and not is_log(archive):
        raise UserError(f"{path} must be {KINDS}", "no such file", "check the path")
    if is_log(archive):
        yield from logged.pictures(path.absolute())
    elif tars.is_tar(path.name):
        yield from tars.members(store, printable(path.name), str(path.absolute()))
    else:
        raise UserError(f"{path} must be {KINDS}", "another file", "name its folder")


def _of_folder(store: Store, folder: Path) -> Iterator[Item]:
    def stop(error: OSError) -> None:
        raise error  # a folder that is passed over would be images that nobody misses

    root = folder.absolute()
    for place, folders, names in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not is_hidden_folder(name)]
        for name in names:
            if _is_kept(name) and (path := Path(place, name)).is_file():
                yield from _entry(store, printable(path.relative_to(root).as_posix()), str(path))


def _of_url(store: Store) -> Iterator[Item]:
    for path in store.find():
        inner = path.removeprefix(store.root).lstrip("/") or PurePosixPath(path).name
        *folders, name = PurePosixPath(inner).parts
        if _is_kept(name) and not any(map(is_hidden_folder, folders)):
            yield from _entry(store, inner, path)


def _is_kept(name: str) -> bool:
    if name.startswith("."):
        return False
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES or name.lower().endswith((tars.SUFFIX, *tars.PACKED))


def _entry(store: Store, name: str, place: str) -> Iterator[Item]:
    try:
        packed = tars.is_tar(name)
    except UserError as error:
        yield Item(name, place, fault=str(error))
        return
    if packed:
        yield from tars.members(store, name, place)
    else:
        yield Item(name, place)
