"""What an archive's images a second are, here and on clusters: python -m tests.bench.archive --engine FILE.

Draws an archive, then judges it by a pool of one process, of two, by Ray and by Dask with two workers each, in turn, as
`cflow judge` does, and prints the medians and how they stand to each other. "whole" is the command from its start to
its end, "pace" what it says of itself: without what it took to open engines and cluster. A figure needs a machine that
does nothing else, with as many cores as workers and one more for the cluster's own processes.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.common.argument_types import count
from runtime.common.errors import UserError, run_command
from runtime.common.text_table import align
from train.synthetic import write_dataset

WAYS = {
    "pool of 1": ["--workers", "1"],
    "pool of 2": ["--workers", "2"],
    "Ray, 2": ["--ray", "local", "--workers", "2"],
    "Dask, 2": ["--dask", "local", "--workers", "2"],
}
PARTS = 40  # of the archive: so many that the last ones, which not all workers have, count little
DRAWN = 24  # different pictures; the others are copies


def draw(folder: Path, images: int) -> Path:
    """Draw an archive of so many JPEGs of 256 x 256 and return it."""
    write_dataset(folder / "cables", train=DRAWN, test_good=0, per_defect=0)
    drawn = sorted((folder / "cables").rglob("good/*.png"))
    archive = folder / "archive"
    archive.mkdir()
    for number in range(images):
        path = archive / f"{number:06d}.jpg"
        if number < len(drawn):
            Image.open(drawn[number]).save(path, quality=95)
        else:
            shutil.copy(archive / f"{number % len(drawn):06d}.jpg", path)
    return archive


def judged(archive: Path, engine: Path, out: Path, words: Sequence[str]) -> tuple[float, float]:
    """Judge the archive once and return (images a second of the whole command, those that it says of itself)."""
    command = [sys.executable, "-m", "runtime.judge", str(archive), "--engine", str(engine), "--out", str(out), *words]
    command += ["--part-size", str(max(1, len(list(archive.iterdir())) // PARTS))]
    began_s = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - began_s
    found = re.search(r"(\d+) judged now in [\d.]+ s, ([\d.]+) a second", ended.stdout)
    if ended.returncode or not found:
        raise UserError("the archive must be judged", ended.stderr.strip().splitlines()[-1], "see above")
    shutil.rmtree(out)
    return int(found[1]) / seconds, float(found[2])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="an .onnx with its sidecar")
    parser.add_argument("--images", type=count, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        archive = draw(Path(folder), args.images)
        samples: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way, words in WAYS.items():
                samples[way].append(judged(archive, args.engine.resolve(), Path(folder) / "scores", words))
    medians = {way: np.median(found, axis=0) for way, found in samples.items()}
    rows = [["", "whole /s", "pace /s", "pace to 1", "pace to 2"]]
    for way, (whole, pace) in medians.items():
        ratios = [f"{pace / medians[other][1]:.2f}" for other in ("pool of 1", "pool of 2")]
        rows.append([way, f"{whole:.1f}", f"{pace:.1f}", *ratios])
    print(align(rows))


if __name__ == "__main__":
    sys.exit(run_command(main))
