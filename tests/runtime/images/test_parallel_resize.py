"""The resize in strips against Pillow's own, whole."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from runtime.images import parallel_resize as strips
from runtime.images import preprocess
from runtime.images.parallel_resize import resize_in_strips, strip_edges

SIZES = [
    ((480, 640), (256, 256)),
    ((960, 1280), (256, 256)),
    ((1080, 1920), (256, 256)),
    ((1080, 1920), (512, 512)),
    ((720, 1280), (300, 400)),
    ((1000, 1000), (96, 160)),
    ((1024, 1024), (96, 160)),
    ((967, 1283), (256, 256)),  # no row of the result but the first lies at a row of the frame
    ((1000, 600), (1500, 900)),  # larger
    ((900, 1200), (600, 600)),
    ((900, 1200), (450, 600)),
]


def _whole(frame, size):
    return np.array(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _frames(size, rng):
    rows, columns = np.indices(size)
    yield rng.integers(0, 256, (*size, 3), np.uint8)
    yield np.repeat((255 * ((rows + columns) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    yield np.stack([rows % 256, columns % 256, (rows + columns) // 8 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("frame_size", "size"), SIZES)
@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_strips_are_pillows_result_to_the_bit(frame_size, size, cores):
    for frame in _frames(frame_size, np.random.default_rng(0)):
        assert np.array_equal(resize_in_strips(frame, size, cores), _whole(frame, size))


def test_a_part_of_a_larger_picture_and_any_layout_in_memory():
    picture = np.random.default_rng(1).integers(0, 256, (800, 900, 3), np.uint8)
    for frame in (picture[100:740, 50:690], picture[::-1, ::-1], np.asfortranarray(picture), picture[..., ::-1]):
        assert np.array_equal(resize_in_strips(frame, (256, 256), 4), _whole(np.ascontiguousarray(frame), (256, 256)))


@pytest.mark.parametrize(
    ("rows_in", "rows_out", "count", "edges"),
    [
        (480, 256, 2, [0, 128, 256]),
        (1080, 256, 4, [0, 64, 128, 192, 256]),
        (720, 300, 4, [0, 75, 150, 225, 300]),
        (720, 300, 8, [0, 40, 75, 110, 150, 190, 225, 260, 300]),  # every fifth row is one of the frame's
        (487, 256, 4, [0, 256]),
        (480, 256, 1, [0, 256]),
        (480, 256, 0, [0, 256]),
        (4, 8, 8, [0, 2, 4, 6, 8]),
    ],
)
def test_edges_are_whole_rows_of_the_frame(rows_in, rows_out, count, edges):
    found = strip_edges(rows_in, rows_out, count)
    assert found == edges and all(edge * rows_in % rows_out == 0 for edge in found)


def test_small_frames_stay_in_their_thread_and_large_ones_use_the_cores(monkeypatch):
    threads = set()
    real = Image.Image.resize

    def noting(*arguments):
        threads.add(threading.current_thread().name)
        return real(*arguments)

    monkeypatch.setattr(Image.Image, "resize", noting)
    monkeypatch.setattr(preprocess, "available_cores", lambda: 4)
    preprocess.resize(np.zeros((480, 640, 3), np.uint8), (256, 256))
    assert threads == {"MainThread"}
    preprocess.resize(np.zeros((1080, 1920, 3), np.uint8), (256, 256))
    assert "MainThread" in threads and len(threads) > 1
    assert sum(name.startswith("resize") for name in threads) <= strips.MOST_STRIPS - 1


def test_a_child_process_has_threads_of_its_own():
    frame = np.random.default_rng(2).integers(0, 256, (960, 1280, 3), np.uint8)
    expected = resize_in_strips(frame, (256, 256), 4)  # the pool is there when the child is made
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(resize_in_strips(frame, (256, 256), 4), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
