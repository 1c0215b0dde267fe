"""AUROC of a checkpoint, ONNX or plan on an MVTec-style test set: `python -m train.evaluate cable.onnx --data DIR`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runtime.errors import UserError, run_command
from runtime.files import write_json
from train.data import open_dataset
from train.judged import judge
from train.metrics import Evaluation, evaluate_maps


def evaluate(path: Path, data: Path) -> Evaluation:
    """Judge the test images of `data` with the `.pt`, `.onnx` or `.plan` at `path`.

    Raises `UserError` where there are no test images or only one class of them.
    """
    test = open_dataset(data).test
    if not test:
        raise UserError(f"{data} must hold labelled images in test/good and test/<defect>", "none")
    judged = judge(path, test)
    return evaluate_maps(judged.maps, judged.anomalous.tolist(), judged.masks)


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
