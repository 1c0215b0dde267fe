"""Write a data set of synthetic cables in the layout of MVTec AD: python -m train.synthetic --out DIR.

    DIR/train/good/000.png              good cables to train on
    DIR/test/good/000.png               good cables to test on
    DIR/test/<defect>/000.png           defective cables
    DIR/ground_truth/<defect>/000_mask.png   255 where the defect is, 0 elsewhere
    DIR/synthetic.json                  how it was made, and every file that belongs to it

Every picture has a random stream of its own, named by seed, folder and number: other counts leave the
pictures that both sets share as they are, and no test picture shares a stream with a training one.
"""

import argparse
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from runtime.common.argument_types import output_folder
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_bytes, write_json
from runtime.common.program import program_name
from train.data.cable_renderer import render
from train.data.cable_scene import DEFECTS
from train.data.dataset import RECORD_NAME

SCHEMA = "cflow-edge/synthetic/1"
SMALLEST_SIZE = 32  # pixels; below this a strand is thinner than a pixel


@dataclass(frozen=True)
class SyntheticImage:
    """One picture of the set: `folder` as in "test/missing_core", its number there, its defect or None."""

    folder: str
    number: int
    defect: str | None

    @property
    def image_file(self) -> str:
        """The picture's path within the set."""
        return f"{self.folder}/{self.number:03d}.png"

    @property
    def mask_file(self) -> str:
        """The mask's path within the set; only a defective picture has one."""
        return f"ground_truth/{self.defect}/{self.number:03d}_mask.png"

    @property
    def files(self) -> tuple[str, ...]:
        """All files of this picture."""
        return (self.image_file, self.mask_file) if self.defect else (self.image_file,)

    def random_stream(self, seed: int) -> np.random.Generator:
        """Return a fresh generator that belongs to this picture alone."""
        return np.random.default_rng([seed, zlib.crc32(self.folder.encode()), self.number])


@dataclass(frozen=True)
class DatasetOptions:
    """How many pictures of each kind, their side in pixels, and the seed."""

    train: int = 60
    test_good: int = 20
    per_defect: int = 6
    size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `UserError` for a value that no data set can have."""
        for name in ("train", "test_good", "per_defect", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be 0 or more", str(getattr(self, name)), "give a larger number")
        if self.size < SMALLEST_SIZE:
            raise UserError(f"size must be {SMALLEST_SIZE} pixels or more", str(self.size), "give a larger number")

    def pictures(self) -> Iterator[SyntheticImage]:
        """Yield every picture of the set in the order in which they are written."""
        yield from (SyntheticImage("train/good", number, None) for number in range(self.train))
        yield from (SyntheticImage("test/good", number, None) for number in range(self.test_good))
        for defect in DEFECTS:
            yield from (SyntheticImage(f"test/{defect}", number, defect) for number in range(self.per_defect))


def write_dataset(
    root: Path, *, train: int = 60, test_good: int = 20, per_defect: int = 6, size: int = 256, seed: int = 0
) -> None:
    """Write a data set below `root`: the same arguments give the same bytes.

    An earlier set in `root` is replaced, and nothing else there is touched. Raises `UserError` for a
    negative count, a size below `SMALLEST_SIZE`, or a folder with other people's files.
    """
    options = DatasetOptions(train, test_good, per_defect, size, seed)
    pictures = list(options.pictures())
    earlier = _earlier_files(root)
    files = [file for picture in pictures for file in picture.files]
    # The record goes first and names the old files too: whatever stops this run, the next one knows what is ours.
    _write_record(root, options, sorted({*files, *earlier}))
    for file in sorted(earlier - set(files)):
        (root / file).unlink(missing_ok=True)
    for picture in tqdm(pictures, desc="synthetic cables", unit="image", disable=None):
        image, mask = render(picture.random_stream(seed), size, picture.defect)
        write_bytes(root / picture.image_file, _png(image))
        if picture.defect:
            write_bytes(root / picture.mask_file, _png(mask.astype(np.uint8) * 255))
    _write_record(root, options, files)


def _write_record(root: Path, options: DatasetOptions, files: list[str]) -> None:
    write_json(root / RECORD_NAME, {"schema": SCHEMA, "options": asdict(options), "files": files})


def _earlier_files(root: Path) -> set[str]:
    """Return the files of an earlier set in `root`. Raises `UserError` if `root` holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return set()
    record = _read_record(root / RECORD_NAME)
    if record is None:
        raise UserError(
            f"{root} must be a new or empty folder, or hold an earlier synthetic set",
            "other files" if root.is_dir() else "a file",
            "choose another --out",
        )
    return {str(file) for file in record["files"] if ".." not in Path(file).parts and not Path(file).is_absolute()}


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("schema") == SCHEMA and isinstance(record.get("files"), list)
    return record if is_ours else None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _parser() -> argparse.ArgumentParser:
    defaults = DatasetOptions()
    parser = argparse.ArgumentParser(
        prog=program_name("python -m train.synthetic"),
        description="Write a data set of synthetic cables, good and defective, in the layout of MVTec AD.",
    )
    parser.add_argument(
        "--out", type=output_folder, required=True, metavar="DIR", help="folder to write; new, empty or earlier"
    )
    parser.add_argument(
        "--train", type=int, default=defaults.train, metavar="N", help="good images to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--test-good",
        type=int,
        default=defaults.test_good,
        metavar="N",
        help="good images to test on (default: %(default)s)",
    )
    parser.add_argument(
        "--per-defect",
        type=int,
        default=defaults.per_defect,
        metavar="N",
        help=f"images of each of {len(DEFECTS)} defects (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=defaults.size,
        metavar="N",
        help="side of the images in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, metavar="N", help="another seed, another set (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Write the set that the arguments ask for and say where it is."""
    arguments = _parser().parse_args(argv)
    write_dataset(
        arguments.out,
        train=arguments.train,
        test_good=arguments.test_good,
        per_defect=arguments.per_defect,
        size=arguments.size,
        seed=arguments.seed,
    )
    print(f"wrote {arguments.out}")
    return None


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
