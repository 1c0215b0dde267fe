"""How frames are cut: what the words of the command line mean, and what `auto` makes of the smallest defect."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import PLAIN
from runtime.images.tiles import TileGrid
from train.data.tile_size import KEPT_PIXELS, TileRequest, defect_pixels, frame_size, parse_tiles


def images(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(sizes))]
    for path, (height, width) in zip(paths, sizes, strict=True):
        Image.fromarray(np.zeros((height, width), np.uint8)).save(path)
    return paths


def test_below_32_tiles_are_counted_and_from_32_on_measured() -> None:
    assert parse_tiles("512", 16) == (512, 512)
    assert parse_tiles("512x640", 16) == (512, 640)
    assert parse_tiles("3x4", 16) == (3, 4)
    assert parse_tiles("32X48", 16) == (32, 48)


@pytest.mark.parametrize("text", ["", "x", "3", "31", "0x4", "3x64", "64x3", "64x64x64", "-64", "٣٢", "99999", "64.5"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--tiles must be 512"):
        parse_tiles(text, 16)


def test_sides_that_are_no_multiple_of_the_coarsest_stride_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"multiples of 16.*found 500x641; --tiles 496x640"):
        parse_tiles("500x641", 16)


def test_frames_have_the_images_own_size_or_the_median_and_are_never_reduced_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = images(tmp_path, *[(300, 500)] * 3)
    assert frame_size("auto", alike, 16, PLAIN) == (300, 500)
    assert capsys.readouterr().err == ""
    assert frame_size("auto", images(tmp_path, (300, 500), (310, 520), (1000, 200)), 16, PLAIN) == (310, 500)
    assert "different sizes, and are resized to 310x500" in capsys.readouterr().err
    assert frame_size("400x640", alike, 16, PLAIN) == (400, 640)
    with pytest.raises(UserError, match="at least 2 good"):
        frame_size("auto", [], 16, PLAIN)


def test_a_grid_of_tiles_covers_the_frame_with_as_many_as_were_asked_for(tmp_path: Path) -> None:
    frame = images(tmp_path, (1536, 2048))
    for text, overlap in (("3x4", None), ("1x1", 0), ("2x5", 64), ("7x9", 16)):
        tile, grid = TileRequest(text, "auto", 16, overlap).choose(frame, PLAIN)
        assert grid is not None and grid.tile == tile and tile[0] % 16 == tile[1] % 16 == 0
        assert f"{len(grid.tops)}x{len(grid.lefts)}" == text
        assert overlap is None or grid.overlap == overlap
    with pytest.raises(UserError, match=r"must be cut into 31x31 tiles .* multiples of 16.*found"):
        TileRequest("31x31", "auto", 16, 0).choose(images(tmp_path, (200, 200)), PLAIN)


def test_tiles_share_an_eighth_where_nothing_is_said_and_must_fit(tmp_path: Path) -> None:
    frame = images(tmp_path, (300, 500))
    assert TileRequest("128x256", "auto", 16).choose(frame, PLAIN)[1] == TileGrid((300, 500), (128, 256), 16)
    for request in (TileRequest("512", "auto", 16), TileRequest("304x128", "auto", 16)):
        with pytest.raises(UserError, match="tiles must lie within the frame"):
            request.choose(frame, PLAIN)
    with pytest.raises(UserError, match="overlap of tiles must be 0 to 42"):
        TileRequest("128", "auto", 16, 43).choose(frame, PLAIN)


@pytest.mark.parametrize(
    ("defect", "reduced"),
    [
        ("3px", (3000, 4096)),
        ("8px", (3000, 4096)),
        ("15.9px", (3000, 4096)),
        ("16px", (1500, 2048)),
        ("0.8mm", (750, 1024)),
    ],
)
def test_auto_reduces_as_far_as_the_smallest_defect_keeps_its_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], defect: str, reduced: tuple[int, int]
) -> None:
    pixel = "0.025mm" if defect.endswith("mm") else None
    request = TileRequest("auto", "auto", 16, smallest_defect=defect, pixel_size=pixel)
    tile, grid = request.choose(images(tmp_path, (3000, 4096)), PLAIN)
    assert grid == TileGrid(reduced, (512, 512), 64) and tile == (512, 512)
    factor = 3000 / reduced[0]
    pixels = defect_pixels(defect, pixel)
    assert pixels / factor >= min(pixels, KEPT_PIXELS)
    said = capsys.readouterr().err
    assert f"has {pixels:g} pixels of a frame of 3000x4096, and keeps {pixels / factor:.3g}" in said


def test_auto_cuts_no_tiles_where_all_of_a_reduced_frame_fits_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = TileRequest("auto", "auto", 16, smallest_defect="64px")
    assert request.choose(images(tmp_path, (3000, 4000)), PLAIN) == ((368, 496), None)
    assert "no tiles are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"tiles": "auto"}, "needs the smallest defect"),
        ({"tiles": "auto", "smallest_defect": "5px", "size": "512"}, "chooses the frames' size itself"),
        ({"tiles": "auto", "smallest_defect": "5"}, "must be a length such as 5px"),
        ({"tiles": "auto", "smallest_defect": "0px"}, "must be a length"),
        ({"tiles": "auto", "smallest_defect": "0.2mm"}, "needs --pixel-size"),
        ({"tiles": "auto", "smallest_defect": "5px", "pixel_size": "1mm"}, "for a defect in mm"),
        ({"tiles": "auto", "smallest_defect": "1mm", "pixel_size": "5px"}, "must be a length such as 0.05mm"),
        ({"tiles": "512", "smallest_defect": "5px"}, "what --tiles auto chooses by"),
        ({"tiles": "512", "pixel_size": "1mm"}, "what --tiles auto chooses by"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_image_is_looked_at(given: dict[str, str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        TileRequest(**{"size": "auto", "stride": 16, **given})


def test_lengths_are_in_pixels_or_by_the_size_of_one() -> None:
    assert defect_pixels("5px", None) == 5
    assert defect_pixels("0.2mm", "50um") == pytest.approx(4)
    assert defect_pixels("120um", "0.03mm") == pytest.approx(4)
