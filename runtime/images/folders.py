"""Folders of images: what is looked at in one, what is passed over, and what to say of it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from runtime.common.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# What file managers, notebooks, network storage and archives leave beside one's own folders.
HIDDEN_BEGINNINGS = (".", "@")
HIDDEN_NAMES = frozenset({"__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
MOST_SPREAD = 64  # images that stand for all of a set, where a few are enough


def evenly_spread(count: int, most: int = MOST_SPREAD) -> list[int]:
    """Return at most `most` indices of `count`, evenly spread."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, min(most, count)).round())]


def is_hidden_folder(name: str) -> bool:
    """Whether a folder of this name was made by a program for itself: `.ipynb_checkpoints`, `@eaDir`, `__MACOSX`."""
    return name.startswith(HIDDEN_BEGINNINGS) or name.casefold() in HIDDEN_NAMES


def list_folders(folder: Path) -> list[Path]:
    """Return the folders directly inside `folder`, sorted; none if it is no folder. Hidden ones are left out."""
    found = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else iter(())
    return sorted(path for path in found if not is_hidden_folder(path.name))


def list_images(folder: str | Path) -> list[Path]:
    """Return the images directly inside `folder`, `frame2.png` before `frame10.png`; hidden files are left out.

    Raises `UserError` if `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} must be a folder of images", "no folder", "check the path")
    return sorted((path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Return what sorts `frame2.png` before `frame10.png`."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if part.isdigit() and part.isascii() else part for part in parts], path.name


def describe_use(paths: Sequence[Path]) -> str:
    """Return in words how many images are used, from where, and what lies beside them and is not."""
    folders = list(dict.fromkeys(path.parent for path in paths))
    where = str(folders[0]) if len(folders) == 1 else f"{len(folders)} folders"
    ignored = describe_ignored(*folders)
    return f"{len(paths)} images used from {where}" + (f"; ignored there: {ignored}" if ignored else "")


def describe_ignored(*folders: Path) -> str:
    """Return in words what in `folders` is no image for its suffix, or is one but nested; nothing where all is used."""
    suffixes = Counter(path.suffix.lower() or "none" for folder in folders for path in _files(folder))
    others = {suffix: count for suffix, count in sorted(suffixes.items()) if suffix not in IMAGE_SUFFIXES}
    nested = sum(1 for folder in folders for _ in _images_below(folder))
    parts = []
    if others:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in others.items())
        parts.append(f"{sum(others.values())} files that are no images by their suffix ({kinds})")
    if nested:
        parts.append(f"{nested} images in folders below")
    return ", ".join(parts)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _images_below(folder: Path) -> Iterator[Path]:
    for inner in list_folders(folder):
        yield from list_images(inner)
        if not inner.is_symlink():  # which may lead back up
            yield from _images_below(inner)
