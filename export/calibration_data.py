"""The images that INT8 ranges are measured on: read a set with its hashes checked, or fill one anew.

    python -m export.calibration_data --from DIR|FILE|VIDEO [--count 64] [--out calibration_data]
    python -m export.calibration_data --camera 0 [--count 64]

A set is a folder of good images with a `manifest.json` that lists every one by its SHA-256. The hash of the
set goes into the engine's sidecar, so that ranges can be traced to the pictures they came from.
"""

import argparse
import hashlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from export.images.pairs import check_no_masks_among
from runtime.common.argument_types import camera
from runtime.common.errors import UserError, run_command
from runtime.common.files import printable, read_json, sha256_of, sweep, sync_folder, write_json
from runtime.common.locks import one_writer
from runtime.common.notices import say_once
from runtime.common.program import program_name
from runtime.engines import fields
from runtime.engines.fields import WrongField, items, one_of, record, shown, text
from runtime.images.folders import describe_ignored, describe_use, evenly_spread, list_images
from runtime.images.preprocess import read_image
from runtime.sources.frame import Frame
from runtime.sources.open import LIVE, SourceKind, SourceSpec, open_source

SCHEMA = "cflow-edge/calibration/1"
MANIFEST_NAME = "manifest.json"
LARGEST_MANIFEST = 64 << 20  # bytes
STAGING = ".refill-"  # of hidden folders, where new images are until all are there
ENOUGH_IMAGES = 32  # with fewer, ranges miss what good images can still show, and clip it
DEFAULT_FOLDER = Path("calibration_data")
GENERATED = "train.synthetic"  # how the origin of generated images begins
REFILL = "refill it: python -m export.calibration_data --from DIR"


@dataclass(frozen=True)
class CalibrationData:
    """A checked set: its images, the hash of the whole set, and where it came from in words.

    `sha256` is that of the images' own SHA-256 hex digits, sorted and joined by newlines: neither
    order nor names count.
    """

    paths: tuple[Path, ...]
    sha256: str
    origin: str

    def stands_in_for(self, data_origin: str) -> bool:
        """Whether these are the generated images, and a model trained on `data_origin` knows others.

        They say nothing of such a model's scores.
        """
        return self.origin.startswith(GENERATED) and not data_origin.startswith(GENERATED)


@dataclass(frozen=True)
class RefillOptions:
    """What to fill a set with: up to `count` images of `source`, a live one's `every_s` seconds apart."""

    source: SourceSpec
    origin: str
    count: int = 64
    every_s: float = 1.0
    out: Path = DEFAULT_FOLDER

    def __post_init__(self) -> None:
        """Raise `UserError` for numbers that make no set."""
        if self.count < 1:
            raise UserError("count must be 1 or more", str(self.count), f"{ENOUGH_IMAGES} to 512 is sensible")
        if not 0 <= self.every_s < float("inf"):
            raise UserError("every must be 0 seconds or more", str(self.every_s))
        if self.source.kind is SourceKind.WATCH:
            raise UserError("calibration images come from what is there", "a folder to watch", "give the folder itself")


def read_calibration_data(folder: Path) -> CalibrationData:
    """Read the set in `folder`; without a manifest, all images directly in it are the set.

    Raises `UserError` for a missing or empty folder, and for a manifest that is broken, lists a file
    that is missing or changed, or leaves out an image that is there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} must be a folder of calibration images", "no folder", REFILL)
    if (folder / MANIFEST_NAME).exists():
        manifest = _read_manifest(folder)
        _check_files(folder, manifest)
        origin, digests = manifest.origin, manifest.digests
    else:
        origin = printable(folder.resolve().name)
        paths = list_images(folder)
        _say_use(folder, paths)
        digests = {path.name: sha256_of(path) for path in paths}
    if not digests:
        raise UserError(f"{folder} must hold calibration images", "none", REFILL)
    return CalibrationData(tuple(folder / name for name in digests), _hash_of_set(digests.values()), origin)


def _say_use(folder: Path, paths: Sequence[Path]) -> None:
    """Say which images of `folder` are used. Raises `UserError` for masks among them, or none."""
    if not paths:
        raise UserError(f"{folder} must hold calibration images", describe_ignored(folder) or "none", REFILL)
    check_no_masks_among(paths)
    say_once(describe_use(paths))


def _hash_of_set(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says: the set's origin, its files by name with their hashes, and `passing` names.

    Those are of images that are on their way in or out, while one set takes the place of another.
    """

    origin: str
    digests: dict[str, str]
    passing: frozenset[str] = frozenset()

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`."""
        images = [{"file": name, "sha256": digest} for name, digest in self.digests.items()]
        value = {"schema": SCHEMA, "origin": self.origin, "images": images}
        value |= {"passing": sorted(self.passing)} if self.passing else {}
        _said(folder / MANIFEST_NAME, value)  # what cannot be read again must not take the place of what can
        write_json(folder / MANIFEST_NAME, value)


def _read_manifest(folder: Path) -> Manifest:
    """Read the manifest of `folder`. Raises `UserError` for anything but one."""
    path = folder / MANIFEST_NAME
    said = _said(path, read_json(path, LARGEST_MANIFEST, REFILL))
    digests = {image["file"]: image["sha256"] for image in said["images"]}
    return Manifest(said["origin"], digests, frozenset(said.get("passing", ())))


def _said(path: Path, value: Any) -> dict[str, Any]:
    try:
        said: dict[str, Any] = _manifest(value)
    except WrongField as wrong:
        raise UserError(f"{path}: {wrong.path or 'it'} must be {wrong.expected}", shown(wrong.value), REFILL) from None
    return said


def _file_name(value: Any) -> str:
    if Path(text(value)).name != value or value == MANIFEST_NAME:
        raise WrongField("the name of a file beside it", value)
    return str(value)


_image = record({"file": _file_name, "sha256": fields.digest}, {"file", "sha256"})
_manifest = record(
    {
        "schema": one_of(SCHEMA),
        "origin": text,
        "images": items(_image, 0, 10**6),
        "passing": items(_file_name, 0, 10**6),
    },
    {"schema", "origin", "images"},
)


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.digests.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} must exist, for {MANIFEST_NAME} lists it", "no such file", REFILL)
        if (found := sha256_of(path)) != digest:
            raise UserError(f"{path} must have sha256 {digest[:12]} as in {MANIFEST_NAME}", found[:12], REFILL)
    known = manifest.digests.keys() | manifest.passing
    if unlisted := [path.name for path in list_images(folder) if path.name not in known]:
        raise UserError(
            f"every image in {folder} must be listed in {MANIFEST_NAME}", unlisted[0], f"remove it, or {REFILL}"
        )


def refill(options: RefillOptions) -> CalibrationData:
    """Fill `options.out` with new images and a new manifest; return the set.

    Images of a folder are copied as they are, frames are written as PNG; one whose name another image of the earlier
    set has is given a longer one. At whatever moment this ends, by a failure or kill -9, the folder is the earlier set
    or the new one; files that no manifest lists are never removed. Raises `UserError` if the source gives no image, if
    `out` holds images that are not an earlier set's, or if another process fills it.
    """
    out = options.out
    with one_writer(out, f"calibration set {out}", "wait for it to end, or name another with --out"):
        earlier = _earlier_set(options)
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob(f"{STAGING}*"):  # of a process that was killed: one that lives would have the lock
            shutil.rmtree(leftover, ignore_errors=True)
        sweep(out)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=out) as name:
            staging = Path(name)
            _stage_images(options, staging)
            staged = list_images(staging)
            if not staged:
                raise UserError(f"{options.source.name} must give images", "none", "check the source")
            _swap(out, earlier, staged, options.origin)
    return read_calibration_data(out)


def _swap(out: Path, earlier: Manifest, staged: Sequence[Path], origin: str) -> None:
    """Let `staged` images take the place of those of `earlier`: the manifest says at every step which are the set."""
    digests = {path: sha256_of(path) for path in staged}
    places = {path: out / _free_name(path.name, digest, earlier) for path, digest in digests.items()}
    names = frozenset(place.name for place in places.values())
    Manifest(earlier.origin, earlier.digests, earlier.passing | (names - earlier.digests.keys())).write(out)
    for path, place in places.items():
        path.replace(place)
    sync_folder(out)
    gone = (earlier.digests.keys() | earlier.passing) - names
    new = Manifest(origin, {place.name: digests[path] for path, place in places.items()}, frozenset(gone))
    new.write(out)
    for old in gone:
        (out / old).unlink(missing_ok=True)
    replace(new, passing=frozenset()).write(out)


def _free_name(name: str, digest: str, earlier: Manifest) -> str:
    """Return `name`, made longer where another image of the earlier set has it."""
    if earlier.digests.get(name, digest) == digest:
        return name
    path = Path(name)
    return f"{path.stem}-{digest[:12]}{path.suffix}"


def _earlier_set(options: RefillOptions) -> Manifest:
    """Return the set that the new one replaces. Raises `UserError` if `out` holds other images, or is the source."""
    out = options.out
    if options.source.kind is SourceKind.FOLDER and out.resolve() == Path(options.source.target).resolve():
        raise UserError("--from and --out must be two folders", str(out), "keep your originals elsewhere")
    manifest = _read_manifest(out) if (out / MANIFEST_NAME).exists() else Manifest(options.origin, {})
    known = manifest.digests.keys() | manifest.passing
    images = list_images(out) if out.exists() else []
    if foreign := [path.name for path in images if path.name not in known]:
        raise UserError(f"{out} must hold no images but an earlier set's", foreign[0], "choose another --out")
    return manifest


def _stage_images(options: RefillOptions, staging: Path) -> None:
    source, count = options.source, options.count
    if source.kind in (SourceKind.FOLDER, SourceKind.IMAGE):
        target = Path(source.target)
        paths = list_images(target) if target.is_dir() else [target]
        chosen = [paths[i] for i in evenly_spread(len(paths), count)]
        if target.is_dir() and chosen:
            _say_use(target, chosen)
        for path in chosen:
            read_image(path)  # a damaged file is to be named now, not while ranges are measured
            shutil.copyfile(path, staging / printable(path.name))
        return
    for frame in tqdm(_frames(options), desc="calibration images", total=count, unit="image", disable=None):
        Image.fromarray(frame.image).save(staging / f"{printable(frame.name)}.png")


def _frames(options: RefillOptions) -> Iterator[Frame]:
    if options.source.kind in LIVE:
        with open_source(options.source) as live:
            yield from itertools.islice(_spaced(live, options.every_s), options.count)
        return
    # A video does not say reliably how many frames it has: one pass counts those that are sound, one picks.
    with open_source(options.source) as video:
        sound = [frame.index for frame in video if not frame.fault]
    picked = {sound[place] for place in evenly_spread(len(sound), options.count)}
    with open_source(options.source) as video:
        yield from (frame for frame in video if frame.index in picked)


def _spaced(frames: Iterable[Frame], every_s: float) -> Iterator[Frame]:
    """Yield the first frame, then each that was captured at least `every_s` seconds after the last one yielded."""
    due_s = float("-inf")
    for frame in frames:
        if frame.monotonic_s >= due_s:
            yield frame
            due_s = frame.monotonic_s + every_s


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("python -m export.calibration_data"),
        description="Fill a folder with good images of your own product, on which INT8 ranges are measured.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="source", metavar="PATH", help="a folder of images, an image, a video, a stream")
    source.add_argument("--camera", type=camera, metavar="N", help="take the images from camera N, or genicam:ID")
    parser.add_argument(
        "--count",
        type=int,
        default=64,
        metavar="N",
        help="how many images to take, evenly spread (default: %(default)s)",
    )
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="seconds between a camera's images (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the folder to fill (default: %(default)s)"
    )
    parser.add_argument(
        "--origin", metavar="TEXT", help="where the images are from, for the manifest (default: the source's name)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Fill the folder and say what it holds."""
    arguments = _parser().parse_args(argv)
    text = arguments.source if arguments.source is not None else arguments.camera
    source = SourceSpec.parse(text)
    options = RefillOptions(
        source=source,
        origin=printable(
            arguments.origin or (source.name if source.kind in LIVE else Path(source.name).name or source.name)
        ),
        count=arguments.count,
        every_s=arguments.every,
        out=arguments.out,
    )
    data = refill(options)
    print(f"{options.out}: {len(data.paths)} images from {data.origin}, calibration hash {data.sha256[:12]}")
    different = len({sha256_of(path) for path in data.paths})
    if different < len(data.paths):
        print(f"note: {len(data.paths) - different} images repeat others", file=sys.stderr)
    if different < ENOUGH_IMAGES:
        print(f"note: fewer than {ENOUGH_IMAGES} different images clip INT8 ranges; more are better", file=sys.stderr)
    return None


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
