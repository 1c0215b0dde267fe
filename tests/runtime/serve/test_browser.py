"""The page in a real browser: headless Chromium from the distribution, driven by Playwright, over loopback."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from runtime.engines.sidecar import read_sidecar
from runtime.recipes.book import Standing
from runtime.records.log import Log
from runtime.records.marks import marks
from runtime.serve.changes import Changes
from runtime.sinks.inspection_log import LogSink
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import Trigger
from tests.support.drifting import standing
from tests.support.recipes import TWO, opened
from tests.support.serve_rig import TOKEN, ADelivery, ASource, Rig, serving, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, MONITOR = {"width": 360, "height": 740}, {"width": 1920, "height": 1080}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def looking(browser: Browser, rig: Rig, size: dict[str, int] = MONITOR, **context: Any) -> Iterator[Page]:
    """Open the page; anything that the browser complains of, the content policy's refusals too, fails the test."""
    with browser.new_context(viewport=size, **context) as opened:
        page = opened.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        outside: list[str] = []
        here = f"http://127.0.0.1:{rig.server.address.port}"
        page.on("request", lambda request: None if request.url.startswith(here) else outside.append(request.url))
        page.goto(here)
        yield page
        assert not [text for text in complaints if not text.startswith("Failed to load resource")] and not outside


@contextmanager
def running(rig: Rig, levels: tuple[int, ...] = (30, 40, 35, 50, 45)) -> Iterator[None]:
    """Judge frames all the time, as an inspection does."""
    stop = threading.Event()

    def inspect() -> None:
        while not stop.is_set():
            rig.judge(levels[rig.judged % len(levels)])
            time.sleep(0.02)

    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def picture(page: Page) -> str:
    return page.evaluate("document.getElementById('picture').toDataURL()")


def test_the_page_opens_and_its_picture_changes(tmp_path: Path, browser: Browser):
    with serving(tmp_path) as rig, running(rig), looking(browser, rig) as page:
        expect(page.get_by_role("status").first).to_have_text("Inspecting")
        expect(page.get_by_role("heading", level=1)).to_have_text("tiny")
        expect(page.locator("#no-picture")).to_be_hidden()
        seen = {picture(page)}
        until(lambda: seen.add(picture(page)) or len(seen) >= 4)
        expect(page.locator("#verdict-word")).to_contain_text("Good")
        expect(page.get_by_role("img", name="Live picture of camera:0: good")).to_be_visible()
        expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("Scores of the last .* frames"))
        assert float(page.locator("#fps").inner_text()) > 5
        rows = page.locator("#stages tr")
        expect(rows.first.locator("td").nth(1)).to_have_text(re.compile(r"^\d+\.\d\d$"))


def test_the_page_says_when_a_check_is_due(tmp_path: Path, browser: Browser):
    with opened(tmp_path, TWO) as recipes, serving(tmp_path, recipes=recipes) as rig, looking(browser, rig) as page:
        expect(page.locator("#engine")).to_have_text("low")
        expect(page.locator("#check")).to_be_hidden()
        recipes.checks = lambda: [Standing("low", "", 1200.0)]
        expect(page.locator("#check")).to_have_text("Next check in 20 min")
        recipes.checks = lambda: [Standing("low", "the check of reference parts is too old", None)]
        expect(page.locator("#check")).to_have_text("No verdicts: the check of reference parts is too old")


def test_a_recipe_is_chosen_from_the_list(tmp_path: Path, browser: Browser):
    text = TWO + '[[recipe]]\nname = "number"\nengine = "{folder}/low.onnx"\nthreshold = 1.5\n'
    with opened(tmp_path, text) as recipes, serving(tmp_path, recipes=recipes) as rig, looking(browser, rig) as page:
        expect(page.locator("#recipe-name")).to_have_text("low")
        use = page.get_by_role("button", name="Use this recipe")
        expect(use).to_be_disabled()
        page.get_by_label("Recipe to use").select_option("high")
        use.click()
        expect(page.locator("#recipe-name")).to_have_text("high")
        expect(page.locator("#recipe-said")).to_have_text("high judges from the next frame on.")
        assert recipes.name_in_force() == "high"
        expect(page.get_by_role("heading", level=1)).to_have_text("high")
        expect(page.locator("#method")).to_contain_text("Present threshold 2.000")
        assert recipes.use("number", "a controller", "modbus") == ""
        expect(page.locator("#recipe-name")).to_have_text("number")
        expect(page.get_by_label("Recipe to use")).to_have_value("number")
        page.get_by_label("Threshold to try, as a number").fill("1.2")
        expect(page.get_by_role("button", name="Use this threshold")).to_be_disabled()
        expect(page.locator("#method")).to_contain_text("number has a number of its own")


def test_the_list_has_the_recipes_of_an_inspection_that_was_started_anew(tmp_path: Path, browser: Browser):
    with opened(tmp_path) as recipes, serving(tmp_path, recipes=recipes) as rig:
        port = rig.server.address.port
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}")
            expect(page.locator("#recipe-choice option")).to_have_text(["low", "high"])
            answer = page.request.get(f"http://127.0.0.1:{port}/api/state").json()
            other = {**answer, "run": "another", "recipe": {"name": "<b>cap</b>", "names": ["<b>cap</b>", "plug"]}}
            page.route("**/api/state*", lambda route: route.fulfill(json=other))
            expect(page.locator("#recipe-choice option")).to_have_text(["<b>cap</b>", "plug"])
            expect(page.locator("#recipe-choice")).to_have_value("<b>cap</b>")


@pytest.mark.parametrize("size", [PHONE, MONITOR], ids=["phone", "monitor"])
def test_a_long_name_of_a_recipe_stays_in_its_place(tmp_path: Path, browser: Browser, size: dict[str, int]):
    name = "W" * 64
    text = f'{TWO}[[recipe]]\nname = "{name}"\nengine = "{{folder}}/low.onnx"\nthreshold = 1.5\n'
    with opened(tmp_path, text) as recipes, Log(tmp_path / "i.db") as log:
        recipes.told.append(Changes(log, lambda error: pytest.fail(str(error))).recipe)
        assert recipes.use(name, "me", "test") == ""
        with serving(tmp_path, recipes=recipes, log=log) as rig, looking(browser, rig, size) as page:
            expect(page.locator("#recipe-name")).to_have_text(name)
            expect(page.locator("#method")).to_contain_text(name)
            expect(page.locator("#change-rows tr").first).to_be_visible()
            sections = "[...document.querySelectorAll('section')]"
            wide = f"{sections}.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.id)"
            assert page.evaluate(wide) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_slider_tries_a_threshold_and_only_confirming_writes_it(tmp_path: Path, browser: Browser):
    with serving(tmp_path) as rig:
        for level in (30, 60, 80, 84, 120, 150, 240):  # scores 0.35 0.71 0.94 0.99 | 1.41 1.76 2.82
            rig.judge(level)
        before = read_sidecar(rig.engine)
        with looking(browser, rig) as page:
            expect(page.locator("#effect")).to_have_text("Of the last 7 frames, none would change its verdict.")
            expect(page.get_by_role("button", name="Use this threshold")).to_be_disabled()
            slider = page.get_by_role("slider", name="Threshold to try")
            slider.fill("0.9")
            expect(page.locator("#effect")).to_have_text(
                "Of the last 7 frames, 2 would change: 2 from good to anomalous."
            )
            box = slider.bounding_box()
            assert box is not None
            # by the element, not the page: pictures that come in between may move it
            slider.click(position={"x": 0.999 * box["width"], "y": box["height"] / 2})
            expect(page.locator("#effect")).to_contain_text("3 from anomalous to good")
            page.get_by_label("Threshold to try, as a number").fill("1.5")
            expect(page.locator("#effect")).to_have_text(
                "Of the last 7 frames, 1 would change: 1 from anomalous to good."
            )
            page.get_by_role("button", name="Use this threshold").click()
            confirm = page.get_by_role("dialog", name="Use this threshold?")
            expect(confirm).to_contain_text("1.5 instead of 1.000")
            confirm.get_by_role("button", name="Cancel").click()
            assert read_sidecar(rig.engine) == before and rig.detector.threshold == 1.0
            page.get_by_role("button", name="Use this threshold").click()
            confirm.get_by_role("button", name="Write").click()
            expect(page.locator("#written")).to_have_text("Written. 1.5 decides now.")
            after = read_sidecar(rig.engine)
            assert (after.default_threshold, after.threshold.value) == ("manual", 1.5)
            assert rig.judge(120).result.verdict == "good"
            expect(page.locator("#method")).to_have_text("Present threshold 1.500: set by hand.")
            expect(page.locator("#threshold")).to_have_text("1.500")


def test_two_people_do_not_overwrite_each_other(tmp_path: Path, browser: Browser):
    with serving(tmp_path) as rig, looking(browser, rig) as page:
        rig.judge(30)
        expect(page.locator("#effect")).to_contain_text("none would change")
        page.get_by_label("Threshold to try, as a number").fill("1.5")
        page.get_by_role("button", name="Use this threshold").click()
        page.route("**/api/state*", lambda route: route.abort())  # as if the page had not heard of it yet
        body = {"value": 2.0, "instead_of": 1.0}
        assert rig.ask("/api/threshold", "POST", body, X_Requested_By="cflow-edge").status == 200
        with page.expect_response("**/api/threshold") as response:
            page.get_by_role("dialog").get_by_role("button", name="Write").click()
        assert response.value.status == 409
        expect(page.locator("#written")).to_contain_text("Not written: the threshold is 2 by now")
        assert rig.detector.threshold == 2.0


def test_a_wrong_token_is_refused_and_the_right_one_lets_in(tmp_path: Path, browser: Browser):
    with serving(tmp_path, TOKEN) as rig, running(rig), looking(browser, rig) as page:
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        page.get_by_label("Token").fill("not-the-right-token")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("status").first).to_have_text("Inspecting")
        expect(page.locator("#no-picture")).to_be_hidden()
        assert "cflow_session" not in page.evaluate("document.cookie")  # HttpOnly: no script reads it
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_false_alarm_is_marked_and_undone_in_a_click_each_and_words_stay_words(tmp_path: Path, browser: Browser):
    words = "<img src=x onerror=alert(1)> & 'shadow'"
    with LogSink(Log(tmp_path / "i.db")) as sink, serving(tmp_path, log=sink.log) as rig:
        sink.write(rig.judge(200))
        with looking(browser, rig) as page:
            page.fill("#mark-reason", words)
            page.fill("#mark-name", "<b>Ann</b>")
            page.click("#thumbnails .mark")
            expect(page.locator("#mark-said")).to_have_text("Noted in the log.")
            expect(page.locator("#mark-rows")).to_contain_text(words)
            expect(page.locator("#mark-rows")).to_contain_text("<b>Ann</b>, page, open to all")
            assert page.locator("#mark-rows img, #mark-rows b").count() == 0
            assert [mark["reason"] for mark in marks(tmp_path / "i.db")] == [words]
            page.click("#thumbnails .mark:text('Undo')")
            expect(page.locator("#mark-rows tr")).to_have_count(0)
            expect(page.locator("#thumbnails .mark")).to_have_text("False alarm")


def test_without_a_log_there_is_no_button_and_the_page_says_why(tmp_path: Path, browser: Browser):
    with serving(tmp_path) as rig:
        rig.judge(200)
        with looking(browser, rig) as page:
            expect(page.locator("#thumbnails li")).to_have_count(1)
            expect(page.locator("#marking-off")).to_contain_text("--log FILE.db")
            assert page.locator(".mark:visible, #marking:visible").count() == 0


def test_anomalies_have_thumbnails_that_open(tmp_path: Path, browser: Browser):
    with serving(tmp_path) as rig, looking(browser, rig) as page:
        expect(page.locator("#no-anomaly")).to_be_visible()
        rig.judge(200)
        tile = page.get_by_role("button", name=re.compile("^Anomaly .*frame_000000: score 2.353, threshold 1.000"))
        expect(tile).to_be_visible()
        expect(page.locator("#no-anomaly")).to_be_hidden()
        until(lambda: page.evaluate("document.querySelector('#thumbnails img').naturalWidth") == 48)
        tile.click()
        expect(page.get_by_role("dialog")).to_contain_text("frame_000000")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#verdict-word")).to_contain_text("Anomalous")


def test_what_is_lost_is_seen(tmp_path: Path, browser: Browser):
    with serving(tmp_path, health_after_s=0.5) as rig:
        rig.sources.append(
            ASource("camera:1", state="reconnecting since 12:00:00", dropped=1234, reconnects=3, missing=5)
        )
        rig.deliveries.append(ADelivery("mqtt", 10_000, 7, 2, "connection refused"))
        rig.judge(30)
        rig.judge(30, "camera:1")
        with looking(browser, rig) as page:
            lost = page.get_by_role("row", name=re.compile("camera:1"))
            expect(lost).to_contain_text("Reconnecting since 12:00:00")
            expect(lost).to_contain_text("1,234")
            expect(lost).to_contain_text("5 missing")
            sink = page.get_by_role("row", name=re.compile("mqtt"))
            expect(sink).to_contain_text("connection refused")
            expect(sink.locator("td").nth(2)).to_have_text("7")
            expect(page.locator("#health")).to_contain_text("The last judgement is")
            page.get_by_role("button", name="camera:1").click()
            expect(page.get_by_role("img", name="Live picture of camera:1")).to_be_visible()
            rig.server.close()
            expect(page.locator("#health")).to_have_text("No connection", timeout=15_000)
            page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, MONITOR], ids=["phone", "monitor"])
def test_it_fits_and_can_be_read_and_named(tmp_path: Path, browser: Browser, size: dict[str, int], scheme: str):
    with serving(tmp_path) as rig:
        rig.deliveries.append(
            ADelivery("webhook https://controller.line-7.example:8443/inspections", 10_000, 7, 2, "x" * 90)
        )
        rig.judge(200)
        with looking(browser, rig, size, color_scheme=scheme) as page:
            expect(page.locator("#no-picture")).to_be_hidden()
            expect(page.locator("#thumbnails li")).to_have_count(1)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            unnamed = page.evaluate(
                """[...document.querySelectorAll('button, input, canvas, table th')].filter(
                     (e) => !(e.innerText || e.ariaLabel || e.labels?.length)).map((e) => e.id)"""
            )
            assert unnamed == []
            for name in ("body", ".quiet", "#method", "#verdict-word", "#use", "td[data-state=failing]", "th"):
                assert page.evaluate(CONTRAST, name) >= 4.5, name  # WCAG 2 AA for text


# The contrast ratio of WCAG 2 between an element's colour and the background that it lies on.
CONTRAST = """(name) => {
  const element = document.querySelector(name);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element;
  while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const both = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(parse).map(light);
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


def test_triggers_are_counted_on_the_page(browser: Browser, tmp_path: Path):
    orders = Orders(TriggerOptions(deadline_s=60.0, queue=1))
    with serving(tmp_path, orders=orders) as rig, looking(browser, rig) as page:
        orders.open({"camera:0": "free"}, lambda order, reason: None)
        expect(page.locator("#triggers td")).to_have_text(["0", "0", "0", "0", "\N{EN DASH}"])
        for _ in range(3):
            orders.take(Trigger("", time.monotonic(), "http"))
        expect(page.locator("#triggers td").nth(0)).to_have_text("1")
        expect(page.locator("#triggers td").nth(3)).to_have_text("2")
        expect(page.locator("#triggers td").nth(3)).to_have_attribute("data-state", "failing")
        expect(page.locator("#triggers td").nth(0).locator("small")).to_have_count(0)
        orders.close()
    orders = Orders(TriggerOptions(deadline_s=60.0, each_frame=True, named=True))
    with serving(tmp_path, orders=orders) as rig, looking(browser, rig) as page:
        orders.open({"camera:0": "free"}, lambda order, reason: None)
        assert orders.claim("camera:0", time.monotonic(), 1)
        for part in ("SN1", "SN2", "SN3"):
            assert orders.take(Trigger(part, time.monotonic(), "http")) == ""
        order = orders.claim("camera:0", time.monotonic() + 1.0, 2)
        assert order is not None and order.trigger.part == "SN3"
        notes = page.locator("#triggers td").nth(0).locator("small")
        expect(notes).to_have_text(["1 without an id", "2 ids unused"])
        expect(notes.first).to_have_attribute("data-state", "failing")
        orders.close()
    with serving(tmp_path) as rig, looking(browser, rig) as page:
        expect(page.locator("#engine")).not_to_be_empty()
        expect(page.locator("#trigger-table")).to_be_hidden()


def test_a_drift_is_a_banner_that_is_acknowledged_or_taken_for_normal(browser: Browser, tmp_path: Path):
    with (
        Log(tmp_path / "i.db") as log,
        serving(tmp_path, log=log, drift=standing(log)) as rig,
        running(rig),
        looking(browser, rig, PHONE) as page,
    ):
        banner = page.get_by_label("Drift", exact=True)
        expect(banner).to_contain_text("camera:0: drift of light, from 131.0 to 124.6 grey levels")
        page.get_by_label("Who acknowledges").fill("<b>Ann</b>")
        page.get_by_role("button", name="Acknowledge").click()
        expect(banner).to_contain_text("acknowledged by <b>Ann</b>, page, open to all")
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
        page.get_by_role("button", name="This is the new normal").click()
        expect(banner).not_to_contain_text("drift of light")
        expect(page.locator("#change-rows")).to_contain_text("taken for the new normal")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
