"""Pieces of a large frame around its boxes, at the frame's own resolution: what a reduced picture does not show."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.images.pixels import Image8
from runtime.images.regions import Region

MARGIN = 64  # pixels around a box: what is beside a defect says what it is on
LEAST, MOST = 256, 1024  # pixels of a crop's side
MOST_CROPS = 12  # of a frame: the boxes with the highest peaks


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Image8) -> Image8:
        """Return its pixels of `image` (H, W, 3), as a view."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def holds(self, box: Region) -> bool:
        """Whether all of `box` lies in it."""
        inside = self.x <= box.x and self.y <= box.y
        return inside and box.x + box.width <= self.x + self.width and box.y + box.height <= self.y + self.height

    def fields(self) -> dict[str, int]:
        """Return it by its names."""
        return dict(vars(self))


def crops_around(boxes: Sequence[Region], size: tuple[int, int]) -> list[Crop]:
    """Return crops of a frame of `size` (height, width) that show `boxes`, which come with the highest peak first.

    A box that an earlier crop shows has none of its own. Of a box larger than a crop may be its middle is shown.
    """
    crops: list[Crop] = []
    for box in boxes:
        if len(crops) == MOST_CROPS:
            break
        if not any(crop.holds(box) for crop in crops):
            x, width = _side(box.x, box.width, size[1])
            y, height = _side(box.y, box.height, size[0])
            crops.append(Crop(x, y, width, height))
    return crops


def _side(start: int, length: int, pixels: int) -> tuple[int, int]:
    """Return start and length of a crop along an axis of so many `pixels`."""
    wanted = min(max(length + 2 * MARGIN, LEAST), MOST, pixels)
    middle = start + length // 2
    return min(max(0, middle - wanted // 2), pixels - wanted), wanted
