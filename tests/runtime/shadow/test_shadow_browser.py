"""The panel of a candidate in a real browser: looked at, marked, promoted and taken back."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from runtime.records.marks import standing
from runtime.shadow import standing as against
from tests.runtime.serve.test_browser import CHROMIUM, MONITOR, PHONE, browser, looking  # noqa: F401
from tests.support.shadow_rig import BAD, BETWEEN, GOOD, engines, shadowing
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(against, "LEAST", 4)
    engines(tmp_path)
    return tmp_path


@pytest.mark.parametrize("size", [PHONE, MONITOR], ids=["phone", "monitor"])
def test_a_candidate_is_looked_at_marked_promoted_and_taken_back(
    folder: Path,
    browser: Browser,  # noqa: F811
    size: dict[str, int],
):
    with shadowing(folder) as rig, looking(browser, rig.page, size) as page:
        rig.judge(GOOD, BETWEEN, BAD, GOOD)
        panel = page.locator("#shadow")
        expect(panel.locator("#shadow-candidate")).to_have_text("cable2.onnx")
        expect(panel.locator("#shadow-compared")).to_have_text("4")
        expect(panel.locator("#shadow-running-only")).to_have_text("1")
        expect(panel.locator("#shadow-test")).to_contain_text("p = 1.000, that may be chance")
        expect(panel.locator("#shadow-against li")).to_have_count(1)
        picture = panel.get_by_role("button", name=re.compile("Disagreement .* anomalous by cable.onnx only"))
        wait_until(lambda: picture.locator("img").evaluate("image => image.naturalWidth") == 48)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

        page.get_by_role("button", name="Promote cable2.onnx").click()  # there is a reason against it
        dialog = page.locator("#promotion")
        expect(dialog.locator("#promotion-do")).to_be_disabled()
        expect(dialog.locator("#promotion-against li")).to_have_count(1)
        dialog.get_by_role("button", name="Cancel").click()

        panel.get_by_role("button", name="False alarm").click()
        wait_until(lambda: len(standing(rig.log)) == 1)
        expect(panel.locator("#shadow-against li")).to_have_count(0, timeout=15000)
        expect(panel.locator("#shadow-marks")).to_contain_text("of 1 marked false alarms cable2.onnx calls 1 good")
        page.get_by_role("button", name="Promote cable2.onnx").click()
        expect(dialog.locator("#promotion-anyway")).to_be_hidden()
        dialog.get_by_role("button", name="Promote", exact=True).click()
        expect(panel.locator("#shadow-said")).to_have_text("cable2.onnx judges from the next frame on.")
        expect(page.get_by_role("heading", level=1)).to_have_text("cable2")
        page.get_by_role("button", name="Back to cable.onnx").click()
        expect(dialog.locator("#promotion-title")).to_have_text("Go back?")
        dialog.get_by_role("button", name="Go back").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("cable")
        expect(page.get_by_role("button", name="Promote cable2.onnx")).to_be_enabled()


def test_the_word_promotes_in_spite_of_reasons(folder: Path, browser: Browser):  # noqa: F811
    with shadowing(folder) as rig, looking(browser, rig.page) as page:
        rig.judge(BETWEEN)
        page.get_by_role("button", name="Promote cable2.onnx").click()
        promote = page.locator("#promotion-do")
        expect(page.locator("#promotion-against li")).to_have_count(2)
        page.locator("#promotion-word").fill("yes")
        expect(promote).to_be_disabled()
        page.locator("#promotion-word").fill("anyway")
        promote.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("cable2")
        assert rig.recipes.in_force.engine == "cable2.onnx"


def test_without_a_log_the_button_says_why_it_cannot(folder: Path, browser: Browser):  # noqa: F811
    with shadowing(folder, kept=False) as rig, looking(browser, rig.page) as page:
        rig.judge(GOOD)
        button = page.get_by_role("button", name="Promote cable2.onnx")
        expect(button).to_be_disabled()
        expect(button).to_have_attribute("title", re.compile("start with --log"))
