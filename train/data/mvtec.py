"""MVTec AD and what is laid out like it: a folder of classes, each with train/good, or lists of images."""

from collections import Counter
from pathlib import Path

from export.images.layouts import GOOD, good_folder
from export.images.list_places import find_list, is_real_iad, is_visa
from export.images.list_rows import holds_images, is_list_file
from export.images.lists import groups
from runtime.common.errors import UserError
from runtime.images.folders import list_folders

# Side in pixels of the paper's best WideResNet-50 result of each class (CFLOW-AD, WACV 2022, Table 2; the commands in
# the reference implementation's README). The keys are the data set's 15 classes.
PAPER_INPUT_SIDES = {
    "bottle": 512,
    "cable": 256,
    "capsule": 256,
    "carpet": 512,
    "grid": 512,
    "hazelnut": 256,
    "leather": 512,
    "metal_nut": 256,
    "pill": 256,
    "screw": 512,
    "tile": 512,
    "toothbrush": 512,
    "transistor": 128,
    "wood": 512,
    "zipper": 512,
}


def paper_size(name: str) -> tuple[int, int] | None:
    """Return the paper's (height, width) in pixels for a class; None for a class that is not MVTec AD's."""
    side = PAPER_INPUT_SIDES.get(name)
    return (side, side) if side else None


def classes(root: Path) -> tuple[str, ...]:
    """Return what `root` holds to be trained apart, sorted, each to be opened as `root / name`.

    That is the folders in `root` with good images to train on, MVTec AD's or one's own, else the lists in it; of a
    list its objects or cameras. Raises `UserError` if there is none.
    """
    if is_list_file(root):
        return _of_list(root)
    if not root.is_dir():
        raise UserError("--data must be a list or a folder of classes", f"no folder {root}")
    found = tuple(path.name for path in list_folders(root) if _is_class(path)) or _lists(root)
    if not found:
        one = _is_class(root)
        cure = "name its parent folder, or train it with train.fit" if one else ""
        raise UserError(
            f"{root} must hold a folder per class, each with train/{GOOD}", "a single class" if one else "none", cure
        )
    return found


def _is_class(folder: Path) -> bool:
    return is_visa(folder) or is_real_iad(folder) or good_folder(folder / "train") is not None


def _of_list(file: Path) -> tuple[str, ...]:
    source = find_list(file)
    found = groups(source) if source else ()
    if not found:
        expected = f"{file} must tell objects apart by a column object, category or product"
        raise UserError(expected, "none", "train it with train.fit")
    return found


def _lists(root: Path) -> tuple[str, ...]:
    """Return the names without suffix of the lists in `root`; two of one name are refused."""
    names = [path.stem for path in sorted(root.iterdir()) if is_list_file(path) and holds_images(path)]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{root} must hold one list {name}", f"{count}", "rename or remove one")
    return tuple(names)
