"""Small defects in large frames: python -m tests.bench.tiles --data DIR --weights FILE.

DIR is an MVTec-style set of small images (the screws), which are placed side by side. Three detectors of one kind are
trained and judged: one of whole frames that are reduced to a tile's pixels, one of tiles, and one of the single parts,
which has them as they would come from a camera each. What a step used of memory is its process's largest resident size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError, run_command
from runtime.common.text_table import align
from tests.support.large_frames import Layout, write_frames

COLUMNS = ("image_auroc", "pixel_auroc", "aupro", "aupro_5")
MODEL = ["--encoder", "resnet18", "--taps", "layer1,layer2,layer3", "--schedule", "fast", "--accept-poor"]


def run(module: str, *arguments: object) -> tuple[float, float]:
    """Run a module; return its seconds and its largest resident size in MB. Raises `UserError` where it fails."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise UserError(f"{' '.join(command)} must end well", f"exit status {code}", "see above")
    return time.monotonic() - started, usage.ru_maxrss / 1e3


def measure(name: str, data: Path, out: Path, options: Sequence[object]) -> list[str]:
    """Train a detector with `options` on `data`, judge its test images, and return the table's row."""
    checkpoint, figures = out / f"{name}.pt", out / f"{name}.json"
    trained = run("train.fit", "--data", data, "--out", checkpoint, *MODEL, *options)
    judged = run("train.evaluate", checkpoint, "--data", data, "--json", figures)
    found: dict[str, Any] = json.loads(figures.read_text())[str(checkpoint)]
    areas = [f"{100 * found[column]:.2f}" for column in COLUMNS]
    return [name, *areas, f"{trained[0]:.0f}", f"{trained[1]:.0f}", f"{judged[0]:.0f}", f"{judged[1]:.0f}"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tiles", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--weights", required=True, help="of the encoder, as train.fit takes them")
    parser.add_argument("--cells", type=int, nargs=3, default=(3, 4, 512), metavar=("ROWS", "COLUMNS", "SIDE"))
    parser.add_argument("--frames", type=int, nargs=3, default=(16, 12, 16), metavar=("TRAIN", "GOOD", "BAD"))
    parser.add_argument("--tile", type=int, default=512, help="a tile's side (default: %(default)s)")
    parser.add_argument("--overlap", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--passes", type=int, default=6, help="over the images (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="reduced, tiles, parts (default: all)")
    options = parser.parse_args(argv)
    layout = Layout(*options.cells, *options.frames)
    shared = ["--weights", options.weights, "--meta-epochs", options.passes]
    with tempfile.TemporaryDirectory() as folder:
        frames, parts = Path(folder, "frames"), Path(folder, "parts")
        write_frames(options.data, frames, parts, layout)
        kinds = {
            "reduced": (frames, ["--size", f"auto:{options.tile}"]),
            "tiles": (frames, ["--tiles", options.tile, "--overlap", options.overlap]),
            "parts": (parts, ["--size", layout.side]),
        }
        heads = ["", "image AUROC %", "pixel AUROC %", "AUPRO %", "AUPRO-5 %", "fit s", "fit MB", "judge s", "judge MB"]
        rows = [
            measure(name, data, Path(folder), [*shared, *more])
            for name, (data, more) in kinds.items()
            if not options.only or name in options.only
        ]
    print(f"frames of {layout.rows}x{layout.columns} cells of {layout.side} pixels")
    print(align([heads, *rows]))


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
