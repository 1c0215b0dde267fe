"""What pictures are like as pictures: bright, rich in contrast, sharp, wide. One unlike all of training says nothing.

A detector knows what good parts look like, not what a camera does: black, saturated or defocused frames are scored as
any other. So training measures these numbers on its good images, the sidecar keeps their ranges, and a frame far
outside of one has no verdict. "Far" is `WIDTHS` widths of the range beyond it, more where few images told the range,
and never less than `MARGINS`: light that drifts a little, or a large defect, must still be judged.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from runtime.images.encoding import Encoding
from runtime.images.opencv import opencv
from runtime.images.pixels import Image8, every_nth

SIDE = 256  # pixels of the longer side of what is measured: every n-th pixel, no filter
SMALLEST = 16  # pixels of a frame's shorter side; a smaller one is no picture of a part
FLAT = 1.0  # grey levels: a frame whose contrast is below that shows nothing
WIDTHS = 2.0
FEW = 10  # images: with so many, the distance is twice that with many
# the least distance from training's range that counts as far, in the units of `measure`
MARGINS = {"aspect": 0.1, "brightness": 30.0, "clipped": 0.25, "contrast": 15.0, "sharpness": 1.0}


class Encodings(NamedTuple):
    """That so many `images` were encoded so."""

    encoding: Encoding
    images: int


@dataclass(frozen=True)
class ImageFacts:
    """The (lowest, highest) of good images' numbers, by the names of `MARGINS`, over `count` images.

    `encodings` says how they came, and how many of them in each way; empty where nobody looked.
    """

    count: int
    ranges: Mapping[str, tuple[float, float]]
    encodings: tuple[Encodings, ...] = ()

    @classmethod
    def of(cls, images: Iterable[Image8], encodings: Iterable[Encoding | None] = ()) -> "ImageFacts":
        """Measure uint8 (H, W, 3) RGB images that were encoded so. Raises `ValueError` for no image."""
        rows = [measure(image) for image in images]
        if not rows:
            raise ValueError("facts need at least one image")
        names = {name: [row[name] for row in rows] for name in MARGINS}
        ranges = {name: (min(values), max(values)) for name, values in names.items()}
        known = Counter(encoding for encoding in encodings if encoding is not None)
        return cls(len(rows), ranges, tuple(Encodings(*each) for each in known.most_common()))

    @classmethod
    def from_json(cls, value: Any) -> "ImageFacts":
        """Rebuild them. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        ranges = {}
        for name in MARGINS:
            low, high = (float(bound) for bound in value["ranges"][name])
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{name} must be two ascending numbers, not {value['ranges'][name]}")
            ranges[name] = (low, high)
        count = int(value["count"])
        if count < 1:
            raise ValueError(f"count must be 1 or more, not {count}")
        return cls(count, ranges, tuple(_encodings(each) for each in value.get("encodings", ())))

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        encodings = [{**encoding.to_json(), "images": images} for encoding, images in self.encodings]
        return {"count": self.count, "ranges": dict(self.ranges), "encodings": encodings}

    def differs(self, encoding: Encoding) -> str:
        """Say how the training images came, if `encoding` was not among them; empty where it was or none is known."""
        if not self.encodings or any(encoding.same_pixels(each.encoding) for each in self.encodings):
            return ""
        return ", ".join(f"{each.encoding.describe()} ({each.images} images)" for each in self.encodings)

    def far(self, numbers: Mapping[str, float]) -> str:
        """Say how the image of `numbers` (see `measure`) is unlike all that were measured; empty where it is not."""
        widths = WIDTHS * (1 + FEW / self.count)
        for name, value in numbers.items():
            low, high = self.ranges[name]
            margin = max(widths * (high - low), MARGINS[name])
            if not low - margin <= value <= high + margin:
                return f"the frame's {name} is {value:.4g}, in training it was {low:.4g} to {high:.4g}"
        return ""


def _encodings(value: Any) -> Encodings:
    """Rebuild one of `to_json`. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
    fields = dict(value)
    count = fields.pop("images")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"images must be 1 or more, not {count!r}")
    return Encodings(Encoding.from_json(fields), count)


def measure(image: Image8) -> dict[str, float]:
    """Return the numbers of one uint8 (H, W, 3) RGB image.

    "brightness" and "contrast" are mean and standard deviation of grey in 0..255, "sharpness" is the natural logarithm
    of the grey's mean absolute Laplacian over its contrast, "clipped" the share of pixels within a grey level of black
    or white, "aspect" the logarithm of width over height.
    """
    height, width = image.shape[:2]
    cv2 = opencv()
    grey = cv2.cvtColor(np.ascontiguousarray(every_nth(image, SIDE)), cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    edges = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L1) / grey.size
    clipped = grey.size - cv2.countNonZero(cv2.inRange(grey, 2, 253))
    sharpness = math.log((edges + 0.1) / (deviation + 1.0))  # the addends keep a flat picture finite
    return {
        "aspect": math.log(width / height),
        "brightness": mean,
        "clipped": clipped / grey.size,
        "contrast": deviation,
        "sharpness": sharpness,
    }


def unfit(image: Image8, facts: ImageFacts) -> str:
    """Say why a frame (H, W, 3) shows nothing that can be judged; empty where it does."""
    numbers = measure(image)
    return blank(image, numbers) or facts.far(numbers)


def blank(image: Image8, numbers: Mapping[str, float]) -> str:
    """Say why a frame (H, W, 3) of `numbers` (see `measure`) is no picture of anything; empty where it is one."""
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        return f"the frame is {width}x{height} pixels, each side must be {SMALLEST} or more"
    if numbers["contrast"] < FLAT:
        return f"the frame is one grey all over ({numbers['brightness']:.0f} of 255)"
    return ""
