from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.images.caption import drawable, text_width
from runtime.images.overlay import Tile, _blend, contact_sheet, draw, score_colours, thumbnail
from runtime.images.regions import Region, regions_above
from runtime.result import Result, result_of

THRESHOLD, MAXIMUM = 1.0, 3.0


def _result(anomaly_map: np.ndarray, threshold: float = THRESHOLD) -> Result:
    score = float(anomaly_map.max())
    return Result(
        anomaly_map.astype(np.float32), score, "anomalous" if score > threshold else "good", threshold, threshold, {}
    )


def _frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _map_with(*spots: tuple[int, int, float]) -> np.ndarray:
    anomaly_map = np.full((32, 48), 0.1)
    for y, x, value in spots:
        anomaly_map[y, x] = value
    return anomaly_map


@pytest.mark.parametrize(("height", "width"), [(240, 320), (1080, 1920), (40, 60), (600, 90), (1, 1)])
def test_an_overlay_has_the_frames_size_and_leaves_the_frame_alone(height: int, width: int):
    frame = _frame(height, width)
    before = frame.copy()
    picture = draw(frame, _result(_map_with((5, 5, 2.5))), MAXIMUM)
    assert picture.shape == frame.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(frame, before)


def test_a_good_frame_stays_visible_as_it_is():
    frame = _frame(240, 320)
    picture = draw(frame, _result(np.full((32, 48), 0.45)), MAXIMUM)  # below half of the threshold
    np.testing.assert_array_equal(picture[:200], frame[:200])  # the caption stands at the bottom
    assert (picture[-10:] != frame[-10:]).any()


def test_a_defect_is_tinted_and_outlined_where_it_is():
    anomaly_map = _map_with()
    anomaly_map[8:16, 30:40] = 2.8
    grey = np.full((320, 480, 3), 128, np.uint8)
    picture = draw(grey, _result(anomaly_map), MAXIMUM).astype(int)
    inside, outside = picture[120, 350], picture[200, 100]
    assert inside[0] > inside[2] + 40  # red, as the top of the colour map is
    np.testing.assert_array_equal(outside, 128)
    column = picture[:280, 350]  # down through the defect
    outline = np.flatnonzero(column.min(axis=1) > 200)  # white
    np.testing.assert_allclose([outline.min(), outline.max()], [84.5, 154.5], atol=2)  # centres of map rows 8 and 15


def test_colours_mean_scores_and_are_not_stretched_per_frame():
    grey = np.full((320, 480, 3), 128, np.uint8)
    alone = _map_with()
    alone[8:16, 8:16] = 1.6
    beside_worse = alone.copy()
    beside_worse[8:16, 30:40] = 3.0
    one, two = (draw(grey, _result(anomaly_map), MAXIMUM) for anomaly_map in (alone, beside_worse))
    np.testing.assert_array_equal(one[100:140, 100:140], two[100:140, 100:140])


def test_the_smallest_region_is_outlined():
    frame = np.zeros((320, 480, 3), np.uint8)
    picture = draw(frame, _result(_map_with((10, 20, THRESHOLD + 1e-3))), MAXIMUM)
    assert picture[100:110, 200:210].max() > 200  # a dot, though the upsampled map may never exceed the threshold


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1e-9, 3.0, 50.0])
def test_extreme_thresholds_draw(threshold: float):
    picture = draw(_frame(60, 80), _result(_map_with((3, 3, 2.9)), threshold), MAXIMUM)
    assert picture.shape == (60, 80, 3)


def test_scores_outside_the_scale_take_its_ends():
    grey = np.full((320, 480, 3), 128, np.uint8)
    top, above = (draw(grey, _result(np.full((32, 48), value)), MAXIMUM) for value in (3.0, 3.5))
    np.testing.assert_array_equal(top[20:280, 20:460], above[20:280, 20:460])


@pytest.mark.parametrize("width", [320, 3840])
def test_the_caption_is_readable_and_fits(width: int):
    height = width * 9 // 16
    picture = draw(np.zeros((height, width, 3), np.uint8), _result(np.zeros((32, 48))), MAXIMUM)
    rows, columns = np.nonzero(picture.max(axis=2) > 128)
    letters = rows.max() - rows.min()
    assert letters >= 9 and letters >= 0.02 * height  # pixels; about the smallest text that a person reads
    assert columns.max() < width - 1 and columns.min() > 0


@pytest.mark.parametrize(
    ("width", "height", "lines"), [(3840, 2160, 1), (640, 480, 1), (320, 240, 1), (160, 320, 2), (120, 320, 3)]
)
def test_the_caption_breaks_into_lines_before_it_becomes_too_small_to_read(width: int, height: int, lines: int):
    picture = draw(np.full((height, width, 3), 200, np.uint8), _result(np.zeros((32, 48))), MAXIMUM)
    shaded = np.flatnonzero(picture[:, 0, 0] == 50)  # a quarter of 200: the bar, from its top to the picture's end
    assert shaded[-1] == height - 1 and len(shaded) <= 0.35 * height
    letters = max(9, 0.028 * height)
    assert len(shaded) == pytest.approx(2 * letters * lines, abs=1)
    for line in range(lines):  # something is written in every line
        middle = height - len(shaded) + round((line + 0.5) * len(shaded) / lines)
        assert picture[middle - 3 : middle + 3].max() > 200


def test_beside_the_caption_stands_what_the_colours_mean():
    picture = draw(np.full((1080, 1920, 3), 10, np.uint8), _result(np.zeros((32, 48))), MAXIMUM)
    ends = score_colours(np.array([0.0, 1.2, THRESHOLD / 2, (THRESHOLD + MAXIMUM) / 2, MAXIMUM]), THRESHOLD, MAXIMUM)
    right = 1920 - round(0.03 * 1920) - 1
    (rows,) = np.nonzero((np.abs(picture[:, right].astype(int) - ends[-1]) < 12).all(axis=1))
    assert len(rows) >= 10 and rows[0] > 1000  # pixels high, in the bar at the bottom
    row = picture[rows[len(rows) // 2]].astype(int)
    (left,) = np.nonzero((np.abs(row - ends[0]) < 12).all(axis=1) & (np.arange(1920) > 1000))
    width = right - left[0]
    for place, colour in ((0.25, ends[2]), (0.75, ends[3])):  # half way to the threshold, and from it to the maximum
        np.testing.assert_allclose(row[left[0] + round(place * width)], colour, atol=25)  # steps of 8 bits, resampled
    assert (row[left[0] + width // 2 - 2 : left[0] + width // 2 + 3] == 255).any()  # the tick at the threshold


def test_an_outline_is_seen_on_white_too():
    anomaly_map = _map_with()
    anomaly_map[8:16, 30:40] = THRESHOLD + 1e-3
    picture = draw(np.full((320, 480, 3), 255, np.uint8), _result(anomaly_map), MAXIMUM)
    column = picture[60:120, 350].max(axis=1)  # down across the upper edge, at row 84.5
    dark = int(column.argmin())
    assert column[dark] < 50 and column[dark : dark + 4].max() > 200  # black, and white beside it


def test_regions_are_boxes_in_frame_pixels_highest_first():
    anomaly_map = _map_with((2, 3, 1.5), (3, 4, 1.25))  # touching at a corner: one region
    anomaly_map[20:24, 30:40] = 2.0
    found = regions_above(anomaly_map.astype(np.float32), THRESHOLD, (320, 480))
    assert found == [Region(300, 200, 100, 40, 2.0), Region(30, 20, 20, 20, 1.5)]


def test_boxes_are_scaled_outwards_and_stay_inside_the_frame():
    anomaly_map = _map_with((0, 0, 2.0), (31, 47, 1.5)).astype(np.float32)
    first, last = regions_above(anomaly_map, THRESHOLD, (50, 70))  # 50 / 32 and 70 / 48 pixels a cell
    assert first == Region(0, 0, 2, 2, 2.0)
    assert (last.x, last.y, last.x + last.width, last.y + last.height) == (68, 48, 70, 50)
    tiny = regions_above(anomaly_map, THRESHOLD, (5, 5))
    assert all(region.width >= 1 and region.height >= 1 for region in tiny)


def test_there_is_a_region_exactly_where_the_score_exceeds_the_threshold():
    anomaly_map = _map_with((10, 10, 1.0)).astype(np.float32)
    assert regions_above(anomaly_map, 1.0, (320, 480)) == []
    assert len(regions_above(anomaly_map, float(np.nextafter(np.float32(1), np.float32(0))), (320, 480))) == 1


def test_a_contact_sheet_places_tiles_row_by_row(tmp_path: Path):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    tiles = [Tile(np.full((60, 80, 3), colour, np.uint8), f"tile {i}") for i, colour in enumerate(colours)]
    sheet = contact_sheet(tiles, columns=2, tile_width=160)
    assert sheet.shape[1] == 2 * (160 + 8) + 8
    row_height = sheet.shape[0] // 3
    for i, colour in enumerate(colours):
        y, x = i // 2 * row_height + 60, i % 2 * 168 + 80
        np.testing.assert_array_equal(sheet[y, x], colour)
    Image.fromarray(sheet).save(tmp_path / "sheet.png")


@pytest.mark.parametrize(("tiles", "columns"), [([], 2), ([Tile(np.zeros((4, 4, 3), np.uint8), "")], 0)])
def test_a_contact_sheet_of_nothing_is_refused(tiles: list[Tile], columns: int):
    with pytest.raises(ValueError, match="tiles and columns"):
        contact_sheet(tiles, columns)


def test_a_thumbnail_keeps_the_aspect_ratio():
    assert thumbnail(_frame(100, 200), 50).shape == (25, 50, 3)
    assert thumbnail(_frame(1, 1000), 50).shape == (1, 50, 3)


def test_names_that_the_font_cannot_draw_have_question_marks():
    assert drawable("Körper.png") == "K?rper.png" and drawable("part 7\udce4.png") == "part 7?.png"
    assert text_width("Körper", 1) == text_width("K?rper", 1)


def _blended_in_float(frame: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Return what the colours' definition says in float64: the map interpolated, its colour over the frame by alpha."""
    height, width = frame.shape[:2]
    scores = cv2.resize(np.clip(anomaly_map, 0, MAXIMUM).astype(np.float32), (width, height))
    position = np.interp(scores, (0, threshold, MAXIMUM), (0, 0.5, 1))[..., None]
    alpha = np.interp(position, (0.25, 0.5, 1), (0, 0.35, 0.65))
    return frame * (1 - alpha) + score_colours(scores, threshold, MAXIMUM) * alpha


@pytest.mark.parametrize(
    ("size", "map_size"),
    [((1080, 1920), (256, 256)), ((480, 640), (256, 256)), ((97, 61), (32, 48)), ((61, 97), (128, 256))],
)
@pytest.mark.parametrize("threshold", [0.2, 0.67, 2.5])
def test_colours_are_those_of_float_arithmetic(size: tuple[int, int], map_size: tuple[int, int], threshold: float):
    frame, rng = _frame(*size), np.random.default_rng(3)
    anomaly_map = cv2.resize(3.2 * rng.random((8, 8)), map_size[::-1], interpolation=cv2.INTER_CUBIC)
    anomaly_map[:, : map_size[1] // 3] *= np.linspace(0, 1, map_size[1] // 3)  # a part where nothing is seen
    off = np.abs(
        _blend(frame, _result(anomaly_map, threshold), MAXIMUM) - _blended_in_float(frame, anomaly_map, threshold)
    )
    # half a level for each of three roundings and for alpha; a pixel beside a step of the colour map may be one off
    assert off.max() < 5 and (off > 2).mean() < 0.02 and off.mean() < 0.6


@pytest.mark.parametrize("corner", [(0, 0), (0, 47), (31, 0), (31, 47)])
def test_nothing_visible_is_left_out_at_the_edges(corner: tuple[int, int]):
    frame, anomaly_map = _frame(301, 397), _map_with((*corner, 2.9))
    off = np.abs(_blend(frame, _result(anomaly_map), MAXIMUM) - _blended_in_float(frame, anomaly_map, THRESHOLD))
    assert off.max() < 5


@pytest.mark.parametrize("height", [1, 2, 3, 7])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 500])
def test_a_frame_of_a_few_pixels_is_drawn(height: int, width: int) -> None:
    frame = np.full((height, width, 3), 90, np.uint8)
    result = result_of(np.full((16, 16), 1.5, np.float32), 1.5, (1.0, 1.0), {})
    assert draw(frame, result, 3.0).shape == frame.shape
