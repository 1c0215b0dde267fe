"""The readers that are fuzzed: for each its valid files, how they are changed, and how it is asked to read one."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.reliability.mutations import (
    Mutation,
    bytes_changed,
    json_changed,
    png_changed,
    protobuf_changed,
    toml_changed,
    zip_changed,
)

MOST_PIXELS = 1 << 26  # what one picture may have here, so that reading it takes less than a GiB


@dataclass(frozen=True)
class Reader:
    """`seeds` are valid files by name; `read` gets a changed one under that name, in a folder of its own."""

    name: str
    seeds: dict[str, bytes]
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], object]


def _texture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8), np.ones((4, 4, 1), np.uint8))


def image_seeds() -> dict[str, bytes]:
    """Return an image of every kind that we say we read."""
    colour = Image.fromarray(_texture(48, 64))
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21)
    exif = Image.Exif()
    exif[274] = 6  # turned
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "rgb.png": (colour, {}),
        "rgba.png": (colour.convert("RGBA"), {}),
        "palette.png": (colour.quantize(16), {"transparency": 3}),
        "deep.png": (deep, {}),
        "bits.png": (colour.convert("1"), {}),
        "grey.jpg": (colour.convert("L"), {"quality": 90}),
        "turned.jpg": (colour, {"quality": 80, "exif": exif.tobytes()}),
        "progressive.jpg": (colour, {"progressive": True}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "rgb.bmp": (colour, {}),
        "raw.tif": (colour, {}),
        "lzw.tif": (colour, {"compression": "tiff_lzw"}),
        "zip.tif": (deep, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (colour, {"compression": "jpeg"}),
        "lossy.webp": (colour, {"exif": exif.tobytes()}),
        "lossless.webp": (colour.convert("RGBA"), {"lossless": True}),
    }
    seeds = {}
    for name, (image, options) in kinds.items():
        out = io.BytesIO()
        image.save(out, {".jpg": "JPEG", ".tif": "TIFF"}.get(name[-4:], name.rpartition(".")[2].upper()), **options)
        seeds[name] = out.getvalue()
    return seeds


def _image(folder: Path) -> Reader:
    from runtime.images.preprocess import ReadOptions, read_image

    return Reader(
        "image",
        image_seeds(),
        (bytes_changed, png_changed),
        lambda path: read_image(path, ReadOptions(max_pixels=MOST_PIXELS)),
    )


def _sidecar(folder: Path) -> Reader:
    from runtime.engines.sidecar import read_sidecar
    from tests.support.engine_sets import write_version

    write_version(folder, 1)
    whole = json.loads((folder / "cable.json").read_text(encoding="utf-8"))
    while_built = {**whole, "replaced_by": {**whole, "name": "newer"}}
    seeds = {"cable.json": json.dumps(whole).encode(), "screw.json": json.dumps(while_built).encode()}
    return Reader("sidecar", seeds, (bytes_changed, json_changed), lambda path: read_sidecar(path.with_suffix(".onnx")))


def _checkpoint(folder: Path) -> Reader:
    from export.model.checkpoint import load_checkpoint

    made = checkpoint_of(folder)
    return Reader(
        "checkpoint", {"cable.pt": made.read_bytes()}, (bytes_changed, zip_changed, zip_changed), load_checkpoint
    )


def checkpoint_of(folder: Path) -> Path:
    """Write a tiny checkpoint and return its path."""
    from tests.support.tiny_checkpoint import write_tiny_checkpoint

    paths = []
    for number in range(3):
        paths.append(folder / f"{number}.png")
        Image.fromarray(np.roll(_texture(48, 64), number, axis=1)).save(paths[-1])
    return write_tiny_checkpoint(folder / "made.pt", paths, (32, 32))


def _onnx(folder: Path) -> Reader:
    import onnx

    import runtime
    from export.fuse import fuse_file
    from export.graph.onnx_files import foreign_graph
    from export.to_onnx import export_checkpoint
    from runtime.common.files import sha256_of
    from runtime.engines.backends import Backend
    from runtime.engines.sidecar import read_sidecar, write_sidecar
    from tests.support.tiny_engine import write_tiny_engine

    unfused = folder / "unfused.onnx"
    export_checkpoint(checkpoint_of(folder), unfused)
    model = onnx.load(str(unfused))
    described = read_sidecar(write_tiny_engine(folder, "tiny", (32, 32), ("layer1",)))
    tiny = (folder / "tiny.onnx").read_bytes()

    def read(path: Path) -> object:
        if path.name == "tiny.onnx":  # opened as an engine whose sidecar has been renewed
            digest = sha256_of(path)
            write_sidecar(path, replace(described, artefacts=(replace(described.artefacts[0], sha256=digest),)))
            backend: Backend = "openvino" if int(digest, 16) % 2 else "onnxruntime"
            with runtime.load(path, threads=1, backend=backend):
                return None
        with foreign_graph(path):
            return fuse_file(path, path.with_name("fused.onnx"))

    seeds = {"cable.unfused.onnx": model.SerializeToString(), "tiny.onnx": tiny}
    return Reader("ONNX", seeds, (bytes_changed, protobuf_changed, protobuf_changed), read)


def _calibration(folder: Path) -> Reader:
    from export.calibration_data import MANIFEST_NAME, SCHEMA, read_calibration_data
    from runtime.common.files import sha256_of
    from runtime.images.preprocess import read_image

    folder.mkdir(exist_ok=True)
    for number in range(3):
        Image.fromarray(np.roll(_texture(32, 32), number, axis=0)).save(folder / f"{number}.png")
    listed = [{"file": path.name, "sha256": sha256_of(path)} for path in sorted(folder.glob("*.png"))]
    manifest = {"schema": SCHEMA, "origin": "line 1", "images": listed, "passing": ["9.png"]}

    def read(path: Path) -> object:
        for image in folder.glob("*.png"):
            if not (there := path.parent / image.name).exists() and image.name != path.name:
                there.write_bytes(image.read_bytes())
        if path.name != MANIFEST_NAME:  # then the images alone are the set
            (path.parent / MANIFEST_NAME).unlink(missing_ok=True)
        return [read_image(image) for image in read_calibration_data(path.parent).paths]

    seeds = {MANIFEST_NAME: json.dumps(manifest).encode(), "0.png": (folder / "0.png").read_bytes()}
    return Reader("calibration set", seeds, (bytes_changed, json_or_png_changed), read)


def json_or_png_changed(rng: random.Random, data: bytes) -> bytes:
    """Change a file by its kind."""
    return (json_changed if data.startswith(b"{") else png_changed)(rng, data)


def _configuration(folder: Path) -> Reader:
    from runtime.common import config
    from runtime.infer import build_parser
    from runtime.sinks import arguments as sinks
    from tests.runtime.common.test_config import EXAMPLES

    repeatable = {"camera", "source", "watch", "roi", "mask", "rotate", "flip"}
    values = {name: values if name in repeatable else values[0] for name, values in EXAMPLES.items()}

    def lines(*without: str) -> bytes:
        others = ("camera", "watch", *without)  # or a source
        kept = {name: value for name, value in values.items() if name not in others}
        text = "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in kept.items())
        return text.replace("\x7f", "").encode()

    def read(path: Path) -> object:
        arguments = config.parse_args(build_parser, ["--config", str(path)])
        sinks.check_arguments(build_parser(), arguments)
        return arguments

    return Reader(
        "configuration",
        {"line.toml": lines("recipes", "recipe", "recipe-topic"), "recipes_line.toml": lines("engine", "threshold")},
        (bytes_changed, toml_changed, toml_changed),
        read,
    )


def _recipes(folder: Path) -> Reader:
    from runtime.common.config_file import options_of
    from runtime.infer import build_parser
    from runtime.recipes.file import read_recipes

    parser = build_parser()
    line = parser.parse_args(["--recipes", "recipes.toml", "--source", "images"])
    entries = [
        '[[recipe]]\nname = "cable"\nengine = "cable.onnx"\nthreshold = "strict"\nexposure = 4\nroi = "100,50,640,480"',
        '[[recipe]]\nname = "plug"\nnumber = 7\nmask = ["mask.png"]\nexposure = 4\nrotate = 90',
        '[[recipe.inspect]]\nname = "left"\nengine = "plug.onnx"\nthreshold = 1.5\nroi = "0,0,320,240"',
        '[[recipe.inspect]]\nname = "right"\nengine = "plug.onnx"\nroi = "320,0,320,240"',
    ]
    return Reader(
        "recipes",
        {"recipes.toml": "\n".join(entries).encode()},
        (bytes_changed, toml_changed, toml_changed),
        lambda path: read_recipes(path, line, options_of(parser)),
    )


READERS: dict[str, Callable[[Path], Reader]] = {
    "image": _image,
    "sidecar": _sidecar,
    "checkpoint": _checkpoint,
    "onnx": _onnx,
    "calibration": _calibration,
    "configuration": _configuration,
    "recipes": _recipes,
}
