"""What of a source's frames a run judged: the mask, and the way from its judged frame back to the camera's."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.common.argument_types import roi
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.images.mask import Scoring, mask_at, result_inside
from runtime.images.view import View, ViewOptions, read_mask
from runtime.records.read import options_of_run, settings_of_run
from runtime.result import Result


@dataclass(frozen=True, eq=False)
class Seen:
    """What a source's frames were judged by: region, rotation and flip, and a mask (H, W) of the camera's frame.

    The mask is 255 where it is inspected; None: all is. `filled`: the rest was painted over.
    """

    view: View
    mask: NDArray[np.uint8] | None
    filled: bool = False

    @cached_property
    def judged_mask(self) -> NDArray[np.uint8] | None:
        """The mask of the judged frame (H, W)."""
        return None if self.mask is None else self.view.seen(np.dstack([self.mask] * 3))[..., 0]

    def inspected(self, result: Result, scoring: Scoring) -> Result:
        """Return what a result says of the part inside the mask."""
        mask = self.judged_mask
        return result if mask is None else result_inside(result, mask_at(mask > 0, result.anomaly_map.shape), scoring)


def seen_by(log: Path, run: str, recipe: str, source: str) -> Seen:
    """Return what of `source` was judged in a `run`; with a `recipe`, whose file the log has not, its whole frame.

    Raises `UserError` where the mask is not there any more as it was, or the run did not have the source.
    """
    if recipe:
        return Seen(View(), None)
    options, settings = options_of_run(log, run), settings_of_run(log, run)
    names = settings.get("sources", "").split(", ")
    if source not in names:
        raise UserError(f"{log} must tell which of its run's sources was {source}", ", ".join(names))
    place = names.index(source)

    def own(name: str) -> Any:
        given = options.get(name) or []
        value = given[place] if len(given) == len(names) else given[0] if given else None
        return None if value == "none" else value

    region = own("roi")
    box = (roi(region) or None) if region else None
    view = View(ViewOptions(roi=box, rotate=own("rotate") or 0, flip=own("flip") or ""))
    mask = own("mask")
    path = None if mask is None else Path(options.get("folder", "")) / mask
    if path is not None and (not path.is_file() or sha256_of(path) not in settings.get("mask", "")):
        found = "another file" if path.is_file() else "no such file"
        raise UserError(f"{path}, the mask that {source} was judged with, must be there as it was", found)
    return Seen(view, None if path is None else read_mask(path), bool(options.get("mask_fill")))
