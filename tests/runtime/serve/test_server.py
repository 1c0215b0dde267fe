"""The page's HTTP side, by a real client over loopback."""

import io
import json
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client import parser

import runtime
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import read_sidecar, write_sidecar
from runtime.records import database
from runtime.records.log import Log
from runtime.records.read import audit
from runtime.records.run import RunRecord
from runtime.serve.address import Address
from runtime.serve.limits import Limits
from runtime.serve.server import ServeOptions, Server
from runtime.triggers.trigger import Trigger
from tests.support.serve_rig import TAPS, TOKEN, ADelivery, Answer, ASource, Rig, plain, serving, until

OURS = {"X_Requested_By": "cflow-edge"}
TCP_CLOSED = b"\x07"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def jpeg(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def test_the_report_has_what_was_judged(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.sources.append(
            ASource("camera:1", state="reconnecting since 12:00:00", dropped=4, reconnects=2, incomplete=6, missing=5)
        )
        rig.deliveries.append(ADelivery("webhook", 5, 3, 1, "timed out"))
        judged = [rig.judge(level) for level in (30, 60, 200)]
        state = rig.state()
        assert state["counts"] == {"good": 2, "anomalous": 1, "none": 0}
        assert [row[3] for row in state["points"]] == [j.result.image_score for j in judged]  # the very same bits
        assert [row[5] for row in state["points"]] == [0, 0, 1]
        assert state["points"][-1][4] == 1.0 and state["points"][0][1] == judged[0].frame.captured_s
        assert state["sources"][1]["state"] == "reconnecting since 12:00:00"
        assert (state["sources"][1]["dropped"], state["sources"][1]["reconnects"]) == (4, 2)
        assert (state["sources"][1]["incomplete"], state["sources"][1]["missing"]) == (6, 5)
        assert state["sinks"] == [
            {"name": "webhook", "delivered": 5, "lost": 3, "failed": 1, "last_error": "timed out"}
        ]
        assert set(state["latency_ms"]) == set(judged[0].result.latency_ms)
        assert state["threshold"]["value"] == 1.0 and state["threshold"]["maximum"] == TAPS
        later = rig.ask("/api/state?since=2").json()
        assert [row[0] for row in later["points"]] == [3] and later["run"] == state["run"]
        assert "minutes" not in later and rig.ask("/api/state?since=3&minutes=1").json()["minutes"]
        assert rig.ask("/api/state?since=-1").status == 400


def test_live_pictures_are_drawn_only_while_somebody_looks(tmp_path: Path):
    with serving(tmp_path) as rig:
        for _ in range(50):
            rig.judge(40)
        rig.state()  # a page that is open without a live view draws nothing either
        time.sleep(0.3)
        assert rig.server.pictures.drawn == 0
        first = rig.ask("/live/0.jpg")
        assert (first.status, first.headers["X-Frame-Number"]) == (200, "50")
        # JPEG at quality 80 is within a few grey levels of a flat area
        assert abs(int(jpeg(first.body)[5, 10, 0]) - 40) < 6
        drawn = rig.server.pictures.drawn
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(rig.ask, "/live/0.jpg?after=50")
            time.sleep(0.2)
            assert not waiting.done() and rig.server.pictures.drawn == drawn
            rig.judge(90)
            second = waiting.result(10)
        assert second.headers["X-Frame-Number"] == "51" and rig.server.pictures.drawn == drawn + 1
        assert rig.ask("/live/7.jpg").status == 404 and rig.ask("/live/0.jpg?after=x").status == 400


def test_who_waits_for_a_picture_that_never_comes_is_told_so(tmp_path: Path):
    with serving(tmp_path, limits=Limits(long_poll_s=0.2)) as rig:
        assert rig.ask("/live/0.jpg").status == 204


def test_the_last_anomalies_of_a_camera_are_events(tmp_path: Path):
    with serving(tmp_path) as rig:
        for at_s, level in ((0, 100), (0.1, 250), (0.2, 180), (0.5, 20), (1.0, 120), (5.0, 140)):
            rig.judge(level, at_s=1e9 + at_s)
        events = until(lambda: len(found := rig.state()["anomalies"]) == 2 and found)
        assert [(e["frames"], e["name"]) for e in events] == [(1, "frame_000005"), (4, "frame_000001")]
        assert events[1]["score"] == pytest.approx(TAPS * 250 / 255, rel=1e-6)  # the engine computes in float32
        assert until(lambda: rig.state()["anomalies"][1]["picture"] == 2)  # the highest, though others came before it
        picture = rig.ask("/anomalies/2.jpg")
        assert (
            picture.status == 200
            and picture.headers["Content-Type"] == "image/jpeg"
            and jpeg(picture.body).shape == (32, 48, 3)
        )
        assert rig.ask("/anomalies/999.jpg").status == 404


def test_anomalous_images_of_a_folder_are_parts_of_their_own_and_bounded(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.sources[0] = ASource("parts", live=False)
        for i in range(3):
            rig.judge(200, "parts")
            until(lambda i=i: len(rig.state()["anomalies"]) == i + 1)
        for _ in range(100):  # faster than they can be drawn
            rig.judge(200, "parts")
        until(lambda: not rig.server.pictures._next_anomaly())
        kept = rig.server.pictures._anomalies
        assert len(kept) == 24 and 1 <= len(rig.state()["anomalies"]) <= 24
        assert rig.state()["anomalies"][0]["picture"] == 103


def test_a_confirmed_threshold_goes_into_the_sidecar_and_into_the_running_detector(tmp_path: Path):
    with serving(tmp_path) as rig:
        before = read_sidecar(rig.engine)
        assert rig.judge(100).result.verdict == "anomalous"
        answer = rig.ask("/api/threshold", "POST", {"value": 1.5, "instead_of": 1.0}, **OURS)
        assert (answer.status, answer.json()) == (200, {"value": 1.5})
        after = read_sidecar(rig.engine)
        assert (after.default_threshold, after.threshold.value, after.threshold.method) == (
            "manual",
            1.5,
            "set by hand",
        )
        assert after == replace(
            before, default_threshold="manual", thresholds={**before.thresholds, "manual": after.threshold}
        )
        result = rig.judge(100).result
        assert (result.verdict, result.threshold, result.map_threshold) == ("good", 1.5, 1.5)
        assert rig.state()["threshold"] == {
            "value": 1.5, "method": "set by hand", "maximum": 3.0, "overridden": False, "fixed": ""
        }  # fmt: skip


def test_a_maps_own_threshold_stays(tmp_path: Path):
    with serving(tmp_path) as rig:
        sidecar = read_sidecar(rig.engine)
        own = replace(sidecar.threshold, map_value=2.25)
        write_sidecar(rig.engine, replace(sidecar, thresholds={"good_quantile": own}))
    with runtime.load(rig.engine) as detector:
        options = ServeOptions(Address("127.0.0.1", 0))
        with Server(options, plain(detector, rig.engine)) as server:
            again = Rig(server, detector, rig.engine)
            assert again.ask("/api/threshold", "POST", {"value": 0.5, "instead_of": 1.0}, **OURS).status == 200
        assert (detector.threshold, detector.map_threshold) == (0.5, 2.25)
        assert read_sidecar(rig.engine).threshold.map_value == 2.25


def test_a_threshold_of_the_command_line_is_said_to_be_one(tmp_path: Path):
    with serving(tmp_path, threshold=0.7) as rig:
        status = rig.state()["threshold"]
        assert (status["value"], status["method"], status["overridden"]) == (0.7, "given on the command line", True)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"value": 1.5, "instead_of": 0.9}, 409, "is 1 by now"),
        ({"value": 3.5, "instead_of": 1.0}, 422, "from 0 to 3"),
        ({"value": 3, "instead_of": 1.0}, 422, "must be below 3"),
        ({"value": -0.1, "instead_of": 1.0}, 422, "from 0 to 3"),
        ({"value": float("nan"), "instead_of": 1.0}, 400, "send"),
        ({"value": "much", "instead_of": 1.0}, 400, "send"),
        ({"value": 1.5}, 400, "send"),
        ("value=1.5", 400, "send"),
    ],
)
def test_what_is_no_threshold_changes_nothing(tmp_path: Path, body: object, status: int, words: str):
    with serving(tmp_path) as rig:
        before = rig.engine.with_suffix(".json").read_bytes()
        answer = rig.ask("/api/threshold", "POST", body, **OURS)
        assert answer.status == status and words in answer.body.decode()
        assert rig.engine.with_suffix(".json").read_bytes() == before and rig.detector.threshold == 1.0


def test_a_sidecar_of_another_engine_is_not_written(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.engine.write_bytes(rig.engine.read_bytes() + b"\0")
        answer = rig.ask("/api/threshold", "POST", {"value": 1.5, "instead_of": 1.0}, **OURS)
        assert answer.status == 422 and "must be one of the files" in answer.json()["error"]
        assert rig.detector.threshold == 1.0


def test_actions_need_more_than_a_visit(tmp_path: Path):
    body = {"value": 1.5, "instead_of": 1.0}
    with serving(tmp_path) as rig:
        here = f"http://127.0.0.1:{rig.server.address.port}"
        assert rig.ask("/api/threshold", "POST", body).status == 403  # what a form of another site can send
        assert rig.ask("/api/threshold", "POST", body, Origin="http://evil.example", **OURS).status == 403
        assert rig.ask("/api/threshold", "POST", body, Origin="null", **OURS).status == 403
        assert rig.ask("/api/threshold", "POST", body, Sec_Fetch_Site="cross-site", **OURS).status == 403
        assert rig.ask("/api/threshold?value=1.5&instead_of=1", **OURS).status == 405  # nothing by GET
        assert rig.ask("/logout").status == 405
        assert rig.detector.threshold == 1.0
        fine = {"Origin": here, "Sec_Fetch_Site": "same-origin", **OURS}
        assert rig.ask("/api/threshold", "POST", body, **fine).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "192.168.0.7:8080", "localhost.evil.example"])
def test_a_foreign_name_for_this_machine_is_refused(tmp_path: Path, host: str):
    with serving(tmp_path) as rig:
        for path in ("/", "/api/state", "/health", "/login"):
            assert rig.ask(path, Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_this_machines_own_names_are_taken(tmp_path: Path, host: str):
    with serving(tmp_path) as rig:
        assert rig.ask("/api/state", Host=host).status == 200


def test_without_the_token_there_is_the_login_form_and_nothing_else(tmp_path: Path):
    with serving(tmp_path, TOKEN) as rig:
        rig.judge(200)
        front = rig.ask("/")
        assert (front.status, front.headers["Location"]) == (303, "/login")
        for path in ("/api/state", "/live/0.jpg", "/anomalies/1.jpg", "/metrics", "/page.js", "/nothing"):
            assert rig.ask(path).status == 401
        assert rig.ask("/api/threshold", "POST", {"value": 1.5, "instead_of": 1.0}, **OURS).status == 401
        assert b"password" in rig.ask("/login").body and rig.ask("/page.css").status == 200
        assert rig.detector.threshold == 1.0


def test_a_token_opens_a_session(tmp_path: Path):
    with serving(tmp_path, TOKEN, limits=Limits(wrong_token_s=0.01)) as rig:
        wrong = rig.ask("/login", "POST", "token=correct-horse-battery-stapl")
        assert wrong.status == 401 and b"not the token" in wrong.body and "Set-Cookie" not in wrong.headers
        assert rig.ask("/login", "POST", f"token={TOKEN}", Origin="http://evil.example").status == 403
        right = rig.ask("/login", "POST", f"token={TOKEN}")
        assert (right.status, right.headers["Location"]) == (303, "/")
        cookie = right.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        session = cookie.partition(";")[0]
        assert rig.ask("/", Cookie=session).status == 200 and rig.ask("/api/state", Cookie=session).status == 200
        body = {"value": 1.5, "instead_of": 1.0}
        assert rig.ask("/api/threshold", "POST", body, Cookie=session).status == 403
        assert rig.ask("/api/threshold", "POST", body, Cookie=session, **OURS).status == 200
        assert rig.ask("/api/state", Cookie=session[:-1] + ("0" if session[-1] != "0" else "1")).status == 401
        out = rig.ask("/logout", "POST", Cookie=session, **OURS)
        assert out.status == 204 and "Max-Age=0" in out.headers["Set-Cookie"]


def test_machines_send_the_token_as_bearer(tmp_path: Path):
    with serving(tmp_path, TOKEN) as rig:
        assert rig.ask("/metrics", **BEARER).status == 200
        assert rig.ask("/metrics", Authorization=f"Bearer {TOKEN}x").status == 401
        assert rig.ask("/metrics", Authorization=f"Basic {TOKEN}").status == 401
        assert rig.ask("/metrics", Authorization="Bearer ").status == 401
        body = {"value": 1.5, "instead_of": 1.0}
        assert rig.ask("/api/threshold", "POST", body, **BEARER).status == 200  # no browser adds this by itself


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path):
    with serving(tmp_path) as rig:
        for host in ("0.0.0.0", "::", "192.168.0.7", "cabinet-7"):
            with pytest.raises(UserError, match="needs a token"):
                Server(ServeOptions(Address(host, 0)), plain(rig.detector, rig.engine))
        with Server(ServeOptions(Address("0.0.0.0", 0), TOKEN), plain(rig.detector, rig.engine)) as server:
            open_to_all = Rig(server, rig.detector, rig.engine)
            assert open_to_all.ask("/api/state", Host="cabinet-7:8080").status == 401
            assert open_to_all.ask("/api/state", Host="cabinet-7:8080", **BEARER).status == 200


def test_a_port_in_use_is_one_clear_line(tmp_path: Path):
    with serving(tmp_path) as rig, pytest.raises(UserError, match=r"listen on http://127\.0\.0\.1:.*in use"):
        Server(ServeOptions(rig.server.address), plain(rig.detector, rig.engine))


def test_every_answer_keeps_browsers_from_doing_more(tmp_path: Path):
    with serving(tmp_path, TOKEN) as rig:
        for path in ("/", "/login", "/page.css", "/api/state", "/nothing", "/health"):
            headers = rig.ask(path).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_the_pages_files_name_nothing_outside(tmp_path: Path):
    with serving(tmp_path) as rig:
        for path in ("/", "/page.css", "/page.js"):
            text = rig.ask(path).body.decode()
            assert "//cdn" not in text and "http://" not in text and "https://" not in text
            assert "style=" not in text and "<script>" not in text and " onclick" not in text  # the policy forbids them


def test_health_is_for_the_watchdog(tmp_path: Path):
    with serving(tmp_path, TOKEN, health_after_s=0.3) as rig:
        before = rig.ask("/health")
        assert before.status == 503 and before.json()["reason"] == "no frame has been judged yet"
        rig.judge(10)
        fine = rig.ask("/health")
        assert fine.status == 200 and fine.json()["status"] == "ok" and fine.json()["reason"] == ""
        stale = until(lambda: (answer := rig.ask("/health")).status == 503 and answer)
        assert "s old, more than 0.3 s" in stale.json()["reason"]
        assert set(stale.json()) == {"status", "reason", "last_judgement_age_s"}  # and nothing else without a token
        rig.judge(10)
        assert rig.ask("/health").status == 200


def test_one_camera_of_two_that_is_not_judged_is_bad_health_and_only_who_is_signed_in_learns_which(tmp_path: Path):
    sources = [ASource("left"), ASource("/secret/watched"), ASource("/secret/files", live=False, state="file")]
    with serving(tmp_path, TOKEN, health_after_s=1.0) as rig:
        rig.sources[:] = sources
        rig.judge(10, "left")
        assert rig.ask("/health").status == 503
        rig.judge(10, "/secret/watched")
        until(lambda: rig.ask("/health").status == 200)

        def ill() -> Answer | None:
            rig.judge(10, "left")
            answer = rig.ask("/health")
            return answer if answer.status == 503 else None

        answer = until(ill)
        assert "s old, more than 1 s" in answer.json()["reason"] and b"secret" not in answer.body
        whole = until(lambda: not (health := rig.state(Authorization=f"Bearer {TOKEN}")["health"])["ok"] and health)
        assert whole["reason"].endswith(" of /secret/watched")


def test_metrics_are_prometheus_text(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.deliveries.append(ADelivery("webhook", 5, 3, 1))
        rig.sources[0].dropped, rig.sources[0].state = 7, "reconnecting"
        rig.sources[0].incomplete, rig.sources[0].missing = 3, 2
        judged = [rig.judge(level) for level in (30, 60, 200)]
        families = parser.text_string_to_metric_families(rig.ask("/metrics").body.decode())
        samples = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
        assert samples["cflow_frames_total", "camera:0", "good"] == 2
        assert samples["cflow_frames_total", "anomalous", "camera:0"] == 1
        assert samples["cflow_score", "camera:0"] == judged[-1].result.image_score
        assert samples["cflow_threshold",] == 1
        assert samples["cflow_source_up", "camera:0"] == 0 and samples["cflow_source_dropped_total", "camera:0"] == 7
        assert samples["cflow_source_incomplete_total", "camera:0"] == 3
        assert samples["cflow_source_missing_total", "camera:0"] == 2
        assert samples["cflow_sink_delivered_total", "webhook"] == 5
        assert samples["cflow_sink_lost_total", "webhook"] == 3
        assert samples["cflow_sink_failed_total", "webhook"] == 1
        assert samples["cflow_stage_seconds_count", "total"] == 3
        total_s = sum(j.result.latency_ms["total"] for j in judged) / 1e3
        assert samples["cflow_stage_seconds_sum", "total"] == pytest.approx(total_s)
        for bound in ("0.001", "0.01", "5.0"):  # cumulative, as the format wants them
            below = sum(j.result.latency_ms["total"] <= 1e3 * float(bound) for j in judged)
            assert samples[("cflow_stage_seconds_bucket", *sorted((bound, "total")))] == below
        assert 0 <= samples["cflow_last_judgement_age_seconds",] < 60


def test_clients_that_do_not_read_keep_nobody_waiting(tmp_path: Path):
    with serving(tmp_path) as rig:
        rig.judge(40)
        rig.state()
        greedy = []
        for _ in range(20):
            client = rig.connect()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /live/0.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)  # and reads nothing
            greedy.append(client)
        for level in range(100):
            rig.judge(level)
        assert rig.ask("/live/0.jpg").status == 200
        assert rig.state()["counts"]["good"] + rig.state()["counts"]["anomalous"] == 101
        for client in greedy[:10]:  # gone in the middle of an answer
            client.close()
        rig.judge(10)
        assert rig.ask("/live/0.jpg?after=101").headers["X-Frame-Number"] == "102"
        for client in greedy:
            client.close()
    assert rig.server.troubles.counts() == {}


def test_twenty_clients_share_one_picture(tmp_path: Path):
    with serving(tmp_path) as rig, ThreadPoolExecutor(20) as pool:
        rig.judge(40)
        assert rig.ask("/live/0.jpg").status == 200  # so that the first picture is drawn by now
        waiting = [pool.submit(rig.ask, "/live/0.jpg?after=1") for _ in range(20)]
        time.sleep(0.3)
        drawn = rig.server.pictures.drawn
        rig.judge(90)
        bodies = {future.result(15).body for future in waiting}
        assert len(bodies) == 1 and rig.server.pictures.drawn == drawn + 1


def test_connections_are_bounded_and_the_watchdog_is_always_answered(tmp_path: Path):
    with serving(tmp_path, limits=Limits(connections=8)) as rig:
        rig.judge(10)
        until(lambda: rig.ask("/health").status == 200)
        open_one = rig.connect()
        open_one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert open_one.recv(1000).startswith(b"HTTP/1.1 200")
        many = []
        for _ in range(30):
            many.append(rig.connect())
            assert rig.ask("/health").status == 200
        until(lambda: sum(not _is_closed(client) for client in many) == 6)  # two have asked something whole
        assert not any(map(_is_closed, many[-6:]))  # the oldest gave way
        assert not _is_closed(open_one)
        for client in (*many, open_one):
            client.close()


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_silent_and_stuck_connections_are_ended(tmp_path: Path):
    soon = Limits(idle_s=0.6, stuck_s=0.6, sweep_s=0.05, reading_s=0.6)
    with serving(tmp_path, limits=soon) as rig:
        for judgement in [rig.judge(10)] * 3000:  # a report of 200 KB, of which 60 fit into no socket's buffers
            rig.server.write(judgement)
        head = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n"
        begun = {
            "silent": b"",
            "half a head": head,
            "half a second head": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + head,
            "half a body": b"POST /api/threshold HTTP/1.1\r\nHost: localhost\r\nX-Requested-By: cflow-edge\r\n"
            b"Content-Length: 50\r\n\r\n{",
            "takes nothing": (head + b"\r\n") * 60,
        }
        clients = {name: rig.connect() for name in begun}
        for name, client in clients.items():
            client.sendall(begun[name])
        for name, client in clients.items():
            client.settimeout(10)
            if name == "takes nothing":
                until(lambda client=client: client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == TCP_CLOSED)
            else:
                said = b"".join(iter(lambda client=client: client.recv(65536), b""))
                assert (b" 408 " in said) == (name == "half a body") and said.count(b"HTTP/1.1 200") <= 1
            client.close()


def test_closing_ends_both_threads_and_frees_the_port(tmp_path: Path):
    before = threading.active_count()
    with serving(tmp_path) as rig, ThreadPoolExecutor(2) as pool:
        rig.judge(40)
        rig.state()
        waiting = pool.submit(rig.ask, "/live/0.jpg?after=1")  # a browser that looks on
        time.sleep(0.2)
        rig.server.close()
        rig.server.close()
        rig.server.write(rig.judge(40))  # comes too late, and harms nobody
        assert isinstance(waiting.exception(15), OSError) or waiting.result().status != 200
    until(lambda: threading.active_count() <= before)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", rig.server.address.port))


def test_a_defect_is_counted_said_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with serving(tmp_path) as rig:
        rig.sources = [object()]  # has none of a source's attributes
        assert [rig.ask("/api/state").status for _ in range(3)] == [500] * 3
        rig.sources = [ASource()]
        assert rig.ask("/api/state").status == 200
        assert b'cflow_page_errors_total{kind="request"} 3.0' in rig.ask("/metrics").body
    assert capsys.readouterr().err.count("web page, request: AttributeError") == 1


def test_json_only_holds_numbers(tmp_path: Path):
    with serving(tmp_path) as rig:
        assert rig.state()["fps"] == 0 and rig.state()["points"] == []
        json.loads(rig.ask("/api/state").body, parse_constant=lambda name: pytest.fail(name))


def test_who_set_a_threshold_is_in_the_audit_and_the_next_start_adds_nothing(tmp_path: Path):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with Log(tmp_path / "i.db") as log, serving(tmp_path, TOKEN, log=log) as rig:
        log.begin(RunRecord(threshold=1.0, map_threshold=1.0))
        body = {"value": 2.0, "instead_of": 1.0}
        assert rig.ask("/api/threshold", "POST", body, **bearer).status == 200
        assert rig.ask("/api/audit").status == 401
        said = rig.ask("/api/audit", **bearer).json()
        assert said["kept"] is True
        [threshold] = [change for change in said["changes"] if change["what"] == "threshold"]
        assert (threshold["old"], threshold["new"]) == ("1", "2")
        assert threshold["who"] == "page, signed in with the token" and threshold["origin"] == "127.0.0.1"
        sidecar = {change["what"]: change["new"] for change in said["changes"]}["sidecar"]
        assert sidecar == sha256_of(tmp_path / "tiny.json")
        before = list(audit(tmp_path / "i.db"))
        with runtime.load(rig.engine, backend="onnxruntime", threads=1) as again:
            of_run = {name: again.described()[name] for name in ("threshold", "map_threshold", "sidecar_sha256")}
            log.begin(RunRecord(**of_run))
        assert list(audit(tmp_path / "i.db")) == before


def test_a_threshold_counts_though_the_audit_cannot_be_written_which_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with Log(tmp_path / "i.db") as log, serving(tmp_path, log=log) as rig:
        with closing(sqlite3.connect(log.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            body = {"value": 2.0, "instead_of": 1.0}
            assert rig.ask("/api/threshold", "POST", body, X_Requested_By="cflow-edge").status == 200
        assert rig.detector.threshold == 2.0 and rig.server.troubles.counts() == {"audit": 1}
        assert rig.ask("/api/audit").json() == {"kept": True, "changes": []}


def test_the_last_parts_are_shown_with_the_time_their_answer_took(tmp_path: Path):
    with serving(tmp_path) as rig:
        one = rig.judge(30)
        for number in range(30):
            rig.server.write(replace(one, trigger=Trigger(f"SN-{number}", one.judged_s - 0.02, "http")))
        parts = rig.state()["parts"]
        assert [part["part"] for part in parts] == [f"SN-{number}" for number in range(29, 9, -1)]
        assert parts[0]["answer_ms"] == pytest.approx(20) and parts[0]["verdict"] == "good"
        assert rig.ask("/api/audit").json() == {"kept": False, "changes": []}
