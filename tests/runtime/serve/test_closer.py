"""The page of a tiled engine: a large frame is shown reduced, and each defect at the frame's own pixels."""

import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from runtime.images.tiles import TileGrid
from runtime.records.log import Log
from runtime.records.marks import marks, pictures_of
from runtime.serve import pictures as pictures_room
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame
from tests.runtime.serve.test_browser import CHROMIUM, browser, looking  # noqa: F401
from tests.support.serve_rig import ASource, Rig, serving, until
from tests.support.tiny_engine import write_tiny_engine

GRID = TileGrid((1200, 1800), (512, 512), 64)
SPOTS = ((700, 1500), (100, 60))  # row, column of defects of 6 x 9 pixels (rows x columns)
NOISE = 30.0  # grey levels that JPEG may move a pixel beside a bright spot


def _picture(seed: int, *spots: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(20, 60, (12, 18, 3), np.uint8)
    image = cv2.resize(coarse, GRID.frame[::-1], interpolation=cv2.INTER_LINEAR)
    for place, (row, column) in enumerate(spots):
        image[row : row + 6, column : column + 9] = 240 - 20 * place
    return image


def _judge(rig: Rig, *spots: tuple[int, int], source: str = "camera:0", run: str = "") -> Judgement:
    frame = Frame(_picture(rig.judged, *spots), f"frame_{rig.judged:06d}", rig.judged, time.time())
    rig.judged += 1
    judgement = Judgement(source, frame, rig.detector(frame.image), tiles=GRID.count, run=run)
    rig.server.write(judgement)
    return judgement


def _anomalies(rig: Rig, count: int) -> list[dict[str, Any]]:
    return until(lambda: (found := rig.state()["anomalies"]) and len(found) == count and found)


def test_each_defect_of_a_large_frame_is_served_at_its_own_pixels(tmp_path: Path):
    with serving(tmp_path, engine=write_tiny_engine(tmp_path, "tiled", tiles=GRID)) as rig:
        rig.sources = [ASource("left"), ASource("right")]
        shown = _judge(rig, *SPOTS, source="left")
        _judge(rig, source="right")
        (anomaly,) = _anomalies(rig, 1)
        closer = anomaly["closer"]
        assert (closer["height"], closer["width"]) == GRID.frame and len(closer["crops"]) == 2
        for number, crop in enumerate(closer["crops"], 1):
            (box,) = crop["boxes"]
            assert (box["y"], box["x"]) == SPOTS[number - 1] and (box["height"], box["width"]) == (6, 9)
            answer = rig.ask(f"/anomalies/{anomaly['picture']}/{number}.jpg")
            assert answer.status == 200 and answer.headers["Content-Type"] == "image/jpeg"
            pixels = np.asarray(Image.open(io.BytesIO(answer.body)))
            rows, columns = (slice(crop[a], crop[a] + crop[b]) for a, b in (("y", "height"), ("x", "width")))
            assert pixels.shape[:2] == (crop["height"], crop["width"])
            assert np.abs(pixels.astype(int) - shown.frame.image[rows, columns]).max() <= NOISE
        whole = Image.open(io.BytesIO(rig.ask(f"/anomalies/{anomaly['picture']}.jpg").body))
        assert whole.size == (pictures_room.OVERVIEW_WIDTH, 853)
        for missing in (f"{anomaly['picture']}/3", f"{anomaly['picture']}/0", f"{anomaly['picture'] + 1}/1", "1/x"):
            assert rig.ask(f"/anomalies/{missing}.jpg").status == 404


def test_a_small_frame_has_no_crops_and_one_page_shows_both(tmp_path: Path):
    with serving(tmp_path, engine=write_tiny_engine(tmp_path, "tiled", tiles=GRID)) as rig:
        rig.sources = [ASource("left", live=False), ASource("right", live=False)]
        large = _judge(rig, SPOTS[0], source="left")
        small = replace(large.frame, image=np.full((32, 48, 3), 200, np.uint8))
        untiled = replace(large.result, anomaly_map=np.full((32, 48), 2.0, np.float32))
        rig.server.write(Judgement("right", small, untiled))
        of_small, of_large = _anomalies(rig, 2)
        assert of_small["closer"]["crops"] == [] and len(of_large["closer"]["crops"]) == 1
        assert Image.open(io.BytesIO(rig.ask(f"/anomalies/{of_small['picture']}.jpg").body)).size == (48, 32)


def test_what_the_page_keeps_of_large_frames_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures_room, "CROPS_BYTES", 1)
    with serving(tmp_path, engine=write_tiny_engine(tmp_path, "tiled", tiles=GRID)) as rig:
        rig.sources = [ASource(live=False)]
        for count in range(1, 4):
            _judge(rig, *SPOTS)
            _anomalies(rig, count)
        held = rig.server.pictures._newest["camera:0"]
        until(lambda: not rig.server.pictures._newest["camera:0"][1].has_large_map)
        assert held[1].frame.image.shape[:2] == GRID.frame  # what a mark would keep
        assert [len(one["closer"]["crops"]) for one in rig.state()["anomalies"]] == [2, 0, 0]
        assert not any(anomaly.undrawn for anomaly in rig.server.pictures._anomalies)


def test_a_mark_keeps_a_large_frame_as_it_was_judged(tmp_path: Path):
    log = Log(tmp_path / "log.db")
    engine = write_tiny_engine(tmp_path, "tiled", tiles=GRID)
    with LogSink(log) as sink, serving(tmp_path, engine=engine, log=log) as rig:
        shown = _judge(rig, *SPOTS)
        sink.write(shown)
        (anomaly,) = _anomalies(rig, 1)
        kept = rig.server.marking._kept["anomaly"]
        until(lambda: kept[anomaly["picture"]].packed)
        assert kept[anomaly["picture"]].nbytes < shown.frame.image.nbytes / 2
        said = {"number": anomaly["picture"], "kind": "false_alarm"}
        answer = rig.ask("/api/mark", "POST", said, X_Requested_By="cflow-edge")
        assert answer.status == 200, answer.body
        (mark,) = marks(log.path)
        pixels = np.asarray(Image.open(pictures_of(log.path) / mark["picture"]))
        np.testing.assert_array_equal(pixels, shown.frame.image)
        assert mark["about"]["size"] == list(GRID.frame)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_an_operator_looks_closer_at_each_defect(tmp_path: Path, browser):  # noqa: F811
    engine = write_tiny_engine(tmp_path, "tiled", tiles=GRID)
    with serving(tmp_path, engine=engine) as rig, looking(browser, rig) as page:
        _judge(rig, *SPOTS)
        tile = page.get_by_role("button", name="Anomaly")
        expect(tile.locator("img")).to_have_attribute("src", re.compile(r"/anomalies/\d+/1\.jpg"))
        tile.click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("#closer-place")).to_have_text("1800 \u00d7 1200 pixels, reduced")
        page.screenshot(path=tmp_path / "whole.png")
        dialog.get_by_role("button", name="Look closer at defect 2").click()
        expect(dialog.locator("#closer-place")).to_have_text("Defect 2: 9 \u00d7 6 pixels at 60, 100, peak 2.588")
        image = dialog.locator("#closer-image")
        until(lambda: image.evaluate("i => i.complete && i.naturalWidth") == 256)
        outline, shown = dialog.locator("#closer-boxes span").bounding_box(), image.bounding_box()
        assert outline is not None and shown is not None
        crop = rig.state()["anomalies"][0]["closer"]["crops"][1]
        scale = shown["width"] / crop["width"]
        for side, at in (("x", 60), ("y", 100)):
            assert outline[side] == pytest.approx(shown[side] + scale * (at - crop[side]), abs=1)
        assert outline["width"] == pytest.approx(9 * scale, abs=1)
        page.screenshot(path=tmp_path / "crop.png")
        dialog.get_by_role("button", name="Whole frame").click()
        expect(dialog.get_by_role("button", name="Whole frame")).to_have_attribute("aria-pressed", "true")
        until(lambda: image.evaluate("i => i.complete && i.naturalWidth") == pictures_room.OVERVIEW_WIDTH)
