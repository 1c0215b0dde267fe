"""Pixel formats against a reference that looks at single bits, and against what the library calls them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.bit_depth import FULL_SCALE
from runtime.images.opencv import opencv
from runtime.images.pixel_formats import FORMATS, UNPACK, PixelFormat, decode, format_of
from runtime.images.preprocess import ReadOptions, read_image
from tests.support.genicam import needs_aravis

NAMED = {kind.name: kind for kind in FORMATS.values()}
ODD = [(7, 5), (8, 4), (5, 3), (1, 1), (101, 3), (6, 7)]


def _bits_of(samples: np.ndarray, kind: PixelFormat) -> list[int]:
    """Return the bits of one run of samples in the order of memory, the lowest of each byte first: the reference."""
    bits: list[int] = []
    if kind.packing == "packed":
        low = kind.bits - 8
        values = [int(value) for value in samples]
        for first, second in zip(values[::2], [*values[1::2], 0][: len(values[::2])], strict=True):
            middle = (first & (1 << low) - 1) | (second & (1 << low) - 1) << 4
            for byte in (first >> low, middle, second >> low):
                bits += [byte >> place & 1 for place in range(8)]
        return bits[: 8 * -(-len(values) * 12 // 8)]
    stored = 16 if kind.packing == "words" else kind.bits
    for value in samples:
        bits += [int(value) >> place & 1 for place in range(stored)]
    return bits


def _as_bytes(bits: list[int]) -> bytes:
    filled = bits + [0] * (-len(bits) % 8)
    return bytes(sum(bit << place for place, bit in enumerate(filled[i : i + 8])) for i in range(0, len(filled), 8))


def _packed(samples: np.ndarray, kind: PixelFormat, by_row: bool) -> bytes:
    runs = samples if by_row else samples.reshape(1, -1)
    return b"".join(_as_bytes(_bits_of(run, kind)) for run in runs)


def _scaled(samples: np.ndarray, white: int) -> np.ndarray:
    return np.array([[round(255 * int(value) / white + 1e-9) for value in row] for row in samples], np.uint8)


@pytest.mark.parametrize("name", [name for name, kind in NAMED.items() if len(kind.colours) < 3])
@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("by_row", [False, True])
def test_samples_are_those_of_the_bits(name: str, size: tuple[int, int], by_row: bool):
    kind = NAMED[name]
    samples = np.random.default_rng(3).integers(0, 1 << kind.bits, (size[1], size[0]))
    samples.flat[0], samples.flat[-1] = (1 << kind.bits) - 1, 0
    data = _packed(samples, kind, by_row)
    raw = np.frombuffer(data, np.uint8).reshape(size[1] if by_row else 1, -1)
    found = UNPACK[kind.packing](raw, kind.bits, size[0] if by_row else samples.size).reshape(samples.shape)
    assert np.array_equal(found, samples)
    grey = decode(data, PixelFormat("grey", kind.bits, kind.packing), size)
    assert np.abs(grey.astype(int) - _scaled(samples, (1 << kind.bits) - 1)).max() == 0


@pytest.mark.parametrize("name", ["Mono10", "Mono12", "Mono16"])
def test_a_camera_and_a_file_of_the_same_samples_are_the_same_picture(name: str, tmp_path: Path):
    kind, white = NAMED[name], {"Mono10": 1023, "Mono12": 4095, "Mono16": 4095}[name]
    samples = np.random.default_rng(1).integers(0, white + 1, (20, 30)).astype("<u2")
    samples[0, 0] = white
    Image.fromarray(samples).save(tmp_path / "frame.tif")
    of_file = read_image(tmp_path / "frame.tif", ReadOptions(white))
    assert np.array_equal(of_file[:, :, 0], decode(samples.tobytes(), kind, (30, 20), white))


def test_samples_above_white_are_refused():
    with pytest.raises(UserError, match="no sample may be above white, 4095; found 5000"):
        decode(np.array([[5000, 1]], "<u2").tobytes(), NAMED["Mono16"], (2, 1), 4095)


def _mosaic(rgb: np.ndarray, colours: str) -> np.ndarray:
    """Return what a sensor with such a mosaic sees of `rgb`."""
    first, second = colours
    rows = (first + second, {"RG": "GB", "GR": "BG", "GB": "RG", "BG": "GR"}[colours])
    grid = np.zeros(rgb.shape[:2], rgb.dtype)
    for y in range(2):
        for x in range(2):
            grid[y::2, x::2] = rgb[y::2, x::2, "RGB".index(rows[y][x])]
    return grid


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("colours", ["RG", "GR", "GB", "BG"])
def test_a_mosaic_becomes_the_colours_that_it_was_made_of(colours: str, bits: int):
    kind = NAMED[f"Bayer{colours}{bits}"]
    x, y = np.meshgrid(np.arange(33), np.arange(21))
    levels = np.stack((40 + 2 * x, 120 + 3 * y, 200 - 2 * x), axis=2)  # ramps, which bilinear gives back within
    samples = _mosaic(np.round(levels * ((1 << kind.bits) - 1) / 255), colours).astype("<u2" if bits > 8 else "u1")
    found = opencv().cvtColor(decode(samples.tobytes(), kind, (33, 21)), opencv().COLOR_BGR2RGB)
    inside = (slice(2, -2), slice(2, -2))
    assert np.abs(found[inside].astype(int) - levels[inside]).max() <= 1


def test_colours_of_each_pixel_come_in_the_order_of_the_name():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(decode(rgb.tobytes(), NAMED["RGB8"], (7, 5)), rgb[:, :, ::-1])
    assert np.array_equal(decode(rgb.tobytes(), NAMED["BGR8"], (7, 5)), rgb)


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("Mono8", (7, 5), 34),
        ("Mono8", (7, 5), 36),
        ("Mono12p", (7, 5), 54),
        ("RGB8", (7, 5), 35),
        ("Mono16", (7, 5), 71),
    ],
)
def test_another_number_of_bytes_is_refused(name: str, size: tuple[int, int], found: int):
    with pytest.raises(UserError, match=rf"a frame of 7x5 pixels in {name} must have \d+ bytes; found {found}; "):
        decode(bytes(found), NAMED[name], size)


def test_a_format_that_cannot_be_read_is_refused():
    with pytest.raises(UserError, match=r"pixel format must be one of those.*found 0x02100032.*--camera-format"):
        format_of(0x02100032)


@needs_aravis
def test_numbers_are_those_of_the_library():
    from runtime.sources.genicam.aravis import aravis

    library = aravis()
    known = {
        name.removeprefix("PIXEL_FORMAT_"): getattr(library, name) for name in dir(library) if "PIXEL_FORMAT_" in name
    }
    plain = {name.replace("_", "").lower(): code for name, code in known.items()}
    named = {kind.name.lower(): code for code, kind in FORMATS.items()}
    found = {name: plain.get(name, plain.get(f"{name}packed")) for name in named}
    lacking = {name for name, code in found.items() if code is None}
    assert lacking <= {"mono10p", "mono12p"}  # the library has no constant for these two
    assert {name: code for name, code in found.items() if code is not None} == {
        name: code for name, code in named.items() if name not in lacking
    }


def test_white_of_a_format_is_its_largest_sample():
    for name, white in {"Mono10p": 1023, "BayerRG12Packed": 4095, "Mono14": 16383, "Mono16": FULL_SCALE}.items():
        assert (1 << NAMED[name].bits) - 1 == white
