"""Images that a list names, not their folders: one's own CSV or JSON, VisA's CSV, Real-IAD's JSON.

    LIST.csv, LIST.json              one's own; also as LIST, without the suffix
    LIST.csv/NAME                    its rows of one object (a column object, category or product)
    CATEGORY.json/C2                 one camera of Real-IAD
    VISA/CLASS                       with VISA/split_csv/1cls.csv
    REAL-IAD/realiad_1024/CATEGORY   with REAL-IAD/realiad_jsons/realiad_jsons/CATEGORY.json

Paths are relative to the list's folder and stay within it; one that lies elsewhere must be written out, from /.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from export.images.list_rows import is_list_file, real_iad_meta
from runtime.common.errors import UserError
from runtime.images.folders import list_folders

VISA_SPLIT = Path("split_csv", "1cls.csv")
REAL_IAD_LISTS = (Path("realiad_jsons", "realiad_jsons"), Path("realiad_jsons"))
REAL_IAD_FOLDER = "realiad_"


@dataclass(frozen=True)
class ImageList:
    """A list in `file` whose paths are relative to `base`; `group`: the rows of one object or camera alone.

    `root` and `part` are what the data set is called after.
    """

    file: Path
    base: Path
    root: Path
    part: str = ""
    group: str = ""
    cameras: bool = False


def find_list(root: Path) -> ImageList | None:
    """Return the list that `root` stands for; None where it is a folder whose layout says what is what.

    Raises `UserError` where a published data set lacks its list, or a Real-IAD list its images.
    """
    if is_list_file(root):
        return _own(root)
    if is_list_file(root.parent):
        whole = _own(root.parent)
        part = f"{whole.part}/{root.name}" if whole.part else root.name
        return ImageList(whole.file, whole.base, whole.root, part, root.name, whole.cameras)
    if not root.exists():
        named = [root.with_name(root.name + suffix) for suffix in (".csv", ".json")]
        return next((_own(path) for path in named if path.is_file()), None)
    if is_visa(root):
        table = root.absolute().parent / VISA_SPLIT
        return ImageList(_needed(root, "class of VisA", table), root.parent, root, group=root.absolute().name)
    if is_real_iad(root):
        top, name = root.absolute().parent.parent, f"{root.absolute().name}.json"
        tables = [top / folder / name for folder in REAL_IAD_LISTS]
        table = next((table for table in tables if table.is_file()), tables[0])
        return ImageList(_needed(root, "category of Real-IAD", table), root, root, cameras=True)
    return None


def is_visa(root: Path) -> bool:
    """Whether `root` is a class of VisA as it is published."""
    return (root / "Data" / "Images").is_dir()


def is_real_iad(root: Path) -> bool:
    """Whether `root` is a category of Real-IAD as it is published."""
    return root.absolute().parent.name.startswith(REAL_IAD_FOLDER) and (root / "OK").is_dir()


def _needed(root: Path, what: str, table: Path) -> Path:
    if not table.is_file():
        expected = f"{root} is a {what} and needs {table}, which says what to train on"
        raise UserError(expected, "no such file", "copy it from the data set")
    return table


def _own(file: Path) -> ImageList:
    meta = real_iad_meta(file)
    if not meta or not meta.get("prefix"):
        return ImageList(file, file.parent, file.parent, file.stem)
    prefix = inside(f"the prefix of {file}", str(meta["prefix"]))
    above = [folder / prefix for parent in list(file.absolute().parents)[:3] for folder in (parent, *_sizes(parent))]
    found = [folder for folder in above if folder.is_dir()]
    if len(found) != 1:
        expected = f"{file} must have its images in one folder realiad_SIZE/{prefix} beside or above it"
        names = ", ".join(map(str, found)) or "none"
        raise UserError(expected, names, "give --data realiad_SIZE/CATEGORY itself" if found else "copy them there")
    return ImageList(file, found[0], found[0], cameras=True)


def _sizes(folder: Path) -> list[Path]:
    return [inner for inner in list_folders(folder) if inner.name.startswith(REAL_IAD_FOLDER)]


def inside(where: str, path: str) -> str:
    """Return a path without its detours. Raises `UserError` for a relative one that leaves the list's folder."""
    plain = os.path.normpath(path)
    if Path(plain).parts[:1] == (os.pardir,):
        raise UserError(f"{where} must stay in the list's folder", path, "write the whole path, from /")
    return plain
