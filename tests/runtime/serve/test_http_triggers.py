"""Triggers over HTTP: by a real client, through the page's process, to a real engine and back."""

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from prometheus_client import parser

import runtime
from runtime.inspection import Inspection
from runtime.serve.address import Address
from runtime.serve.http_triggers import NOT_TAKEN
from runtime.serve.server import ServeOptions, Server
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import FULL, NO_SOURCE, STOPPED, TWICE, Orders
from tests.support.paths import ROOT
from tests.support.serve_rig import AT_ONCE, TOKEN, Rig, plain, serving, until
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_sources import OnDemand

OURS = {"X_Requested_By": "cflow-edge"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LONG = TriggerOptions(deadline_s=60.0, queue=50)


class Line(Rig):
    """A page with triggers, and the inspection behind it."""

    def __init__(self, server, detector, engine, inspection, cameras, orders):
        super().__init__(server, detector, engine)
        self.inspection, self.cameras, self.orders = inspection, cameras, orders

    def trigger(self, part=None, wait=False, source=None, **headers):
        body = {name: value for name, value in (("part", part), ("source", source)) if value is not None}
        return self.ask(f"/api/trigger?wait={int(wait)}", "POST", body, **(headers or OURS))


def _answers(line):
    with contextlib.suppress(OSError):
        return line.ask("/health").status
    return 0


@pytest.fixture
def line(tmp_path):
    """Return a function that runs a line with cameras that take a picture when they are told to."""
    running = []

    def start(options=LONG, token=None, cameras=1, started=True):
        engine = write_tiny_engine(tmp_path)
        detector = runtime.load(engine, threads=1, backend="onnxruntime")
        orders = Orders(options)
        sources = [OnDemand(f"gig:{number}") for number in range(cameras)]
        inspection = Inspection(sources, detector, orders=orders)
        serve = ServeOptions(Address("127.0.0.1", 0), token, limits=AT_ONCE)
        server = Server(serve, plain(detector, engine), inspection.states, orders=orders)
        inspection.add(server)
        if started:
            server.triggers["http"].start(orders.take)
        thread = threading.Thread(target=inspection.run)
        thread.start()
        running.append((inspection, thread, server, detector))
        line = Line(server, detector, engine, inspection, sources, orders)
        until(lambda: _answers(line), 60)  # the page's process has begun
        return line

    yield start
    for inspection, thread, server, detector in running:
        inspection.stop()
        thread.join(120)
        inspection.close()
        server.close()
        detector.close()


def test_who_waits_gets_the_verdict_of_exactly_that_part(line):
    running = line()
    for number in range(1, 4):
        answer = running.trigger(f"SN{number}", wait=True)
        said = answer.json()
        assert answer.status == 200 and (said["part"], said["verdict"]) == (f"SN{number}", "good")
        [one] = said["answers"]
        assert one["part"] == f"SN{number}" and one["trigger"] == "http" and one["late"] is False
        assert one["score"] == pytest.approx(3 * number / 255, rel=1e-5)


def test_two_hundred_who_wait_at_once_get_their_own(line):
    running = line(replace(LONG, queue=500))
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: running.trigger(f"SN{n}", wait=True).json(), range(200)))
    assert [one["part"] for one in said] == [f"SN{n}" for n in range(200)]
    assert all(one["answers"][0]["part"] == one["part"] for one in said)
    assert len({one["answers"][0]["name"] for one in said}) == 200
    assert running.orders.counts().complete


def test_without_waiting_it_is_taken_and_counted_where_it_has_no_id(line):
    running = line()
    first, second = running.trigger(), running.trigger()
    assert (first.status, second.status) == (202, 202)
    assert [answer.json() for answer in (first, second)] == [{"part": "1"}, {"part": "2"}]
    until(lambda: running.state()["triggers"]["answered"] == 2)


def test_several_sources_answer_together_and_good_needs_all_of_them(line):
    running = line(cameras=2)
    assert running.trigger("one", True, source="gig:0").json()["answers"][0]["source"] == "gig:0"
    running.cameras[1].deaf = {1}
    for _ in range(84):
        assert running.trigger(None, True, source="gig:0").json()["verdict"] == "good"
    running.cameras[1].fired = 100  # its next picture is anomalous
    said = running.trigger("both", wait=True).json()
    assert said["verdict"] == "anomalous"
    assert sorted(answer["source"] for answer in said["answers"]) == ["gig:0", "gig:1"]


def test_a_part_whose_frame_never_comes_is_answered_at_the_deadline(line):
    running = line(replace(LONG, deadline_s=0.2))
    running.cameras[0].deaf = {1}
    said = running.trigger("SN1", wait=True).json()
    assert said["verdict"] == "none" and said["answers"][0]["late"] is True
    assert said["answers"][0]["reason"] == "late: no verdict within 200 ms (no frame of gig:0)"
    health = running.ask("/health")
    assert (health.status, health.json()["reason"]) == (503, "the last part got no verdict")


def test_what_is_refused_has_a_status_of_its_own(line):
    running = line(replace(LONG, queue=1))
    running.cameras[0].deaf = {1}
    assert running.trigger("SN1").status == 202
    refused = [running.trigger("SN1"), running.trigger("SN2"), running.trigger("SN3", source="gig:9")]
    assert [(answer.status, answer.json()["error"]) for answer in refused] == [
        (409, TWICE),
        (429, FULL),
        (404, NO_SOURCE),
    ]
    assert running.state()["triggers"]["refused"] == 3
    with ThreadPoolExecutor(1) as pool:  # who waits is answered when the run ends
        running.orders.options = replace(LONG, queue=5)
        waiting = pool.submit(running.trigger, "SN4", True)
        until(lambda: running.orders.counts().waiting == 2)
        running.inspection.close()
        assert waiting.result(60).json()["answers"][0]["reason"].startswith("stopped: ")
    assert (running.trigger("SN5").status, running.trigger("SN5").json()["error"]) == (503, STOPPED)


def test_what_is_no_trigger_is_refused(line):
    running = line()
    for body in (
        "",
        "SN1",
        "[]",
        "{",
        '{"part": 5}',
        '{"parts": "a"}',
        '{"part": "a\\n"}',
        '{"source": null}',
        "[" * 9000,
    ):
        assert running.ask("/api/trigger", "POST", body, **OURS).status == 400, body
    assert running.orders.counts().taken == 0


def test_an_action_needs_the_token_and_our_page_or_program(line):
    running = line(token=TOKEN)
    assert running.trigger("SN1", **OURS).status == 401
    assert running.trigger("SN1", Cookie="none").status == 403
    assert running.trigger("SN1", **BEARER).status == 202
    assert running.ask("/api/trigger", "GET").status in (401, 405)
    until(lambda: running.orders.counts().answered == 1)


def test_a_page_without_triggers_says_so(tmp_path, line):
    with serving(tmp_path) as rig:
        answer = rig.ask("/api/trigger", "POST", {}, **OURS)
        assert (answer.status, answer.json()["error"]) == (404, NOT_TAKEN)
        assert rig.state()["triggers"] is None and b"cflow_triggers" not in rig.ask("/metrics").body
    assert line(started=False).trigger("SN1").status == 404


def test_counts_and_answer_times_are_in_report_and_metrics(line):
    running = line(replace(LONG, queue=1))
    for _ in range(5):
        running.trigger(wait=True)
    counts = running.state()["triggers"]
    assert (counts["taken"], counts["answered"], counts["late"], counts["lost"]) == (5, 5, 0, 0)
    assert 0 < counts["p50_ms"] <= counts["p99_ms"]
    families = {f.name: f for f in parser.text_string_to_metric_families(running.ask("/metrics").body.decode())}
    by_result = {sample.labels["result"]: sample.value for sample in families["cflow_triggers"].samples}
    none = dict.fromkeys(("late", "refused", "lost", "unnamed", "unused"), 0)
    assert by_result == {"taken": 5, "answered": 5, **none}
    quantiles = {sample.labels["quantile"]: sample.value for sample in families["cflow_answer_seconds"].samples}
    assert quantiles["0.99"] == pytest.approx(counts["p99_ms"] / 1e3)


def test_a_line_that_pauses_is_well_until_its_camera_is_lost(line):
    running = line()
    assert running.ask("/health").status == 200  # nothing was asked for yet
    running.cameras[0].state = "reconnecting since 12:00 (unplugged)"
    health = running.ask("/health")
    assert (health.status, health.json()["reason"]) == (503, "a source is lost")


def test_a_folder_is_judged_part_by_part_by_the_command(tmp_path):
    engine = write_tiny_engine(tmp_path)
    (tmp_path / "images").mkdir()
    for number, grey in enumerate((10, 200, 60)):
        Image.fromarray(np.full((24, 36, 3), grey, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    words = ["--engine", engine, "--source", tmp_path / "images", "--serve", "0", "--trigger", "http"]
    words += ["--deadline", "60000", "--json-file", tmp_path / "lines.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.infer", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    page = next(line for line in process.stderr if line.startswith("page: ")).split()[1]
    for part, verdict in (("A", "good"), ("B", "anomalous"), ("C", "good")):
        body, headers = json.dumps({"part": part}).encode(), {"X-Requested-By": "cflow-edge"}
        with urllib.request.urlopen(urllib.request.Request(f"{page}api/trigger?wait=1", body, headers)) as answer:
            assert json.load(answer)["verdict"] == verdict
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "\n3 triggers: 3 answered, 0 late, 0 lost; trigger to answer " in out
    assert "1.png  2.3529  anomalous  part B  " in out
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(line["part"], line["name"]) for line in lines] == [("A", "0.png"), ("B", "1.png"), ("C", "2.png")]
