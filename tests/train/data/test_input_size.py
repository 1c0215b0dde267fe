"""The input size that `auto` chooses: the images' shape, the budget's pixels, multiples of the stride."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import PLAIN
from train.data.input_size import check_size, choose_size, coarsest_stride, parse_size, size_of_shape


def images(folder: Path, *sizes: tuple[int, int], orientation: int | None = None) -> list[Path]:
    """Write an image of every (width, height); return their paths."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    paths = [folder / f"{number}.jpg" for number in range(len(sizes))]
    for path, (width, height) in zip(paths, sizes, strict=True):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, exif=exif)
    return paths


@pytest.mark.parametrize("budget", [128, 256, 512])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("shape", [0.05, 0.2, 0.36, 0.75, 1.0, 4 / 3, 16 / 9, 2.77, 6.0, 40.0])
def test_every_shape_has_the_budgets_pixels_in_multiples_of_the_stride(shape: float, stride: int, budget: int) -> None:
    height, width = size_of_shape(shape, budget, stride)
    smallest = max(32, 4 * stride)
    assert height % stride == width % stride == 0
    assert min(height, width) >= smallest
    assert 0.7 * budget**2 <= height * width <= 1.2 * budget**2
    longest = (budget / smallest) ** 2
    if 1 / longest < shape < longest:
        assert width / height == pytest.approx(shape, rel=0.5 * stride * (1 / height + 1 / width) + 0.1)
    else:
        assert min(height, width) == smallest and (width - height) * (shape - 1) >= 0


def test_square_images_stay_as_they_were() -> None:
    assert {size_of_shape(1.0, 256, stride) for stride in (4, 8, 16, 32)} == {(256, 256)}


def test_the_median_shape_of_upright_images_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = images(tmp_path, (1024, 370), (1000, 370), (40, 400), (1040, 370), (1024, 360))
    stride = coarsest_stride("resnet18", ("layer1", "layer3"))
    assert (stride, choose_size("auto", paths, stride, PLAIN)) == (16, (160, 416))
    said = capsys.readouterr().err
    assert "size 160x416 (height x width): the images are 2.77 times as wide as high" in said
    assert "multiples of 16" in said
    assert choose_size("auto:512", paths, stride, PLAIN) == size_of_shape(1024 / 370, 512, 16)
    assert choose_size("96", paths, stride, PLAIN) == parse_size("96") == (96, 96)


@pytest.mark.parametrize(("orientation", "size"), [(1, (160, 416)), (6, (416, 160)), (8, (416, 160)), (3, (160, 416))])
def test_a_camera_that_was_held_upright_is_turned(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    assert choose_size("auto", images(tmp_path, (1024, 370), orientation=orientation), 16, PLAIN) == size


@pytest.mark.parametrize("text", ["auto:", "auto:16", "auto:x", "autos", "automatic:512", "0", "auto:512x256"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--size"):
        check_size(text)


@pytest.mark.parametrize("text", ["auto:99999", "auto:4097", "16384", "64x1000000", "9" * 5000, "auto:" + "9" * 5000])
def test_a_size_that_no_checkpoint_may_have_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--size .*(pixels|16384)"):
        check_size(text)
