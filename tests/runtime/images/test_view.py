import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.view import FILL, View, ViewOptions

SIZE = (40, 60)  # (height, width) of the camera's frame
TURNS = (0, 90, 180, 270)
MIRRORS = ("", "h", "v")


def _frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def _mask(path: Path, white: tuple[slice, slice], size: tuple[int, int] = SIZE) -> Path:
    mask = np.zeros(size, np.uint8)
    mask[white] = 255
    Image.fromarray(mask).save(path)
    return path


def _by_numpy(image: np.ndarray, roi: tuple[int, int, int, int], rotate: int, flip: str) -> np.ndarray:
    x, y, width, height = roi
    image = np.rot90(image[y : y + height, x : x + width], -rotate // 90)
    return {"": image, "h": image[:, ::-1], "v": image[::-1]}[flip]


def test_rotation_is_clockwise():
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[0, 0] = 255  # top left goes to top right
    assert View(ViewOptions(rotate=90))(frame)[0, -1].tolist() == [255, 255, 255]


def test_without_options_the_frame_is_passed_on():
    frame = _frame()
    assert View()(frame) is frame and View().describe() == {}


@pytest.mark.parametrize(("rotate", "flip"), list(itertools.product(TURNS, MIRRORS)))
def test_region_rotation_and_flip_are_numpys_in_this_order(rotate: int, flip: str):
    roi = (7, 5, 31, 22)
    seen = View(ViewOptions(roi, rotate=rotate, flip=flip))(_frame())
    np.testing.assert_array_equal(seen, _by_numpy(_frame(), roi, rotate, flip))
    assert seen.flags.c_contiguous and seen.base is None  # the frame's memory can go


@pytest.mark.parametrize(("rotate", "flip"), list(itertools.product(TURNS, MIRRORS)))
@pytest.mark.parametrize("roi", [None, (7, 5, 31, 22)])
def test_a_box_goes_back_to_the_very_pixels_of_the_cameras_frame(roi, rotate: int, flip: str):
    view = View(ViewOptions(roi, rotate=rotate, flip=flip))
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[9:15, 10:30] = 255  # x 10, y 9, 20 wide, 6 high
    rows, columns = np.nonzero(view(frame)[:, :, 0])
    box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    assert view.to_camera(box, view(frame).shape[:2]) == (10, 9, 20, 6)


@pytest.mark.parametrize("roi", [(0, 0, 60, 40), (59, 39, 1, 1)])
def test_a_region_may_touch_the_frames_edge(roi: tuple[int, int, int, int]):
    assert View(ViewOptions(roi))(_frame()).shape == (roi[3], roi[2], 3)


@pytest.mark.parametrize("roi", [(0, 0, 61, 40), (0, 1, 60, 40), (60, 0, 1, 1), (100, 100, 5, 5)])
def test_a_region_outside_the_frame_is_refused_with_both_sizes(roi: tuple[int, int, int, int]):
    with pytest.raises(UserError, match=r"must lie within the camera's frame; found a frame of 60x40; at most"):
        View(ViewOptions(roi))(_frame())


def test_a_frame_of_another_size_is_checked_again():
    view = View(ViewOptions((0, 0, 50, 30)))
    view(_frame())
    with pytest.raises(UserError, match="found a frame of 40x20"):
        view(np.zeros((20, 40, 3), np.uint8))


def test_painting_makes_what_is_outside_the_mask_the_same_whatever_is_there(tmp_path: Path):
    inside = (slice(10, 30), slice(20, 50))
    options = ViewOptions((5, 5, 50, 30), _mask(tmp_path / "mask.png", inside), fill=True, rotate=90, flip="h")
    view = View(options)
    mask = np.zeros((*SIZE, 3), bool)
    mask[inside] = True
    expected = _by_numpy(np.where(mask, _frame(), np.array(FILL, np.uint8)), (5, 5, 50, 30), 90, "h")
    np.testing.assert_array_equal(view(_frame()), expected)
    np.testing.assert_array_equal(view(np.where(mask, _frame(), _frame(1))), expected)


def test_without_painting_the_mask_leaves_the_pixels_alone(tmp_path: Path):
    view = View(ViewOptions(mask=_mask(tmp_path / "mask.png", (slice(0, 5), slice(0, 5)))))
    np.testing.assert_array_equal(view(_frame()), _frame())


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path):
    wrong = _mask(tmp_path / "wrong.png", (slice(0, 5), slice(0, 5)), (20, 30))
    with pytest.raises(UserError, match=r"wrong\.png must be as large as the camera's frame; found 30x20 and .* 60x40"):
        View(ViewOptions(mask=wrong))(_frame())
    with pytest.raises(UserError, match="nothing but black; invert it"):
        View(ViewOptions(mask=_mask(tmp_path / "black.png", (slice(0, 0), slice(0, 0)))))
    corner = _mask(tmp_path / "corner.png", (slice(0, 5), slice(0, 5)))
    with pytest.raises(UserError, match="black in the region of interest"):
        View(ViewOptions((30, 20, 10, 10), corner))(_frame())
    with pytest.raises(UserError, match=r"missing\.png"):
        View(ViewOptions(mask=tmp_path / "missing.png"))


def test_a_description_holds_what_was_set(tmp_path: Path):
    mask = _mask(tmp_path / "mask.png", (slice(0, 5), slice(0, 5)))
    assert View(ViewOptions((1, 2, 3, 4), mask, True, 270, "v")).describe() == {
        "roi": [1, 2, 3, 4],
        "mask": "mask.png",
        "mask_fill": True,
        "rotate": 270,
        "flip": "v",
    }
    assert View(ViewOptions(flip="h")).describe() == {"flip": "h"}
