"""10 and 12 bits in files of 16: white is what the file says, else what the user says."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import ReadOptions, read_image

TWELVE = np.random.default_rng(5).integers(0, 4096, (8, 8))
TWELVE[0, 0], TWELVE[0, 1] = 4095, 1
EXPECTED = np.round(TWELVE / 4095 * 255)


def png(samples: np.ndarray, significant: int | None = None) -> bytes:
    """Write 16-bit grey (H, W) or colour (H, W, 3), with sBIT where `significant` says how many bits mean something."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if significant is not None:
        chunks.insert(1, (b"sBIT", bytes([significant] * channels)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiff12(samples: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in samples.ravel())
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    height, width = samples.shape
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(data))])
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags) + 1) + entries + bytes(4)


STATED = {
    "pgm": lambda: b"P5\n8 8\n4095\n" + TWELVE.astype(">u2").tobytes(),
    "tif": lambda: tiff12(TWELVE),
    "png": lambda: png(TWELVE, 12),
}


@pytest.mark.parametrize("suffix", STATED)
def test_white_is_what_the_file_states(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep.{suffix}"
    path.write_bytes(STATED[suffix]())
    for options in (ReadOptions(), ReadOptions(white=1023)):  # whatever the user says of files that say nothing
        np.testing.assert_array_equal(read_image(path, options)[:, :, 0], EXPECTED)


@pytest.mark.parametrize("stretched", [TWELVE << 4, (TWELVE << 4) | (TWELVE >> 8)], ids=["shifted", "repeated bits"])
def test_a_png_may_have_stretched_its_bits_as_the_standard_wants(stretched: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    for samples in (stretched, np.minimum(stretched, 4095) & 0xFFF0):  # the second one dark all over
        path.write_bytes(png(samples, 12))
        np.testing.assert_array_equal(read_image(path)[:, :, 0], np.round(samples / 65535 * 255))


def test_where_the_file_says_nothing_the_user_does(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png(TWELVE))
    np.testing.assert_array_equal(read_image(path, ReadOptions(white=4095))[:, :, 0], EXPECTED)
    np.testing.assert_array_equal(read_image(path)[:, :, 0], np.round(TWELVE / 65535 * 255))
    with pytest.raises(UserError, match=r"deep\.png: no sample may be above white, 1023; found 4095; .*--white 4095"):
        read_image(path, ReadOptions(white=1023))


def test_sixteen_bit_colours_with_another_white_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "colour.png"
    path.write_bytes(png(np.stack([TWELVE] * 3, axis=2)))
    assert read_image(path).max() == 15  # Pillow gives the upper 8 bits, and nobody has said that it is too dark
    with pytest.raises(UserError, match="must be grey or of 8 bits; found 16-bit colours"):
        read_image(path, ReadOptions(white=4095))


def test_white_concerns_sixteen_bits_alone(tmp_path: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", ReadOptions(white=4095)), rgb)
