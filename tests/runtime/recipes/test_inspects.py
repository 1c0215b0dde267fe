"""Several detectors or regions on one frame: one joint verdict, its parts, and boxes in the camera's pixels."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.images.overlay import VERDICT_RGB
from runtime.images.parts import Part, all_boxes, joint
from runtime.images.view import View, ViewOptions
from runtime.inspection import Inspection, InspectionOptions
from runtime.records.read import Query, judgements
from runtime.result import Result
from runtime.sinks.json_lines import as_json
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import Trigger
from tests.support.controlled_source import ControlledSource
from tests.support.recipes import opened, write_recipes
from tests.support.waiting import wait_until

SIDES = """
[[recipe]]
name = "sides"

[[recipe.inspect]]
name = "left"
engine = "{folder}/low.onnx"
roi = "0,0,24,32"

[[recipe.inspect]]
name = "right"
engine = "{folder}/high.onnx"
roi = "24,0,24,32"

[[recipe]]
name = "low"
engine = "{folder}/low.onnx"
"""


def _part(name: str, score: float, threshold: float, reason: str = "", view: ViewOptions | None = None) -> Part:
    verdict = "none" if reason else "anomalous" if score > threshold else "good"
    anomaly_map = np.full((4, 6), 0 if np.isnan(score) else score, np.float32)
    result = Result(anomaly_map, score, verdict, threshold, threshold, {"execute": 2.0}, reason)
    return Part(name, result, View(view), (4, 6), 3.0)


@pytest.mark.parametrize(
    ("parts", "verdict", "score", "reason"),
    [
        ([_part("a", 0.5, 1.0), _part("b", 1.8, 2.0)], "good", 0.9, ""),
        ([_part("a", 1.1, 1.0), _part("b", 1.8, 2.0)], "anomalous", 1.1, ""),
        ([_part("a", 0.5, 1.0, "dark"), _part("b", 1.8, 2.0)], "none", 0.9, "a: dark"),
        ([_part("a", 0.5, 1.0, "dark"), _part("b", 2.2, 2.0)], "anomalous", 1.1, ""),
        ([_part("a", np.nan, 1.0, "dark"), _part("b", np.nan, 2.0, "torn")], "none", np.nan, "a: dark; b: torn"),
        ([_part("a", 3.0, 1.0, "dark"), _part("b", 0.2, 2.0)], "none", 3.0, "a: dark"),
    ],
)
def test_the_joint_verdict_is_anomalous_where_a_part_is_and_good_only_where_all_are(
    parts: list[Part], verdict: str, score: float, reason: str
):
    whole = joint(parts)
    assert (whole.verdict, whole.threshold, whole.reason) == (verdict, 1.0, reason)
    assert whole.image_score == pytest.approx(score, nan_ok=True) and whole.latency_ms == {"execute": 4.0}


def test_a_score_just_above_its_threshold_is_above_one():
    limit = 0.9999999999999999
    whole = joint([_part("a", float(np.nextafter(limit, 2)), limit)])
    assert whole.verdict == "anomalous" and whole.image_score > 1.0


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["", "h", "v"])
def test_boxes_are_in_the_cameras_pixels_whichever_way_a_part_is_seen(rotate: int, flip: str):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[12:16, 20:30] = 255
    view = View(ViewOptions(roi=(10, 5, 32, 24), rotate=rotate, flip=flip))
    seen = view(frame)
    anomaly_map = seen[..., 0].astype(np.float32) / 255 * 3
    result = Result(anomaly_map, 3.0, "anomalous", 1.5, 1.5, {})
    [box] = all_boxes([Part("a", result, view, seen.shape[:2], 3.0)])
    assert (box.x, box.y, box.width, box.height, box.peak) == (20, 12, 10, 4, 2.0)
    back = np.zeros_like(frame)
    view.put_back(back, view.seen(frame))
    inside = np.zeros_like(frame)
    inside[5:29, 10:42] = frame[5:29, 10:42]
    assert (back == inside).all()


def _sides(left: int, right: int) -> np.ndarray:
    image = np.full((32, 48, 3), left, np.uint8)
    image[:, 24:] = right
    return image


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """Words of a run over three pictures, with lines, overlays and a log."""
    (tmp_path / "images").mkdir()
    for name, sides in (("a", (60, 160)), ("b", (60, 200)), ("c", (100, 160))):
        Image.fromarray(_sides(*sides)).save(tmp_path / "images" / f"{name}.png")
    words = ["--recipes", write_recipes(tmp_path, SIDES), "--source", tmp_path / "images"]
    files = ["--output", tmp_path / "out", "--log", tmp_path / "i.db"]
    return [str(word) for word in [*words, *files, "--backend", "onnxruntime", "--threads", 1]]


def test_a_run_has_parts_in_its_lines_its_log_and_its_overlays(line: list[str], tmp_path: Path):
    assert infer.main(line) is None
    lines = [json.loads(text) for text in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    said = [(one["verdict"], [part["verdict"] for part in one["parts"]]) for one in lines]
    assert said == [
        ("good", ["good", "good"]),
        ("anomalous", ["good", "anomalous"]),
        ("anomalous", ["anomalous", "good"]),
    ]
    first, second, third = lines
    assert [part["threshold"] for part in first["parts"]] == [1.0, 2.0] and first["threshold"] == 1.0
    assert first["score"] == pytest.approx(max(3 * 60 / 255, 3 * 160 / 255 / 2), rel=1e-5)
    assert first["boxes"] == [] and second["score"] == pytest.approx(3 * 200 / 255 / 2, rel=1e-5)
    box = {"x": 24, "y": 0, "width": 24, "height": 32, "peak": pytest.approx(second["score"], rel=1e-5)}
    assert second["boxes"] == [box] == second["parts"][1]["boxes"]
    assert third["boxes"][0]["x"] == 0 and third["engine_sha256"].count(", ") == 1
    kept = list(judgements(tmp_path / "i.db", Query(), newest_first=False))
    assert [json.loads(one["parts"]) for one in kept] == [one["parts"] for one in lines]
    assert {one["engine"] for one in kept} == {"low.onnx, high.onnx"}
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "b.png"))
    assert [tuple(overlay[0, x]) for x in (0, 47)] == [VERDICT_RGB["good"], VERDICT_RGB["anomalous"]]


def test_a_region_that_does_not_fit_has_no_verdict_and_the_other_keeps_its_own(tmp_path: Path):
    with opened(tmp_path, SIDES) as recipes:
        source = ControlledSource("cam", False, 50, None)
        source.size = (32, 48)
        small = ControlledSource("small", False, 200, None, size=(32, 24))
        kept: list = []
        views = [replace(one, views=one.views * 2) for one in recipes["sides"].inspects]
        both = type(recipes)([replace(recipes["sides"], inspects=tuple(views))], "sides")
        receiver = type("Kept", (), {"offer": staticmethod(kept.append)})()
        with Inspection([source, small], views[0].detector, [receiver], recipes=both) as inspection:
            inspection.run()
    [good] = [one for one in kept if one.source == "cam"]
    [cut] = [one for one in kept if one.source == "small"]
    assert good.result.verdict == "good"
    assert [part.result.verdict for part in cut.parts] == ["anomalous", "none"] and cut.result.verdict == "anomalous"
    assert "must lie within the camera's frame" in as_json(cut)["parts"][1]["reason"]


@pytest.mark.parametrize("batch", [False, True])
def test_parts_of_a_line_change_between_one_and_several_detectors(tmp_path: Path, batch: bool):
    with opened(tmp_path, SIDES) as recipes:
        source, kept = ControlledSource("cam", True), []
        orders = Orders(TriggerOptions(deadline_s=60.0, queue=100, skip=0))
        receiver = type("Kept", (), {"offer": staticmethod(kept.append)})()
        options = InspectionOptions(batch_cameras=batch)
        detector = recipes["low"].first.detector
        inspection = Inspection([source], detector, [receiver], options, orders=orders, recipes=recipes)
        thread = threading.Thread(target=inspection.run)
        thread.start()
        for number in range(20):
            assert recipes.use(("sides", "low")[number % 2], "me", "test") == ""
            assert orders.take(Trigger(f"SN{number}", time.monotonic(), "http")) == ""
            source.put(128)
            wait_until(lambda wanted=number + 1: len(kept) == wanted)
        inspection.stop()
        source.close()
        thread.join(120)
        inspection.close()
    assert [(one.recipe, len(one.parts), one.result.threshold) for one in kept] == [
        ("sides", 2, 1.0),
        ("low", 0, 1.0),
    ] * 10
    assert all(one.result.verdict == "anomalous" for one in kept)
    late = kept[0].too_late(time.monotonic())
    assert late.result.verdict == "none" and {part["verdict"] for part in as_json(late)["parts"]} == {"none"}
