"""What is kept of a frame whose map is as large as itself."""

from dataclasses import replace

import numpy as np

from runtime.images.parts import Part, joint
from runtime.images.view import View, ViewOptions
from runtime.result import Result
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import LinesSink, as_json
from runtime.sinks.judgement import Judgement
from tests.support.judgements import judgement

SIZE = (600, 800)


def _large(index: int = 0) -> Judgement:
    one = judgement(index, 1.5, size=SIZE)
    anomaly_map = np.full(SIZE, 0.2, np.float32)
    anomaly_map[300:304, 500:503] = 1.5
    return replace(one, result=replace(one.result, anomaly_map=anomaly_map), tiles=12)


def test_what_needs_no_picture_keeps_boxes_and_neither_frame_nor_map():
    whole = _large()
    light = whole.without_picture()
    assert whole.nbytes == 600 * 800 * (3 + 4) and light.nbytes < 100
    assert as_json(light) == as_json(whole)
    (box,) = as_json(light)["boxes"]
    assert box == {"x": 500, "y": 300, "width": 3, "height": 4, "peak": 1.5} and as_json(light)["tiles"] == 12
    assert as_json(light.too_late(0.0))["boxes"] == [box]  # a copy of the copy knows them, too
    small = judgement(0, 1.5)
    assert small.without_picture().result.anomaly_map is small.result.anomaly_map
    assert "tiles" not in as_json(small)


def test_a_reduced_map_has_the_whole_ones_boxes():
    whole = _large()
    light = whole.with_map_of(100)
    assert light.result.anomaly_map.shape == (75, 100) and light.boxes == whole.boxes
    assert light.frame.image is whole.frame.image and light.nbytes < whole.nbytes / 2


def test_parts_keep_their_own_boxes():
    result = _large().result
    views = [View(), View(ViewOptions(roi=(100, 50, 800, 600)))]
    parts = tuple(Part(name, result, view, SIZE, 3.0) for name, view in zip("ab", views, strict=True))
    image = np.zeros((700, 1000, 3), np.uint8)
    one = judgement()
    whole = replace(one, frame=replace(one.frame, image=image), result=joint(parts), parts=parts)
    light = whole.without_picture()
    assert as_json(light) == as_json(whole) and light.nbytes < 100
    assert [part["boxes"][0]["x"] for part in as_json(light)["parts"]] == [500, 600]


def test_a_sink_of_lines_that_hangs_holds_no_large_maps(tmp_path):
    delivery = Delivery(LinesSink(tmp_path / "lines.jsonl"))
    held = [_large(index) for index in range(20)]
    for one in held:
        delivery.offer(one)
    assert delivery._bytes < 20 * 100
    delivery.close()
    assert delivery.counts().delivered == 20


def test_a_small_overlay_shows_a_defect_that_interpolation_would_step_over():
    black = np.zeros((1200, 1600, 3), np.uint8)
    anomaly_map = np.zeros((1200, 1600), np.float32)
    anomaly_map[601, 801] = 2.9
    one = judgement(0, 1.5)
    result = Result(anomaly_map, 1.5, "anomalous", 1.0, 1.0, {})
    shown = replace(one, frame=replace(one.frame, image=black), result=result).small_overlay(3.0, 160)
    assert shown.shape == (120, 160, 3)
    assert shown[55:66, 75:86].max() > 200 and shown[:50].max() == 0
