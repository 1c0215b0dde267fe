"""What is kept of a frame whose map is as large as itself."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np

from runtime.images.parts import Part, joint
from runtime.images.view import View, ViewOptions
from runtime.result import Result
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import LinesSink, as_json
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
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
    go_on = threading.Event()

    class Hanging(LinesSink):
        def write(self, judgement: Judgement) -> None:
            go_on.wait()
            super().write(judgement)

    delivery = Delivery(Hanging(tmp_path / "lines.jsonl"))
    offered = [weakref.ref(one.result.anomaly_map) for one in map(_large, range(20)) if not delivery.offer(one)]
    gc.collect()
    assert sum(held() is not None for held in offered) <= 1  # the loop's last
    go_on.set()
    delivery.close()
    assert delivery.counts().delivered == 20


def test_frames_of_files_wait_for_what_a_slow_sink_has_in_hand():
    go_on, began = threading.Event(), threading.Event()

    class Slow:
        name, queueing, close = "slow", Queueing(max_bytes=4_000_000), staticmethod(lambda: None)

        def write(self, judgement: Judgement) -> None:
            began.set()
            go_on.wait()

    delivery = Delivery(Slow(), patience_s=120.0)
    delivery.offer(_large())  # 3.4 MB
    began.wait()
    waiting = threading.Thread(target=delivery.offer, args=(_large(1),))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and delivery.counts().queued == 1  # in hand, and none beside it
    go_on.set()
    waiting.join()
    delivery.close()
    assert delivery.counts().delivered == 2 and not delivery.counts().lost


def test_a_small_overlay_shows_a_defect_that_interpolation_would_step_over():
    black = np.zeros((1200, 1600, 3), np.uint8)
    anomaly_map = np.zeros((1200, 1600), np.float32)
    anomaly_map[601, 801] = 2.9
    one = judgement(0, 1.5)
    result = Result(anomaly_map, 1.5, "anomalous", 1.0, 1.0, {})
    shown = replace(one, frame=replace(one.frame, image=black), result=result).small_overlay(3.0, 160)
    assert shown.shape == (120, 160, 3)
    assert shown[55:66, 75:86].max() > 200 and shown[:50].max() == 0
