"""From an image's bytes to its row: read, seen, judged as `runtime.infer` does; no error ends the run."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from runtime.archive.items import Item, Seen
from runtime.archive.setup import Setup
from runtime.archive.storage import Store
from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.images.pixels import Image8
from runtime.images.preprocess import read_image
from runtime.images.regions import Region, regions_above
from runtime.images.view import View
from runtime.improve import views
from runtime.result import Result

Row = dict[str, Any]
AHEAD = 8  # images whose bytes are fetched while one is judged
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in memory: another one each time
FETCHERS = {False: 1, True: 4}  # threads: a disk is read in order, a server answers several at a time


def unjudged(item: Item, error: str, content: bytes | None = None) -> Row:
    """Return the row of an image that has no verdict because of an `error`."""
    digest = "" if content is None else hashlib.sha256(content).hexdigest()
    row: Row = {"name": item.name, "image_sha256": digest, "bytes": None if content is None else len(content)}
    said = {"width": None, "height": None, "score": None, "verdict": "none", "reason": error}
    return {**row, **said, "boxes": [], "error": error}


class _Named(io.BytesIO):
    """An image's bytes, which errors of libraries call by its name: the same file is the same error each time."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name

    def __repr__(self) -> str:
        return repr(self._name)


class Judge:
    """Judges the images of an archive with a detector, which stays the caller's.

    Raises `UserError` for a mask that cannot be read.
    """

    def __init__(self, setup: Setup, detector: Detector) -> None:
        self._store = Store(setup.archive)
        self._detector = detector
        self._view = View(setup.view)
        self._reading = setup.reading(detector.sidecar.white)
        self._masks: dict[Seen, views.Seen | UserError] = {}

    def rows(self, items: Sequence[Item]) -> Iterator[Row]:
        """Yield the row of each image, in order; the bytes of the next ones are fetched meanwhile."""
        with ThreadPoolExecutor(FETCHERS[self._store.remote], "fetch") as fetchers:
            waiting = iter(items)
            coming = [(item, fetchers.submit(self._bytes, item)) for item in islice(waiting, AHEAD)]
            while coming:
                item, fetched = coming.pop(0)
                content = fetched.result()
                coming.extend((next_one, fetchers.submit(self._bytes, next_one)) for next_one in islice(waiting, 1))
                yield unjudged(item, content) if isinstance(content, str) else self._row(item, content)

    def _bytes(self, item: Item) -> bytes | str:
        """Return an image's bytes, or why there are none."""
        try:
            return item.fault or self._store.fetch(item)
        except UserError as error:
            return str(error)

    def _row(self, item: Item, content: bytes) -> Row:
        try:
            image = read_image(item.name, self._reading, _Named(content, item.name))
            result, boxes = self._judged(item, image)
        except UserError as error:
            return unjudged(item, str(error), content)
        except Exception as error:  # of a file that a library chokes on; the others are to be judged all the same
            return unjudged(item, f"{item.name}: {type(error).__name__}: {ADDRESS.sub('', str(error))}", content)
        digest = hashlib.sha256(content).hexdigest()
        height, width = image.shape[:2]
        row: Row = {"name": item.name, "image_sha256": digest, "bytes": len(content), "width": width, "height": height}
        said = {"score": result.score, "verdict": result.verdict, "reason": result.reason}
        return {**row, **said, "boxes": [box.fields() for box in boxes], "error": ""}

    def _judged(self, item: Item, image: Image8) -> tuple[Result, list[Region]]:
        """Return the result of an image, and its boxes in the image's own pixels. Raises `UserError` as a detector."""
        score = self._detector.sidecar.scoring
        if item.seen is not None:  # it is what was judged, cut and turned already
            result = self._mask(item.seen).inspected(self._detector(image), score)
            return result, _boxes(result, image)
        seen = np.ascontiguousarray(self._view(image))
        result = self._view.inspected(self._detector(seen), score)
        size = (seen.shape[0], seen.shape[1])
        places = [((box.x, box.y, box.width, box.height), box.peak) for box in _boxes(result, seen)]
        return result, [Region(*self._view.to_camera(place, size), peak) for place, peak in places]

    def _mask(self, of: Seen) -> views.Seen:
        """Return the mask that the line had. Raises `UserError` where that is not there any more."""
        if of not in self._masks:
            try:
                self._masks[of] = views.seen_by(Path(of.log), of.run, of.recipe, of.source)
            except (UserError, OSError) as error:
                self._masks[of] = UserError(str(error))
        found = self._masks[of]
        if isinstance(found, UserError):
            raise found
        return found


def _boxes(result: Result, image: Image8) -> list[Region]:
    return regions_above(result.anomaly_map, result.map_threshold, (image.shape[0], image.shape[1]))
