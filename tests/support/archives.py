"""Archives of drawn pictures, and what a plain `runtime.load` says of each: the reference of `cflow judge`."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import runtime
from runtime.archive.run import Run
from runtime.archive.setup import Setup
from runtime.images.preprocess import read_image
from tests.support.marked_log import png

BAD = b"this is no picture"


def picture(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Return noise around a grey level of its own."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.integers(0, 40, (*size, 3)) + rng.integers(0, 200), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, names: str = "{:03d}.png") -> Path:
    """Write so many pictures, every third one into a folder below, and return the folder."""
    for number in range(count):
        path = folder / ("below" if number % 3 == 0 else ".") / names.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def webdataset(path: Path, numbers: range) -> Path:
    """Write a tar as the webdataset format has it: a picture and its label under one name."""
    members: dict[str, bytes] = {}
    for number in numbers:
        members[f"{number:06d}.png"] = png(picture(number))
        members[f"{number:06d}.cls"] = b"0"
    return write_tar(path, members)


def setup_of(archive: Path | str, engine: Path, **more: Any) -> Setup:
    """Return how the archive is judged, with ONNX Runtime."""
    return Setup(str(archive), engine, backend="onnxruntime", **more)


def run_of(archive: Path | str, engine: Path, out: Path, **more: Any) -> Run:
    """Return a run of two workers in small parts."""
    return Run(setup_of(archive, engine), out, **{"workers": 2, "part_size": 4, **more})


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a file by their image's name."""
    rows = pq.read_table(file).to_pylist()
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def reference(engine: Path, folder: Path, **options: Any) -> dict[str, tuple[float, str]]:
    """Return (score, verdict) of each picture in a folder, as `runtime.load` gives them."""
    with runtime.load(engine, threads=1, backend="onnxruntime", **options) as detector:
        found = {}
        for path in sorted(folder.rglob("*.png")):
            result = detector(read_image(path))
            found[path.relative_to(folder).as_posix()] = (result.image_score, result.verdict)
    return found
