"""What a list says of each of its images: `export.images.list_places` finds it, `export.images.list_rows` reads it."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from export.images.layouts import GOOD, is_good, masks_in
from export.images.list_places import ImageList, inside
from export.images.list_rows import SPLITS, Row, read_rows
from export.images.masks import Mask, MaskParts, mask_files
from runtime.common.errors import UserError
from runtime.common.notices import say_once
from runtime.images.folders import list_images

CAMERA = re.compile(r"_(C\d+)_")  # in the names of Real-IAD's images
UNUSED_SPLITS = frozenset({"val", "valid", "validation"})
ANOMALY = "anomaly"  # a defect without a name
PLAIN_LABELS = {"0": GOOD, "false": GOOD, "1": ANOMALY, "true": ANOMALY}


@dataclass(frozen=True)
class ListedImage:
    """One image of a list: its `defect` (`GOOD`: none), and whether it is to train on, else to test on."""

    path: Path
    defect: str
    mask: Mask | None
    train: bool


def groups(source: ImageList) -> tuple[str, ...]:
    """Return the objects, or cameras, that a list tells apart, sorted; none where it does not.

    Raises `UserError` for a name that cannot be a file's: checkpoints are called after them.
    """
    found = {name: row.where for row in read_rows(source.file) if (name := _group(source, row))}
    for name, where in found.items():
        if name in (".", "..") or re.search(r"[/\\\0]", name):
            raise UserError(f"{where} must name an object without / and \\", name, "rename it")
    return tuple(sorted(found))


def _group(source: ImageList, row: Row) -> str:
    if not source.cameras:
        return str(row.cells.get("group") or "")
    camera = CAMERA.search(Path(str(row.cells.get("image"))).name)
    return camera[1] if camera else ""


def read_list(source: ImageList) -> list[ListedImage]:
    """Return the images of a list in its order, and say what of it is not used, or lies elsewhere.

    Raises `UserError` naming the first line that is wrong: no such image, a label or a split that says nothing, a
    defect to train on, an image listed twice, a path that leaves the list's folder.
    """
    rows = [row for row in read_rows(source.file) if not source.group or _group(source, row) == source.group]
    if not rows:
        raise UserError(f"{source.file} must list images of {source.group}", "none", "check the name")
    plain = not any("split" in row.cells or "label" in row.cells for row in rows)
    images: list[ListedImage] = []
    seen: dict[Path, str] = {}
    unused: Counter[str] = Counter()
    for row in rows:
        split = "train" if plain else _split(row)
        if split in UNUSED_SPLITS:
            unused[split] += 1
            continue
        images.append(image := _image(source, row, train=split == "train"))
        if image.path in seen:
            expected = f"{row.where} must name an image of its own"
            raise UserError(expected, f"that of {seen[image.path]}", "remove one of the two")
        seen[image.path] = row.where
    for split, count in unused.items():
        say_once(f"{count} images of split {split} in {source.file} are not used")
    for mask, count in Counter(file for image in images if image.mask for file in mask_files(image.mask)).items():
        if count > 1:
            raise UserError(f"{mask} must belong to one image of {source.file}", str(count), "name each image's own")
    _say_elsewhere(source, images)
    return images


def _say_elsewhere(source: ImageList, images: list[ListedImage]) -> None:
    base = Path(os.path.normpath(source.base.absolute()))
    outside = [image.path for image in images if not Path(os.path.normpath(image.path.absolute())).is_relative_to(base)]
    if outside:
        say_once(f"{len(outside)} images of {source.file} lie elsewhere, the first is {outside[0]}")


def _split(row: Row) -> str:
    split = str(row.cells.get("split") or "").casefold()
    if split not in SPLITS and split not in UNUSED_SPLITS:
        raise UserError(f"{row.where} must have a split, train or test", split or "none", "add a column split")
    return split


def _image(source: ImageList, row: Row, *, train: bool) -> ListedImage:
    path = _file(source, row, row.cells.get("image"), "image")
    label = row.cells.get("label")
    text = "" if label is None else str(label).strip()
    defect = GOOD if is_good(text) else PLAIN_LABELS.get(text.casefold(), text)
    if not defect:
        if not train:
            raise UserError(f"{row.where} must have a label", "none", "good, or the defect's name")
        defect = GOOD
    if train and defect != GOOD:
        expected = f"{row.where} must be good, as training learns from good images alone"
        raise UserError(expected, defect, "set its split to test, or remove it")
    return ListedImage(path, defect, None if defect == GOOD else _mask(source, row, path), train)


def _mask(source: ImageList, row: Row, image: Path) -> Mask | None:
    cell = row.cells.get("mask")
    if isinstance(cell, list):
        return MaskParts(tuple(_file(source, row, one, "mask") for one in cell)) if cell else None
    if cell:
        path = _file(source, row, cell, "mask")
        if path == image:
            raise UserError(f"{row.where} must have a mask of its own", "the image itself", "leave it empty for none")
        return MaskParts(tuple(list_images(path))) if path.is_dir() else path
    masks = source.root / "Data" / "Masks" / "Anomaly"  # VisA's, where its list does not name them
    return masks_in(masks).get(image.stem) if masks.is_dir() else None


def _file(source: ImageList, row: Row, cell: object, what: str) -> Path:
    if not isinstance(cell, str) or not cell.strip() or "\0" in cell:
        raise UserError(f"{row.where} must have a path of its {what}", repr(cell)[:80], f"name the {what} file")
    path = source.base / inside(row.where, cell.strip())
    if not (path.is_file() or (what == "mask" and path.is_dir())):
        cure = "write folders with /, not \\" if "\\" in cell else "mend the path, or remove the row"
        raise UserError(f"{row.where} must name a file that is there", f"no {path}", cure)
    return path
