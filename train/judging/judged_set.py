"""What a detector says of a labelled set, kept together: maps, image scores and ground truth in one order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import runtime
from export.images.labelled import read_masks
from runtime.common.notices import say_once
from runtime.common.side_by_side import one_ahead
from runtime.images.facts import unfit
from runtime.images.preprocess import PLAIN, ReadOptions, read_image
from train.data.open import LabelledImage
from train.judging.binned import BinnedCurves
from train.judging.curve_points import PixelCurves
from train.judging.curves import pixel_curves
from train.judging.kept_maps import KeptMaps, KeptMasks


@dataclass(frozen=True, eq=False)
class JudgedSet:
    """A labelled set as one detector sees it; all four have one entry per image, in the same order.

    `maps` (N, H, W) and `masks` (H, W) are at the size that the detector judges; a mask is None where an
    anomalous image has no ground truth. `read` is how the images were read. `reasons` say why an image would have no
    verdict on the line, empty where it would.
    """

    images: Sequence[LabelledImage]
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: Sequence[NDArray[np.bool_] | None]
    read: ReadOptions = PLAIN
    reasons: Sequence[str] = ()

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
        if any(mask is None for mask in self.masks):
            return None
        curves = pixel_curves(self.maps, self.masks)
        if isinstance(curves, BinnedCurves):
            pixels = curves.normal + curves.anomalous
            say_once(f"{pixels:,} pixels: figures by pixel are counted in steps of {curves.step:.2g} of a score")
        return curves


def judge(path: Path, images: Sequence[LabelledImage]) -> JudgedSet:
    """Judge `images` with the `.pt`, `.onnx` or `.plan` at `path`; the latter two run through `runtime`.

    Says which of them would have no verdict on the line: their scores count here all the same.
    """
    maps, scores, read, reasons = (_judge_checkpoint if path.suffix == ".pt" else _judge_engine)(path, images)
    if unjudged := [(image.path, reason) for image, reason in zip(images, reasons, strict=True) if reason]:
        file, reason = unjudged[0]
        say_once(f"{len(unjudged)} of {len(images)} images would have no verdict on the line: {file} ({reason}), ...")
    size = (maps.shape[1], maps.shape[2])
    keep = KeptMasks(sum(image.anomalous for image in images), size, on_disk=isinstance(maps, np.memmap))
    return JudgedSet(images, maps, scores, read_masks(images, size, keep), read, reasons)


Judgement = tuple[NDArray[np.float32], NDArray[np.float32], ReadOptions, list[str]]


def _judge_checkpoint(path: Path, images: Sequence[LabelledImage]) -> Judgement:
    import torch  # here: an engine is judged without it, and it takes seconds

    from export.model.checkpoint import load_checkpoint
    from train.data.frame_tiles import open_inputs
    from train.judging.scores import score_images

    checkpoint = load_checkpoint(path)
    config = checkpoint.model.config
    read, facts, reasons = ReadOptions(config.white), checkpoint.image_facts, [""] * len(images)

    def look(index: int, frame: NDArray[np.uint8]) -> None:
        reasons[index] = "" if facts is None else unfit(frame, facts)

    cache = open_inputs(config, [each.path for each in images], read, limit_bytes=0)
    cache.look = look
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return *score_images(checkpoint.model.to(device), cache, checkpoint.constants, device), read, reasons


def _judge_engine(path: Path, images: Sequence[LabelledImage]) -> Judgement:
    with runtime.load(path) as detector:
        read = ReadOptions(detector.sidecar.white)
        frames = one_ahead(read_image(image.path, read) for image in images)
        kept = KeptMaps(len(images), detector.sidecar.input_size)
        results = [
            (kept.take(result.anomaly_map, result.image_score), result.reason)
            for result in map(detector, tqdm(frames, total=len(images), unit="img", disable=None))
        ]
    scores = np.array([score for score, _ in results], dtype=np.float32)
    return kept.maps, scores, read, [reason for _, reason in results]
