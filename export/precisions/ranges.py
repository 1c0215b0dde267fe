"""INT8 ranges of activations, measured by ONNX Runtime's calibrators on the CPU."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from tqdm import tqdm

from export.calibration_data import CalibrationData
from export.images.tile_images import Feed, feeds_of
from runtime.common.errors import UserError
from runtime.images.preprocess import PLAIN, ReadOptions, read_image, resize
from runtime.images.tiles import TileGrid

Range = tuple[float, float]
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


def calibration_frames(
    data: CalibrationData, size: tuple[int, int], read: ReadOptions = PLAIN
) -> Iterator[NDArray[np.uint8]]:
    """Yield each image at `size` (height, width) as a batch of one, (1, H, W, 3)."""
    for path in data.paths:
        yield resize(read_image(path, read), size)[None]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: Feed) -> None:
        self._feeds = iter([inputs])

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def collect_ranges(
    model: onnx.ModelProto,
    data: CalibrationData,
    size: tuple[int, int],
    op_types: Sequence[str],
    method: str,
    read: ReadOptions = PLAIN,
    tiles: TileGrid | None = None,
) -> dict[str, Range]:
    """Return (lowest, highest) of every tensor that a node of `op_types` reads or writes.

    With `tiles` the graph judges tiles, and some of each frame of `size` are what it is given. `method` is a key of
    `METHODS`. Raises `UserError` if a range is not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(str(path), list(op_types), augmented, METHODS[method])
        frames = tqdm(
            calibration_frames(data, size, read), total=len(data.paths), desc="calibrating", unit="img", disable=None
        )
        for number, frame in enumerate(frames):
            for inputs in feeds_of(frame[0], tiles, number):  # one by one: the calibrator keeps what a call produces
                calibrator.collect_data(_Reader(inputs))
        measured = calibrator.compute_data()
    ranges = {
        name: (float(np.min(value.range_value[0])), float(np.max(value.range_value[1])))
        for name, value in measured.items()
    }
    for name, limits in ranges.items():
        if not np.isfinite(limits).all():
            raise UserError("calibration ranges must be finite", f"{name}: {limits}", "look at the calibration images")
    return ranges
