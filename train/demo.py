"""The whole way once, on a machine without a GPU: `python -m train.demo --out demo`.

Draws a data set, trains a detector, fuses it and compiles it to FP16 and INT8 TensorRT engines, evaluates
every precision on defects that it never saw, judges some images, and measures latency. Every step is a
command that a user would type; each is printed before it runs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.common.errors import USAGE_STATUS, UserError, run_command
from runtime.common.program import program_name

REPOSITORY = Path(__file__).resolve().parents[1]
WANTED_AUROC = 0.95
ENCODER = "efficientnet_lite0"  # its ImageNet weights are installed with the demo: no model hub is asked
TAPS = {"efficientnet_lite0": "features3,features5"}  # without the finest, which takes most of the time
WEIGHTS = ("imagenet", "random")  # to try in turn
SCHEDULE = {"--schedule": "fast", "--meta-epochs": "3", "--batch": "8", "--held-out": "0.2"}  # a small set
IMAGES = {"--train": "120", "--test-good": "20", "--per-defect": "6"}
SHOWN_PER_CLASS = 2


@dataclass(frozen=True)
class Demo:
    """Where the demo works, and its encoder with the weights that it may use, the best first."""

    folder: Path
    encoder: str = ENCODER
    weights: tuple[str, ...] = WEIGHTS

    def run(self, module: str, *arguments: str | Path, may_fail: bool = False) -> bool:
        """Run `python -m module arguments` in the demo's folder, shown as a user would type it; False if it refused.

        Raises `UserError` if it refused and may not, and passes Ctrl-C on.
        """
        words = [str(argument) for argument in arguments]
        print(f"\n$ python -m {module} {' '.join(words)}", flush=True)
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, "PYTHONPATH": paths}
        started = time.perf_counter()
        ended = subprocess.run([sys.executable, "-m", module, *words], cwd=self.folder, env=environment, check=False)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
        if ended.returncode == 0:
            return True
        if may_fail and ended.returncode == USAGE_STATUS:
            return False
        raise UserError(f"{module} must end well", f"exit status {ended.returncode}", "its own message stands above")


def flat(options: Mapping[str, str]) -> list[str]:
    """Return options as the words of a command line."""
    return [word for option in options.items() for word in option]


def train(demo: Demo) -> str:
    """Train with the first weights that the machine can get, and return which they are."""
    for weights in demo.weights:
        arguments = ["--data", "data", "--encoder", demo.encoder, "--weights", weights, "--out", "cable.pt"]
        arguments += flat({"--taps": TAPS[demo.encoder]} if demo.encoder in TAPS else {})
        if demo.run("train.fit", *arguments, *flat(SCHEDULE), may_fail=weights != demo.weights[-1]):
            return weights
    raise AssertionError("the last weights may not fail")


def choose_shown(data: Path, frames: Path) -> None:
    """Copy a few test images of every class to one folder, each named after its class."""
    shutil.rmtree(frames, ignore_errors=True)
    frames.mkdir()
    for folder in sorted(path for path in (data / "test").iterdir() if path.is_dir()):
        for image in sorted(folder.iterdir())[:SHOWN_PER_CLASS]:
            shutil.copy(image, frames / f"{folder.name}_{image.name}")


def run_demo(demo: Demo) -> dict[str, dict[str, float]]:
    """Run every step and return the evaluation of each ONNX by file name."""
    folder = demo.folder
    folder.mkdir(parents=True, exist_ok=True)
    demo.run("train.synthetic", "--out", "data", *flat(IMAGES))
    weights = train(demo)
    demo.run("export.calibration_data", "--from", "data/train/good", "--count", "32")
    demo.run("export.build_engine", "cable.pt", "--fp16", "--backend", "tensorrt_rtx")
    demo.run("export.build_engine", "cable.pt", "--int8", "--out", "cable-int8.plan", "--backend", "tensorrt_rtx")
    models = ("cable.onnx", "cable.fp16.onnx", "cable-int8.int8.onnx")
    demo.run("train.evaluate", *models, "--data", "data", "--json", "evaluation.json", "--report", "report.html")
    choose_shown(folder / "data", folder / "frames")
    shutil.rmtree(folder / "judged", ignore_errors=True)
    demo.run("runtime.infer", "--engine", "cable.onnx", "--source", "frames", "--output", "judged", "--contact-sheet")
    demo.run("runtime.report", "cable.unfused.onnx", "cable.onnx", "--seconds", "20", "--output", "report")
    print(f"\nencoder weights: {weights}")
    evaluation: dict[str, dict[str, float]] = json.loads((folder / "evaluation.json").read_text())
    return evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo from the command line; exit status 1 if the detector does not separate its test images."""
    parser = argparse.ArgumentParser(prog=program_name("python -m train.demo"), description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="the folder to work in (default: demo)")
    parser.add_argument("--encoder", default=ENCODER, help=f"one of train.fit's (default: {ENCODER})")
    parser.add_argument(
        "--weights", action="append", help="encoder weights: imagenet, random or a file (repeat: in turn)"
    )
    options = parser.parse_args(argv)
    started = time.perf_counter()
    weights = tuple(str(Path(name).resolve()) if Path(name).exists() else name for name in options.weights or ())
    evaluation = run_demo(Demo(options.out, options.encoder, weights or WEIGHTS))
    print(f"TensorRT engines: {options.out / 'cable.plan'} (FP16), {options.out / 'cable-int8.plan'} (INT8)")
    pages = ("judged/contact_sheet.png", "report.cable.onnx.html", "report/report.md")
    print(f"look at: {', '.join(str(options.out / page) for page in pages)}")
    print(f"the demo took {time.perf_counter() - started:.0f} s")
    worst = min(min(figures["image_auroc"], figures["pixel_auroc"]) for figures in evaluation.values())
    print(f"lowest AUROC of any precision, image or pixel: {worst:.4f} (wanted: {WANTED_AUROC})")
    return 0 if worst >= WANTED_AUROC else 1


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
