"""AUROC of a checkpoint, ONNX or plan on an MVTec-style test set: `python -m train.evaluate cable.onnx --data DIR`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import runtime
from export.model.checkpoint import load_checkpoint
from runtime.errors import UserError, run_command
from runtime.files import write_json
from train.data import ImageCache, LabelledImage, open_dataset, read_mask
from train.metrics import Evaluation, evaluate_maps
from train.score import anomaly_maps


def _checkpoint_maps(path: Path, test: Sequence[LabelledImage]) -> NDArray[np.float32]:
    checkpoint = load_checkpoint(path)
    images = ImageCache([image.path for image in test], checkpoint.model.config.input_size, limit_bytes=0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return anomaly_maps(checkpoint.model.to(device), images, checkpoint.maxima, device)


def _engine_maps(path: Path, test: Sequence[LabelledImage]) -> NDArray[np.float32]:
    with runtime.load(path) as detector:
        images = ImageCache([image.path for image in test], detector.metadata.input_size, limit_bytes=0)
        frames = (images.image(index) for index in range(len(images)))
        return np.stack(
            [detector(frame).anomaly_map for frame in tqdm(frames, total=len(images), unit="img", disable=None)]
        )


def evaluate(path: Path, data: Path) -> Evaluation:
    """Judge the test images of `data` with the `.pt`, `.onnx` or `.plan` at `path`.

    Raises `UserError` where there are no test images or only one class of them.
    """
    test = open_dataset(data).test
    if not test:
        raise UserError(f"{data} must hold labelled images in test/good and test/<defect>", "none")
    maps = _checkpoint_maps(path, test) if path.suffix == ".pt" else _engine_maps(path, test)
    size = (maps.shape[1], maps.shape[2])
    return evaluate_maps(maps, [image.anomalous for image in test], [read_mask(image, size) for image in test])


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".pt, .onnx or .plan")
    parser.add_argument("--data", type=Path, required=True, help="MVTec-style folder with test/ and ground_truth/")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(argv)
    results = {}
    for path in options.models:
        result = evaluate(path, options.data)
        results[str(path)] = asdict(result)
        pixel = "no masks" if result.pixel_auroc is None else f"{result.pixel_auroc:.4f}"
        print(
            f"{path}: image AUROC {result.image_auroc:.4f}, pixel AUROC {pixel} "
            f"({result.anomalous} anomalous of {result.images} images)"
        )
    if options.json:
        write_json(options.json, results)


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
