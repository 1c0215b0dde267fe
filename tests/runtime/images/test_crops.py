import numpy as np
import pytest

from runtime.images.crops import LEAST, MARGIN, MOST, MOST_CROPS, crops_around
from runtime.images.regions import Region


def test_every_box_is_shown_whole_with_a_margin_where_the_frame_has_one():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(40, 5000, 2))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        across, down = (min(int(rng.integers(1, 500)), left) for left in (width - x, height - y))
        (crop,) = crops_around([Region(x, y, across, down, 1.0)], (height, width))
        assert crop.x >= 0 and crop.x + crop.width <= width and crop.y >= 0 and crop.y + crop.height <= height
        assert crop.holds(Region(x, y, across, down, 1.0))
        before, after = x - crop.x, crop.x + crop.width - x - across
        assert before >= min(MARGIN - 1, x) and after >= min(MARGIN - 1, width - x - across)
        assert crop.width >= min(LEAST, width) and crop.height >= min(LEAST, height)
        assert crop.of(np.zeros((height, width, 3), np.uint8)).shape == (crop.height, crop.width, 3)


def test_a_box_as_large_as_the_frame_has_its_middle_shown():
    (crop,) = crops_around([Region(0, 0, 4096, 3000, 2.0)], (3000, 4096))
    assert (crop.width, crop.height) == (MOST, MOST)
    assert (crop.x + crop.width // 2, crop.y + crop.height // 2) == (2048, 1500)


def test_crops_are_few_and_none_twice():
    boxes = [Region(400 * i, 10, 5, 5, 9.0 - i) for i in range(2 * MOST_CROPS)]
    crops = crops_around(boxes, (3000, 400 * len(boxes)))
    assert len(crops) == MOST_CROPS and all(crop.holds(box) for crop, box in zip(crops, boxes, strict=False))
    near = [Region(500, 500, 10, 10, 2.0), Region(530, 470, 10, 10, 1.0)]
    assert len(crops_around(near, (1000, 1000))) == 1 and crops_around([], (1000, 1000)) == []


@pytest.mark.parametrize("shape", [(3, 5), (1, 1)])
def test_a_tiny_frame_is_its_own_crop(shape: tuple[int, int]):
    (crop,) = crops_around([Region(0, 0, 1, 1, 1.0)], shape)
    assert crop.fields() == {"x": 0, "y": 0, "width": shape[1], "height": shape[0]}
