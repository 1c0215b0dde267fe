"""MVTec LOCO's saturation: how much of a defect must be found before all of it counts, from `defects_config.json`.

    [{"defect_name": "1_pushpin_missing", "pixel_value": 255, "saturation_threshold": 6300,
      "relative_saturation": false}, ...]

A mask file holds one defect, and its grey level says of which kind. The threshold is an area in pixels of the image,
or with `relative_saturation` a share of the defect's own area: a missing part may be marked anywhere in its
compartment, a scratch must be found whole.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.images.masks import MaskParts, Saturation, load_mask, resize_mask
from runtime.common.errors import UserError
from runtime.images.preprocess import read_with

CONFIG = "defects_config.json"


@dataclass(frozen=True, eq=False)
class Defect:
    """One defect of an image: its `mask` (h, w), and the area in pixels of it that must be found."""

    mask: NDArray[np.bool_]
    saturation: float


def read_saturations(root: Path) -> tuple[Saturation, ...]:
    """Return what `defects_config.json` in `root` says; nothing without one. Raises `UserError` naming its fault."""
    path = root / CONFIG
    if not path.is_file():
        return ()
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON", str(error), "copy it from the data set again") from None
    if not isinstance(entries, list):
        raise UserError(f"{path} must be a list of defects", type(entries).__name__, "copy it from the data set again")
    return tuple(_saturation(path, number, entry) for number, entry in enumerate(entries, 1))


def _saturation(path: Path, number: int, entry: Any) -> Saturation:
    try:
        found = Saturation(entry["pixel_value"], entry["saturation_threshold"], entry["relative_saturation"])
        numbers = all(type(value) in (int, float) for value in (found.pixel_value, found.threshold))
        good = numbers and found.threshold > 0 and isinstance(found.relative, bool)
    except (KeyError, TypeError):
        good = False
    if not good:
        expected = f"entry {number} of {path} must have pixel_value, saturation_threshold above 0, relative_saturation"
        raise UserError(expected, json.dumps(entry)[:120], "copy the file from the data set again")
    return found


def read_defects(mask: MaskParts, size: tuple[int, int]) -> list[Defect]:
    """Return the defects of an image at `size` = (height, width), one for each file that marks a pixel.

    An area in pixels is scaled as the image is; at least one pixel must be found. Raises `UserError` for a mask
    whose grey level the configuration does not name.
    """
    by_level = {saturation.pixel_value: saturation for saturation in mask.saturations}
    defects = []
    for path in mask.paths:
        whole = load_mask(path)
        if not whole.any():
            continue
        level = read_with(path, lambda image: int(np.asarray(image).max()))
        saturation = by_level.get(level)
        if saturation is None:
            known = ", ".join(map(str, by_level))
            raise UserError(f"{path} must have a grey level of {CONFIG} ({known})", str(level), "copy it again")
        marked = resize_mask(whole, size)
        area = int(marked.sum())
        scale = marked.size / whole.size
        wanted = int(saturation.threshold * area) if saturation.relative else saturation.threshold * scale
        defects.append(Defect(marked, float(min(max(wanted, 1), area))))
    return defects
