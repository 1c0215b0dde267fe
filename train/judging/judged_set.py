"""What a detector says of a labelled set, kept together: maps, image scores and ground truth in one order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import runtime
from export.images.labelled import read_masks
from export.model.checkpoint import load_checkpoint
from runtime.images.preprocess import PLAIN, ReadOptions, read_image
from train.data.open import ImageCache, LabelledImage
from train.judging.curves import PixelCurves, pixel_curves
from train.judging.scores import score_images


@dataclass(frozen=True, eq=False)
class JudgedSet:
    """A labelled set as one detector sees it; all four have one entry per image, in the same order.

    `maps` (N, H, W) and `masks` (H, W) are at the detector's input size; a mask is None where an
    anomalous image has no ground truth. `read` is how the images were read.
    """

    images: Sequence[LabelledImage]
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: Sequence[NDArray[np.bool_] | None]
    read: ReadOptions = PLAIN

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which images show a defect, (N,)."""
        return np.array([image.anomalous for image in self.images], dtype=bool)

    @cached_property
    def curves(self) -> PixelCurves | None:
        """The curves by pixel, computed once; None where an anomalous image has no mask.

        Figures over those that have one would be of another set than the images' figures beside them, and a mask
        that is not found for its name or its folder would move them without a word.
        """
        missing = any(mask is None for mask in self.masks)
        return None if missing else pixel_curves(self.maps, self.masks)


def judge(path: Path, images: Sequence[LabelledImage]) -> JudgedSet:
    """Judge `images` with the `.pt`, `.onnx` or `.plan` at `path`; the latter two run through `runtime`."""
    maps, scores, read = _judge_checkpoint(path, images) if path.suffix == ".pt" else _judge_engine(path, images)
    return JudgedSet(images, maps, scores, read_masks(images, (maps.shape[1], maps.shape[2])), read)


Judgement = tuple[NDArray[np.float32], NDArray[np.float32], ReadOptions]


def _judge_checkpoint(path: Path, images: Sequence[LabelledImage]) -> Judgement:
    checkpoint = load_checkpoint(path)
    config = checkpoint.model.config
    read = ReadOptions(config.white)
    cache = ImageCache([image.path for image in images], config.input_size, limit_bytes=0, read=read)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return *score_images(checkpoint.model.to(device), cache, checkpoint.constants, device), read


def _judge_engine(path: Path, images: Sequence[LabelledImage]) -> Judgement:
    with runtime.load(path) as detector:
        read = ReadOptions(detector.sidecar.white)
        results = [detector(read_image(image.path, read)) for image in tqdm(images, unit="img", disable=None)]
    maps = np.stack([r.anomaly_map for r in results])
    return maps, np.array([r.image_score for r in results], dtype=np.float32), read
