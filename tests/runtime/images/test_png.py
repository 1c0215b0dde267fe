"""PNG files whose header promises more pixels than there are: Pillow fills the rest with black, and says nothing."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import read_image
from tests.reliability.mutations import PNG_SIGNATURE, chunks_of, png_changed

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "I;16")


def picture(mode: str, height: int = 32) -> Image.Image:
    grey = np.random.default_rng(0).integers(1, 255, (height, 24), np.uint8)
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    return Image.fromarray(grey).convert("RGB").convert(mode)


def saved(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def with_height(data: bytes, height: int) -> bytes:
    """Return the file with another height in its header, and the checksum of that."""
    out = PNG_SIGNATURE
    for kind, content in chunks_of(data):
        changed = content[:4] + struct.pack(">I", height) + content[8:] if kind == b"IHDR" else content
        out += struct.pack(">I", len(changed)) + kind + changed + struct.pack(">I", zlib.crc32(kind + changed))
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("height", [33, 40, 64, 16_777_248])
def test_missing_rows_are_damage(tmp_path: Path, mode: str, height: int) -> None:
    path = tmp_path / "short.png"
    path.write_bytes(with_height(saved(picture(mode)), height))
    with pytest.raises(UserError, match=r"short\.png: an image must be whole; found pixels missing"):
        read_image(path)


@pytest.mark.parametrize("mode", MODES)
def test_whole_files_pass_whatever_their_last_row_is(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "whole.png"
    image = picture(mode)
    path.write_bytes(saved(image))
    assert read_image(path).any()
    image.paste(0 if image.getbands() != ("R", "G", "B") else (0, 0, 0), (0, 20, 24, 32))  # type: ignore[arg-type]
    path.write_bytes(saved(image))
    assert read_image(path).shape == (32, 24, 3)


def test_a_black_picture_of_many_pixels_passes(tmp_path: Path) -> None:
    """It packs as much as deflate can."""
    path = tmp_path / "black.png"
    Image.new("L", (4000, 4000)).save(path, compress_level=9)
    assert path.stat().st_size < 20_000
    assert read_image(path).shape == (4000, 4000, 3)


def test_what_is_open_already_is_checked_alike() -> None:
    data = saved(picture("RGB"))
    assert read_image("x.png", opened=io.BytesIO(data)).shape == (32, 24, 3)
    with pytest.raises(UserError, match="pixels missing"):
        read_image("x.png", opened=io.BytesIO(with_height(data, 64)))


def test_an_interlaced_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    """As ImageMagick writes them: Pillow reads them, and writes none."""
    rows = b"".join(b"\0" + bytes(range(1, width + 1)) for width, height in PASSES_8X8 for _ in range(height))
    path = tmp_path / "interlaced.png"
    path.write_bytes(interlaced(rows))
    assert read_image(path).all()
    path.write_bytes(interlaced(rows[:-9]))  # the last row is of the last pass
    with pytest.raises(UserError, match=r"pixels missing \(\d+ of \d+ bytes\)|must be a whole image"):
        read_image(path)


PASSES_8X8 = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))  # width, height


def interlaced(rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    made = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return PNG_SIGNATURE + b"".join(made)


def test_changed_files_are_read_or_refused_in_one_line() -> None:
    data = saved(picture("RGB"))
    for seed in range(300):
        changed = png_changed(random.Random(seed), data)
        try:
            read_image("x.png", opened=io.BytesIO(changed))
        except UserError as error:
            assert "\n" not in str(error)
