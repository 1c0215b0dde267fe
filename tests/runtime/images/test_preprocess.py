import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.folders import list_images
from runtime.images.preprocess import read_image, read_size, resize
from runtime.images.to_rgb import to_rgb8


def _noise(shape: tuple[int, ...], high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, high, shape).astype(dtype)


def test_rgb_and_grey_arrive_as_they_are():
    rgb, grey = _noise((5, 7, 3)), _noise((5, 7))
    np.testing.assert_array_equal(to_rgb8(Image.fromarray(rgb)), rgb)
    np.testing.assert_array_equal(to_rgb8(Image.fromarray(grey)), np.stack([grey] * 3, axis=2))


def test_one_bit_is_black_and_white():
    bits = _noise((6, 9), 2).astype(bool)
    np.testing.assert_array_equal(to_rgb8(Image.fromarray(bits)), np.stack([bits * np.uint8(255)] * 3, axis=2))


def test_palette_gives_its_colours_and_transparent_entries_are_black(tmp_path: Path):
    indices = _noise((8, 8), 4)
    colours = np.array([[200, 10, 20], [0, 250, 3], [90, 91, 92], [255, 255, 255]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    np.testing.assert_array_equal(to_rgb8(image), colours[indices])

    image.save(tmp_path / "key.png", transparency=3)
    colours[3] = 0
    np.testing.assert_array_equal(read_image(tmp_path / "key.png"), colours[indices])


def test_colour_key_of_an_rgb_png_is_black(tmp_path: Path):
    rgb = _noise((4, 4, 3))
    rgb[1, 2] = (9, 8, 7)
    Image.fromarray(rgb).save(tmp_path / "key.png", transparency=(9, 8, 7))
    rgb[1, 2] = 0
    np.testing.assert_array_equal(read_image(tmp_path / "key.png"), rgb)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_black(mode: str):
    pixels = _noise((6, 5, len(mode)))
    expected = pixels[:, :, :-1].astype(float) * pixels[:, :, -1:] / 255
    found = to_rgb8(Image.fromarray(pixels, mode=None if mode == "RGBA" else mode))
    # Pillow composites in fixed point: one level of rounding
    np.testing.assert_allclose(found, np.broadcast_to(expected, (6, 5, 3)), atol=1)


def test_cmyk_is_ink_on_white():
    ink = _noise((6, 5, 4))
    image = Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(ink[:, :, i])) for i in range(4)])
    expected = (255.0 - ink[:, :, :3]) * (255.0 - ink[:, :, 3:]) / 255
    np.testing.assert_allclose(to_rgb8(image), expected, atol=1)  # fixed point again


def test_a_cmyk_jpeg_is_ink_on_white(tmp_path: Path):
    rows, columns = np.mgrid[:32, :32]  # ramps: a JPEG keeps them, noise it would not
    ink = [8 * rows, 8 * columns, 4 * (rows + columns), 2 * rows]
    Image.merge("CMYK", [Image.fromarray(plate.astype(np.uint8)) for plate in ink]).save(
        tmp_path / "print.jpg", quality=100, subsampling=0
    )
    cyan, magenta, yellow, black = (255.0 - plate for plate in ink)
    expected = np.stack([cyan, magenta, yellow], axis=2) * black[:, :, None] / 255
    # two levels of the JPEG's own rounding (inverted inks would be off by up to 255)
    np.testing.assert_allclose(read_image(tmp_path / "print.jpg"), expected, atol=2)


def _tiff16(grey: np.ndarray, photometric: int, order: str) -> bytes:
    """Write 16-bit grey as an uncompressed TIFF of one strip by hand; `photometric` 0: white is zero, 1: black is."""
    mark = {"little": "<", "big": ">"}[order]
    pixels = grey.astype(f"{mark}u2").tobytes()
    height, width = grey.shape
    short, long = 3, 4
    tags = [(256, short, width), (257, short, height), (258, short, 16), (259, short, 1), (262, short, photometric)]
    tags += [(273, long, 8), (277, short, 1), (278, long, height), (279, long, len(pixels))]
    entries = [
        struct.pack(f"{mark}HHI", tag, kind, 1) + struct.pack(f"{mark}HH" if kind == short else f"{mark}I", *value)
        for tag, kind, number in tags
        for value in [(number, 0) if kind == short else (number,)]
    ]
    start = (b"II" if order == "little" else b"MM") + struct.pack(f"{mark}HI", 42, 8 + len(pixels))
    return start + pixels + struct.pack(f"{mark}H", len(tags)) + b"".join(entries) + struct.pack(f"{mark}I", 0)


@pytest.mark.parametrize(("photometric", "order"), [(1, "little"), (1, "big"), (0, "little")])
def test_a_sixteen_bit_tiff_is_scaled_and_never_a_negative(tmp_path: Path, photometric: int, order: str):
    grey = _noise((8, 6), 65536, np.uint16)
    (tmp_path / "deep.tif").write_bytes(_tiff16(grey if photometric else 65535 - grey, photometric, order))
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif")[:, :, 1], np.round(grey / 257.0))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bit_grey_is_scaled_by_its_full_range(mode: str):
    grey = np.append(_noise((62,), 65536, np.uint16), [0, 65535]).astype(np.uint16).reshape(8, 8)
    raw = grey.astype("<u2" if mode == "I;16" else ">u2").tobytes()
    expected = np.round(grey / 65535 * 255)
    np.testing.assert_array_equal(to_rgb8(Image.frombytes(mode, (8, 8), raw))[:, :, 1], expected)


def test_sixteen_bit_png_is_scaled_whatever_mode_pillow_opens_it_in(tmp_path: Path):
    grey = _noise((8, 8), 65536, np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[:, :, 0], np.round(grey / 257.0))

    as_int32 = Image.fromarray(grey.astype(np.int32))
    as_int32.format = "PNG"  # as older releases of Pillow open such a file
    np.testing.assert_array_equal(to_rgb8(as_int32)[:, :, 2], np.round(grey / 257.0))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_type_without_a_full_scale_is_refused(dtype: type):
    with pytest.raises(UserError, match="1, 8 or 16 bits"):
        to_rgb8(Image.fromarray(np.ones((3, 3), dtype)))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str):
    upright = _noise((6, 9, 3))
    # stored pixels that the standard's orientation turns back into the upright picture
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"photo{suffix}", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"photo{suffix}"), upright)


def test_a_sixteen_bit_photo_lying_on_its_side_is_turned_upright(tmp_path: Path):
    grey = _noise((5, 7), 65536, np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    Image.fromarray(np.ascontiguousarray(np.rot90(grey))).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png")[:, :, 0], np.round(grey / 257.0))


def test_a_jpeg_photo_lying_on_its_side_is_turned_upright(tmp_path: Path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :8] = 255  # blocks of 8: a JPEG keeps them
    exif = Image.Exif()
    exif[0x0112] = 8  # turn by 90 degrees counter-clockwise to view
    stored = np.ascontiguousarray(np.rot90(upright, -1))
    Image.fromarray(stored).save(tmp_path / "photo.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg"), upright, atol=2)  # the JPEG's rounding


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_truncated_images_are_refused_by_name(tmp_path: Path, suffix: str):
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(_noise((64, 64, 3))).save(whole)
    assert read_image(whole).shape == (64, 64, 3)
    broken = tmp_path / f"broken{suffix}"
    data = whole.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"broken{suffix}"):
        read_image(broken)


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_foreign_files_are_refused_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "notes.png").write_bytes(content)
    with pytest.raises(UserError, match=r"notes\.png"):
        read_image(tmp_path / "notes.png")
    with pytest.raises(UserError, match=r"missing\.png"):
        read_image(tmp_path / "missing.png")


def test_resize_is_pillows_bilinear_with_height_first():
    rgb = _noise((90, 50, 3))
    found = resize(rgb, (32, 64))
    assert found.shape == (32, 64, 3) and found.dtype == np.uint8
    expected = np.asarray(Image.fromarray(rgb).resize((64, 32), resample=Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected)


def _triangle(pixels: int, size: int) -> np.ndarray:
    """The antialiased bilinear filter as a float64 matrix (size, pixels), for reductions."""
    scale = pixels / size
    centres = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(pixels) - centres[:, None]) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


def test_reducing_does_not_alias():
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, 3::8] = stripes[:, 4::8] = 255  # sampled at every 8th pixel alone this would be white
    expected = np.einsum("ih,hwc,jw->ijc", _triangle(64, 8), stripes.astype(float), _triangle(128, 16))
    found = resize(stripes, (8, 16))
    assert found.max() < 140
    np.testing.assert_allclose(found, expected, atol=1.01)  # Pillow rounds to 8 bits after each of two passes


def test_resize_returns_a_fitting_frame_itself_and_else_a_writable_one():
    rgb = _noise((12, 10, 3))
    assert resize(rgb, (12, 10)) is rgb
    assert resize(rgb, (6, 5)).flags.writeable


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_resize_refuses_anything_but_rgb8(frame: np.ndarray):
    with pytest.raises(UserError, match="uint8"):
        resize(frame, (8, 8))


def test_images_are_listed_in_natural_order(tmp_path: Path):
    for name in ("frame10.png", "frame2.PNG", "frame1.jpg", "10.bmp", "9.bmp", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["9.bmp", "10.bmp", "frame1.jpg", "frame2.PNG", "frame10.png"]
    with pytest.raises(UserError, match="folder"):
        list_images(tmp_path / "9.bmp")


@pytest.mark.parametrize(("suffix", "orientation"), [("png", 1), ("png", 6), ("jpg", 1), ("jpg", 8), ("tif", 6)])
def test_the_size_is_read_as_the_pixels_are_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"photo.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (31, 17)).save(path, exif=exif)
    assert read_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_size_is_read_without_the_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.effect_noise((320, 200), 90).save(path)
    path.write_bytes(path.read_bytes()[:-9000])
    assert read_size(path) == (200, 320)
    with pytest.raises(UserError, match="must be a whole image"):
        read_image(path)
