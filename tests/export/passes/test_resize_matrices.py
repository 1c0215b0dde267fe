"""The constant matrices of the training resize against Pillow, and against the filter's definition in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from export.passes.resize_matrices import FIXED_POINT, repeated_rows, resize_matrix, split_into_bands

# down and up, odd and prime sides, single pixels, no change
LENGTHS = [(1920, 256), (1080, 256), (1280, 320), (721, 97), (7, 3), (5, 1), (1, 1), (1, 9), (3, 7), (64, 96), (50, 50)]


def naive_matrix(inputs, outputs):
    """tri((j + 1/2 - c) / f) over every pixel, exactly."""
    scale = Fraction(inputs, outputs)
    support = max(scale, Fraction(1))
    rows = []
    for i in range(outputs):
        centre = (i + Fraction(1, 2)) * scale
        weights = [max(Fraction(0), 1 - abs(j + Fraction(1, 2) - centre) / support) for j in range(inputs)]
        rows.append([float(weight / sum(weights)) for weight in weights])
    return np.array(rows)


@pytest.mark.parametrize(("inputs", "outputs"), [(61, 13), *LENGTHS[4:]])
def test_the_matrix_is_the_filter_by_its_definition(inputs, outputs):
    found = resize_matrix(inputs, outputs)
    np.testing.assert_allclose(found, naive_matrix(inputs, outputs), rtol=0, atol=0.501 / FIXED_POINT)  # rounded once
    assert (found >= 0).all()


@pytest.mark.parametrize(("inputs", "outputs"), LENGTHS)
def test_one_pass_is_pillows_to_the_bit(inputs, outputs):
    """An image whose other side keeps its size goes through one pass of Pillow's only."""
    image = np.random.default_rng(inputs).integers(0, 256, (40, inputs), dtype=np.uint8)
    levels = np.floor(image @ resize_matrix(inputs, outputs).T + 0.5)  # exact: 30 bits of products, 53 of float64
    across = Image.fromarray(image).resize((outputs, 40), Image.Resampling.BILINEAR)
    down = Image.fromarray(np.ascontiguousarray(image.T)).resize((40, outputs), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(levels, np.asarray(across))
    np.testing.assert_array_equal(levels.T, np.asarray(down))


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (121, 77)])
@pytest.mark.parametrize("target", [(256, 256), (96, 64), (512, 384)])
def test_width_then_height_is_pillows_resize_to_the_bit(size, target):
    image = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8)
    wide = np.floor(image @ resize_matrix(size[1], target[1]).T + 0.5)
    found = np.floor(resize_matrix(size[0], target[0]) @ wide + 0.5)
    wanted = np.asarray(Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR)).astype(float)
    # Pillow 13 takes the height first in some portrait images: never more than a level away
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if size[0] > 200 else 1)


@pytest.mark.parametrize(("inputs", "outputs"), LENGTHS)
@pytest.mark.parametrize("count", [1, 3])
def test_bands_hold_the_whole_matrix(inputs, outputs, count):
    matrix = resize_matrix(inputs, outputs)
    bands = split_into_bands(matrix, min(count, outputs))
    whole = np.zeros_like(matrix)
    for band in bands:
        whole[band.first_output : band.first_output + len(band.weights), band.inputs] += band.weights
    np.testing.assert_array_equal(whole, matrix)
    if count == 3 and inputs > 1000:
        assert sum(band.weights.size for band in bands) < 0.4 * matrix.size


@pytest.mark.parametrize(("inputs", "outputs"), LENGTHS)
def test_repeated_rows_step_to_the_same_matrix(inputs, outputs):
    phases = outputs // np.gcd(inputs, outputs)
    rows = repeated_rows(inputs, outputs, phases)
    steps, taps = outputs // phases, rows.weights.shape[1]
    stride = inputs // steps
    padded = np.zeros((outputs, rows.before + inputs + rows.after))
    for step in range(steps):
        padded[step * phases : (step + 1) * phases, step * stride : step * stride + taps] = rows.weights
    found = padded[:, rows.before : rows.before + inputs] / rows.shares_inside[:, None]
    np.testing.assert_allclose(found, resize_matrix(inputs, outputs), rtol=0, atol=2 / FIXED_POINT)  # two roundings


def test_impossible_sizes_are_refused():
    for sizes in [(0, 4), (4, 0), (-1, 4)]:
        with pytest.raises(ValueError, match="at least 1 pixel"):
            resize_matrix(*sizes)
    with pytest.raises(ValueError, match="does not repeat every 3"):
        repeated_rows(1920, 256, 3)
