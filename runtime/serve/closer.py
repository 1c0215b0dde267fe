"""What the page shows of a large frame beside its reduced picture: the frame's own pixels at each box."""

from dataclasses import dataclass
from typing import Any

from runtime.images.crops import Crop, crops_around
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.images.regions import Region
from runtime.sinks.judgement import Judgement

QUALITY = 92  # of JPEG: a defect of a few pixels must not be smoothed away


@dataclass(frozen=True)
class Closer:
    """Crops of a frame of (height, width) `size` with their JPEGs, and the boxes that they show."""

    size: tuple[int, int] = (0, 0)
    crops: tuple[Crop, ...] = ()
    boxes: tuple[Region, ...] = ()
    jpegs: tuple[bytes, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its pictures."""
        return sum(map(len, self.jpegs))

    def fields(self) -> dict[str, Any]:
        """Return it for the page, as JSON has it: each crop with the boxes in it, all in pixels of the frame."""
        crops = [
            {**crop.fields(), "boxes": [box.fields() for box in self.boxes if crop.holds(box)]} for crop in self.crops
        ]
        return {"height": self.size[0], "width": self.size[1], "crops": crops}

    def jpeg(self, number: int) -> bytes:
        """Return the JPEG of a crop, from 1 up; empty where there is none."""
        return self.jpegs[number - 1] if 1 <= number <= len(self.jpegs) else b""


NOTHING_CLOSER = Closer()
MOST_BOXES = 50  # that the page is told of


def closer_to(judgement: Judgement) -> Closer:
    """Return the crops of a judgement; nothing is drawn on them, for that would hide a defect of a few pixels."""
    image = judgement.frame.image
    size = (image.shape[0], image.shape[1])
    crops = crops_around(judgement.boxes, size)
    jpegs = tuple(jpeg_of(crop.of(image), QUALITY) for crop in crops)
    return Closer(size, tuple(crops), judgement.boxes[:MOST_BOXES], jpegs)


def jpeg_of(picture: Image8, quality: int) -> bytes:
    """Return uint8 (H, W, 3) RGB as JPEG. Raises `ValueError` for a picture that is none."""
    cv2 = opencv()
    ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"no JPEG of a picture of shape {picture.shape}")
    return bytes(jpeg)
