"""Masks of every kind that annotation tools save: the same defect each time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.images.masks import MaskSlice, load_mask, open_array
from runtime.common.errors import UserError

DEFECT = np.random.default_rng(3).random((7, 11)) < 0.3


def two_levels(good: int, defect: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(DEFECT, defect, good).astype(dtype))


def palette(colours: list[int], *, inverted: bool = False) -> Image.Image:
    image = Image.fromarray((DEFECT ^ inverted).astype(np.uint8))
    image.putpalette(colours)
    return image


def rgba(good: tuple[int, int, int, int], defect: tuple[int, int, int, int]) -> Image.Image:
    pixels = np.where(DEFECT[:, :, None], np.array(defect), np.array(good))
    return Image.fromarray(pixels.astype(np.uint8))


SAVED_AS = {
    "black and white": lambda: two_levels(0, 255),
    "one bit": lambda: Image.fromarray(DEFECT),
    "0 and 1": lambda: two_levels(0, 1),
    "dim, on a floor that is not black": lambda: two_levels(40, 200),
    "16 bits": lambda: two_levels(3000, 65535, np.uint16),  # 3000 of 65535 is dark, though it would clip to 255
    "16 bits, 0 and 255": lambda: two_levels(0, 255, np.uint16),
    "16 bits, 0 and 1": lambda: two_levels(0, 1, np.uint16),
    "palette of labels": lambda: palette([0, 0, 0, 64, 0, 0]),  # a dark red: less than half as bright as white
    "palette, white first": lambda: palette([255, 255, 255, 0, 0, 0], inverted=True),
    "RGB": lambda: two_levels(0, 255).convert("RGB"),
    "RGB, painted blue": lambda: rgba((0, 0, 0, 255), (0, 0, 200, 255)).convert("RGB"),
    "grey with alpha": lambda: two_levels(0, 255).convert("LA"),
    "opaque RGBA": lambda: two_levels(0, 255).convert("RGBA"),
    "opaque RGBA, 0 and 1": lambda: two_levels(0, 1).convert("RGBA"),
    "red on nothing": lambda: rgba((0, 0, 0, 0), (255, 0, 0, 255)),
    "red on invisible white": lambda: rgba((255, 255, 255, 0), (255, 0, 0, 128)),
    "black on nothing": lambda: rgba((0, 0, 0, 0), (0, 0, 0, 255)),
}


@pytest.mark.parametrize("make", SAVED_AS.values(), ids=SAVED_AS.keys())
def test_the_defect_is_found_however_the_mask_is_saved(make: Callable[[], Image.Image], tmp_path: Path) -> None:
    make().save(tmp_path / "mask.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), DEFECT)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P"])
def test_a_black_mask_has_no_defect(mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).convert(mode).save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png")
    assert (mask.shape, mask.any()) == ((4, 5), False)


def test_numbered_defects_all_count(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)  # 1 is far below half of 11
    Image.fromarray(labels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), labels > 0)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_soft_edge_is_cut_in_its_middle(alpha: bool, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 52).astype(np.uint8)[None]
    white = np.full((*ramp.shape, 3), 255, np.uint8)
    image = Image.fromarray(np.dstack([white, ramp])) if alpha else Image.fromarray(ramp)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.png"), ramp > 127)


def test_a_frames_mask_is_its_own_part_of_the_stack(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.uint8)
    np.save(tmp_path / "clip.npy", stack)
    np.testing.assert_array_equal(load_mask(MaskSlice(tmp_path / "clip.npy", 2)), stack[2] == 1)
    assert isinstance(open_array(tmp_path / "clip.npy", ndim=3), np.memmap)  # only what is looked at is read


def test_what_is_no_array_of_labels_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.npy"
    with pytest.raises(UserError, match=r"clip\.npy must hold labels; found no such file"):
        open_array(path, ndim=1)
    for content in (b"", b"no array at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"clip\.npy must be a whole \.npy file"):
            open_array(path, ndim=1)
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"1 dimensions of numbers; found float64 \(2, 3\)"):
        open_array(path, ndim=1)
    np.save(path, np.array(["a"]))
    with pytest.raises(UserError, match="of numbers; found <U1"):
        open_array(path, ndim=1)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="whole"):  # never unpickled: that could run code
        open_array(path, ndim=1)
    np.savez(tmp_path / "clip", np.zeros(3))
    (tmp_path / "clip.npz").rename(path)
    with pytest.raises(UserError, match="an archive"):
        open_array(path, ndim=1)
