"""Damage inside image files: what is found of it, measured, and that whole files of every kind pass."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import read_image
from tests.support.paths import ROOT

PHOTOS = sorted((ROOT / "calibration_data").glob("*.jpg"))
TRIES = 40
KINDS: dict[str, tuple[str, dict[str, Any], float]] = {  # suffix, how it is saved, least share that is found
    "JPEG": (".jpg", {"quality": 85}, 0.7),
    "JPEG, progressive": (".jpg", {"quality": 85, "progressive": True}, 0.8),
    "JPEG, restart marks": (".jpg", {"quality": 85, "restart_marker_rows": 1}, 0.8),
    "PNG": (".png", {}, 1),
    "TIFF, ZIP": (".tif", {"compression": "tiff_deflate"}, 1),
    "TIFF, LZW": (".tif", {"compression": "tiff_lzw"}, 0.9),
    "TIFF, JPEG": (".tif", {"compression": "jpeg"}, 0.7),
    "WebP": (".webp", {"quality": 85}, 0.2),
}


def encoded(index: int, suffix: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    format_name = Image.registered_extensions()[suffix]
    Image.open(PHOTOS[index % len(PHOTOS)]).convert("RGB").save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "options", "least"), KINDS.values(), ids=KINDS.keys())
def test_random_bytes_inside_are_found_as_often_as_is_said(
    suffix: str, options: dict[str, Any], least: float, tmp_path: Path
) -> None:
    rng, found, path = np.random.default_rng(0), 0, tmp_path / f"damaged{suffix}"
    for index in range(TRIES):
        data = bytearray(encoded(index, suffix, options))
        start = int(rng.integers(700, len(data) - 700))  # what lies behind the headers
        data[start : start + 64] = rng.bytes(64)
        path.write_bytes(data)
        try:
            read_image(path)
        except UserError as error:
            assert f"damaged{suffix}" in str(error)
            found += 1
    assert found >= least * TRIES


WHOLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "grey JPEG": (".jpg", "L", {}),
    "CMYK JPEG": (".jpg", "CMYK", {}),
    "JPEG of RGB": (".jpg", "RGB", {"keep_rgb": True}),
    "JPEG 4:2:2": (".jpg", "RGB", {"subsampling": "4:2:2"}),
    "tiled TIFF, ZIP": (".tif", "RGB", {"compression": "tiff_adobe_deflate", "tiffinfo": {322: 64, 323: 64}}),
    "TIFF, JPEG": (".tif", "RGB", {"compression": "jpeg"}),
    "raw TIFF": (".tif", "RGB", {}),
}


@pytest.mark.parametrize(("suffix", "mode", "options"), WHOLE.values(), ids=WHOLE.keys())
def test_whole_files_pass(suffix: str, mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"whole{suffix}"
    Image.open(PHOTOS[0]).convert(mode).save(path, **options)
    assert read_image(path).shape == (256, 256, 3)


def test_what_follows_the_picture_is_no_damage(tmp_path: Path) -> None:
    """Some cameras append a thumbnail or their own data; phones write several pictures into one file."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTOS[0].read_bytes() + bytes(1000))
    assert read_image(path).shape == (256, 256, 3)
    photo = Image.open(PHOTOS[0])
    photo.save(path, "MPO", save_all=True, append_images=[photo])
    assert read_image(path).shape == (256, 256, 3)
