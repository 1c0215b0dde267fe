"""A mask at the map's size: nothing vanishes, and at its own size nothing changes."""

import numpy as np
import pytest

from export.images.masks import resize_mask


@pytest.mark.parametrize("corner", [(0, 0), (1001, 517), (2036, 2036)])
def test_a_small_defect_of_a_large_image_stays(corner: tuple[int, int]) -> None:
    mask = np.zeros((2048, 2048), bool)
    row, column = corner
    mask[row : row + 12, column : column + 12] = True
    small = resize_mask(mask, (64, 64))
    assert 1 <= small.sum() <= 4  # 12 pixels are less than half of one that stands for 32
    assert small[row // 32, column // 32]


def test_shrinking_is_any_of_what_a_pixel_stands_for() -> None:
    mask = np.random.default_rng(0).random((37, 50)) < 0.02
    small = resize_mask(mask, (10, 16))
    expected = np.zeros((10, 16), bool)
    for row, column in zip(*np.nonzero(mask), strict=True):
        # pixel r goes to the i with floor(i h / H) <= r < floor((i + 1) h / H)
        i = max(i for i in range(10) if i * 37 // 10 <= row)
        j = max(j for j in range(16) if j * 50 // 16 <= column)
        expected[i, j] = True
    np.testing.assert_array_equal(small, expected)


def test_at_its_own_size_nothing_changes_and_growing_takes_the_nearest() -> None:
    mask = np.random.default_rng(1).random((9, 7)) < 0.3
    np.testing.assert_array_equal(resize_mask(mask, (9, 7)), mask)
    np.testing.assert_array_equal(resize_mask(mask, (27, 14)), mask.repeat(3, axis=0).repeat(2, axis=1))
