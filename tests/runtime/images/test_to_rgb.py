"""Alpha that says nothing, EXIF that is broken, pictures that are large: files and captures alike."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common import notices
from runtime.common.errors import UserError
from runtime.images import to_rgb
from runtime.images.preprocess import ReadOptions, read_image
from runtime.images.size_limit import default_max_pixels
from runtime.sources.reader import to_rgb as of_capture
from tests.support.paths import ROOT

RGB = np.random.default_rng(2).integers(1, 256, (6, 7, 3), np.uint8)


def with_alpha(alpha: np.ndarray) -> np.ndarray:
    return np.dstack([RGB, alpha.astype(np.uint8)])


ALPHAS = {
    "0 everywhere: it says nothing": (np.zeros((6, 7)), RGB),
    "255 everywhere": (np.full((6, 7), 255), RGB),
    "a hole": (np.where(np.eye(6, 7), 0, 255), np.where(np.eye(6, 7)[:, :, None], 0, RGB)),
}


@pytest.mark.parametrize(("alpha", "expected"), ALPHAS.values(), ids=ALPHAS.keys())
def test_files_and_captures_take_alpha_alike(alpha: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    rgba = with_alpha(alpha)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(of_capture(rgba[:, :, [2, 1, 0, 3]]), expected)


def test_alpha_that_says_nothing_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notices.say_once.cache_clear()
    Image.fromarray(with_alpha(np.zeros((6, 7)))).save(tmp_path / "a.png")
    for _ in range(3):
        read_image(tmp_path / "a.png")
    assert capsys.readouterr().err.count("alpha is 0 everywhere") == 1


def test_strips_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = np.zeros((6, 7))
    alpha[5] = 255  # only the last strip says that alpha means something
    Image.fromarray(with_alpha(alpha)).save(tmp_path / "a.png")
    indices = Image.fromarray(RGB).quantize(16)
    indices.save(tmp_path / "p.png", transparency=3)
    whole = [read_image(tmp_path / name) for name in ("a.png", "p.png")]
    monkeypatch.setattr(to_rgb, "STRIP_PIXELS", 14)
    for name, expected in zip(("a.png", "p.png"), whole, strict=True):
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    assert not whole[0][:5].any() and (whole[0][5] == RGB[5]).all()


def jpeg_with_exif(tiff: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(ROOT / "calibration_data/cable_000.jpg").crop((0, 0, 64, 32)).save(
        buffer, "JPEG", exif=b"Exif\0\0" + tiff
    )
    return buffer.getvalue()


def directory(*entries: tuple[int, int, int, int]) -> bytes:
    body = b"".join(
        tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + count.to_bytes(4, "big") + value.to_bytes(4, "big")
        for tag, kind, count, value in entries
    )
    return b"MM\0*\0\0\0\x08" + len(entries).to_bytes(2, "big") + body + bytes(4)


ORIENTATION = (0x0112, 3, 1, 6 << 16)
BROKEN = {
    "a text where a number belongs": directory(ORIENTATION, (0x011A, 2, 4, 0x61626300)),
    "a value far outside": directory(ORIENTATION, (0x8769, 4, 1, 0x7FFFFFF0)),
    "a type that does not exist": directory(ORIENTATION, (0x0131, 99, 1, 0)),
    "a length without end": directory(ORIENTATION, (0x0131, 2, 0xFFFFFFFF, 8)),
    "a rational of none": directory(ORIENTATION, (0x011A, 5, 0, 0)),
}


@pytest.mark.parametrize("exif", BROKEN.values(), ids=BROKEN.keys())
def test_a_photo_is_turned_by_its_orientation_alone(exif: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_with_exif(exif))
    assert read_image(tmp_path / "photo.jpg").shape == (64, 32, 3)


@pytest.mark.parametrize(
    "exif", [b"", b"nothing at all", b"MM\0*\xff\xff\xff\xff", directory((0x0112, 3, 1, 77 << 16))]
)
def test_exif_that_says_nothing_leaves_the_picture_upright(exif: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_with_exif(exif))
    assert read_image(tmp_path / "photo.jpg").shape == (32, 64, 3)


def test_the_bound_is_our_own_and_says_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 50)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", ReadOptions(max_pixels=5000)).shape == (50, 100, 3)
    with pytest.raises(UserError, match=r"a\.png: an image may have 4999 pixels; found 100x50; .*--max-pixels"):
        read_image(tmp_path / "a.png", ReadOptions(max_pixels=4999))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow would call it an attack from 2000 on
    assert read_image(tmp_path / "a.png").shape == (50, 100, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000  # for whoever else uses Pillow in this process
    assert default_max_pixels() > 10_000_000


def test_the_environment_sets_the_bound_for_commands_without_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (100, 50)).save(tmp_path / "a.png")
    monkeypatch.setenv("CFLOW_MAX_PIXELS", "4999")
    with pytest.raises(UserError, match=r"4999 pixels; found 100x50; .*CFLOW_MAX_PIXELS"):
        read_image(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", ReadOptions(max_pixels=5000)).shape == (50, 100, 3)  # the option wins
    monkeypatch.setenv("CFLOW_MAX_PIXELS", "4e9")
    with pytest.raises(UserError, match="CFLOW_MAX_PIXELS must be a number of pixels; found '4e9'"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["P", "RGBA", "I;16"])
def test_a_large_picture_takes_little_more_than_itself(mode: str, tmp_path: Path) -> None:
    side = 5000
    Image.new(mode, (side, side), 7).save(tmp_path / "large.png", compress_level=1)
    tracemalloc.start()  # counts what NumPy takes and Pillow hands over, not Pillow's own picture
    pixels = read_image(tmp_path / "large.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.shape == (side, side, 3)
    assert peak < 9 * side * side  # the result's 3 bytes a pixel, and what one strip or 16-bit samples take
