"""Whether calibration images can say what a precision costs: images that repeat, or that are no good ones, cannot."""

import hashlib
from collections.abc import Callable

import numpy as np

from export.calibration_data import REFILL, CalibrationData
from export.graph.onnx_files import get_info
from export.images.parity_images import Images
from export.precisions.answers import Reference
from export.precisions.ranges import calibration_frames
from runtime.common.errors import UserError
from runtime.images.preprocess import ReadOptions

FEWEST_IMAGES = 4  # with fewer there is no spread to hold INT8's noise against
MOST_ANOMALOUS = 0.5  # of the images; beyond it they are of something else than the model was trained on

Say = Callable[[str], None]


def check_different(
    data: CalibrationData, size: tuple[int, int], read: ReadOptions, say: Callable[[str], None]
) -> None:
    """Raise `UserError` where fewer than `FEWEST_IMAGES` images differ in a pixel at `size`; say so where any repeat.

    Of a picture that is there 32 times every range is that one picture's, and its scores have no spread.
    """
    digests = {hashlib.sha256(frame.tobytes()).digest() for frame in calibration_frames(data, size, read)}
    different, count = len(digests), len(data.paths)
    if different < FEWEST_IMAGES:
        found = f"{different} among {count}, the others repeat"
        raise UserError(f"INT8 needs {FEWEST_IMAGES} or more different calibration images", found, REFILL)
    if different < count:
        say(f"note: {count - different} of {count} calibration images repeat others; {REFILL}")


def check_good(reference: Reference, images: Images, say: Say, *, refuse: bool) -> None:
    """Say how many of the `images`, taken for good, the FP32 model itself calls anomalous, where it does.

    With `refuse` raises `UserError` for more than `MOST_ANOMALOUS` of them.
    """
    threshold = get_info(reference.model, "the fused model").sidecar.threshold.value
    count = len(images)
    anomalous = int(np.count_nonzero(reference.answers(images).scores.astype(np.float64) > threshold))
    if refuse and anomalous > MOST_ANOMALOUS * count:
        raise UserError(
            "calibration images must be good ones of the kind that the model was trained on",
            f"{anomalous} of {count} that the FP32 model itself calls anomalous",
            f"{REFILL}, or --allow-anomalous-calibration if the threshold is what is wrong",
        )
    if anomalous:
        say(f"note: the FP32 model itself calls {anomalous} of {count} calibration images anomalous")
