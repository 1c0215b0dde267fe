"""The fast resize against Pillow's own: within one grey level on noise, edges and photos."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.images import fast_resize
from runtime.images.fast_resize import bands, resize_fast
from runtime.images.preprocess import resize, resize_for_engine
from tests.support.paths import ROOT

SIZES = [
    ((480, 640), (256, 256)),
    ((1080, 1920), (256, 256)),
    ((1080, 1920), (512, 512)),
    ((967, 1283), (256, 250)),
    ((300, 200), (600, 500)),  # larger
    ((31, 700), (64, 32)),
    ((16, 16), (256, 256)),
    ((3000, 17), (32, 32)),
    ((1, 1), (7, 5)),
]


def _frames(size: tuple[int, int]):
    rng, (rows, columns) = np.random.default_rng(0), np.indices(size)
    yield rng.integers(0, 256, (*size, 3), np.uint8)
    yield (255 * rng.integers(0, 2, (*size, 3))).astype(np.uint8)  # the largest steps there are
    for pattern in (
        (rows + columns) % 2,
        rows % 2,
        columns % 3 == 0,
        rows > columns,
    ):  # edges, and lines one pixel wide
        yield np.repeat((255 * pattern).astype(np.uint8)[..., None], 3, axis=2)
    yield np.stack([rows % 256, columns % 256, (rows + columns) // 8 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("frame_size", "size"), SIZES)
@pytest.mark.parametrize("cores", [1, 3])
def test_it_is_within_a_grey_level_of_pillow(frame_size, size, cores):
    for frame in _frames(frame_size):
        expected = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        found = resize_fast(frame, size, cores)
        assert found.dtype == np.uint8 and found.flags.writeable
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_one_level_stays_that_level(level):
    assert (resize_fast(np.full((333, 555, 3), level, np.uint8), (96, 128), 1) == level).all()


def test_photos_are_within_a_grey_level(tmp_path: Path):
    photos = (
        sorted((ROOT.parent / "shared/data").rglob("*.jpg"))[:8]
        + sorted((ROOT.parent / "shared/data").rglob("*.png"))[:8]
    )
    if not photos:
        pytest.skip("no photos beside the checkout")
    for photo in photos:
        frame = np.asarray(Image.open(photo).convert("RGB"))
        off = np.abs(resize_for_engine(frame, (256, 256)).astype(int) - resize(frame, (256, 256)))
        assert off.max() <= 1


def test_any_layout_in_memory():
    picture = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    for frame in (picture[10:140, 50:190], picture[::-1, ::-1], np.asfortranarray(picture), picture[..., ::-1]):
        assert np.array_equal(resize_fast(frame, (64, 64), 2), resize_fast(np.ascontiguousarray(frame), (64, 64), 1))


def test_cores_change_nothing_and_small_frames_stay_in_their_thread(monkeypatch):
    threads = set()
    real = fast_resize._resize_strip

    def noting(*arguments):
        threads.add(threading.current_thread().name)
        real(*arguments)

    monkeypatch.setattr(fast_resize, "_resize_strip", noting)
    small, large = (
        np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8) for size in ((480, 640), (1080, 1920))
    )
    resize_fast(small, (256, 256), 4)
    assert threads == {"MainThread"}
    assert np.array_equal(resize_fast(large, (256, 256), 4), resize_fast(large, (256, 256), 1))
    assert "MainThread" in threads and len(threads) > 1


def test_what_a_call_returned_stays_as_it_was_through_later_calls_of_any_thread():
    rng = np.random.default_rng(4)
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((480, 640), (300, 200), (720, 1280)) * 4]
    expected = [resize_fast(frame, (128, 96), 1).copy() for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda frame: resize_fast(frame, (128, 96), 2), frames))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_bands_are_pillows_filter():
    for pixels, size in ((480, 256), (640, 256), (100, 37), (37, 100)):
        dense = np.zeros((size, pixels))
        for band in bands(pixels, size, 8):
            dense[band.first : band.last, band.low : band.high] = band.weights
        scale = pixels / size
        centres = (np.arange(size) + 0.5) * scale - 0.5
        expected = np.maximum(0, 1 - np.abs(np.arange(pixels) - centres[:, None]) / max(scale, 1))
        np.testing.assert_allclose(dense, expected / expected.sum(axis=1, keepdims=True), atol=1e-7)  # float32
