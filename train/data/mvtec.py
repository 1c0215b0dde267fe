"""MVTec AD: a folder of classes, each with train/good, test/* and ground_truth/*."""

from pathlib import Path

from export.images.layouts import GOOD, good_folder, is_visa
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
    """Return the names of the folders in `root` that hold good images to train on, MVTec AD's or one's own, sorted.

    Raises `UserError` if there is none.
    """
    if not root.is_dir():
        raise UserError("--data must be a folder of classes", f"no folder {root}")
    found = tuple(path.name for path in list_folders(root) if _is_class(path))
    if not found:
        one = _is_class(root)
        cure = "name its parent folder, or train it with train.fit" if one else ""
        raise UserError(
            f"{root} must hold a folder per class, each with train/{GOOD}", "a single class" if one else "none", cure
        )
    return found


def _is_class(folder: Path) -> bool:
    return is_visa(folder) or good_folder(folder / "train") is not None
