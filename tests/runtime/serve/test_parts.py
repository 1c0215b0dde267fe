"""What the page is made of, each part by itself."""

import argparse
import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold
from runtime.recipes.book import Recipes
from runtime.recipes.recipe import Recipe
from runtime.result import Result
from runtime.serve import history as history_module
from runtime.serve.access import SESSION_S, Access, same_origin
from runtime.serve.address import Address, host_of, is_loopback, read_token
from runtime.serve.arguments import add_arguments, server_from
from runtime.serve.health import health
from runtime.serve.history import MINUTES, MOST_STAGES, RECENT, History
from runtime.serve.live import AT_ONCE, Live, Picture, now_s
from runtime.serve.pictures import KEPT, PENDING, Pictures
from runtime.serve.status import SinkStatus, SourceStatus, with_own_names
from runtime.serve.troubles import Troubles
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Frame
from tests.support.paths import ROOT
from tests.support.serve_rig import TOKEN, until
from tests.support.tiny_engine import write_tiny_engine


def judged(score: float, at_s: float = 0.0, source: str = "a", index: int = 0, **latency_ms: float) -> Judgement:
    verdict = "anomalous" if score > 1 else "good"
    result = Result(np.full((4, 6), score, np.float32), score, verdict, 1.0, 1.0, latency_ms)
    return Judgement(source, Frame(np.zeros((16, 24, 3), np.uint8), f"f{index}", index, at_s), result)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback", "url"),
    [
        ("8080", "127.0.0.1", 8080, True, "http://127.0.0.1:8080/"),
        ("localhost:80", "127.0.0.1", 80, True, "http://127.0.0.1:80/"),
        ("127.0.0.2:1", "127.0.0.2", 1, True, "http://127.0.0.2:1/"),
        ("[::1]:8080", "::1", 8080, True, "http://[::1]:8080/"),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False, "http://0.0.0.0:8080/"),
        ("[::]:0", "::", 0, False, "http://[::]:0/"),
        ("cabinet-7:65535", "cabinet-7", 65535, False, "http://cabinet-7:65535/"),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int, loopback: bool, url: str):
    address = Address.parse(text)
    assert address == Address(host, port) and address.loopback == loopback and address.url() == url


@pytest.mark.parametrize("text", ["", "web", "65536", "-1", ":8080", "host:", "host:8o80", "[]:80", "8080 "])
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(UserError, match=r"\[HOST:\]PORT"):
        Address.parse(text)


def test_only_this_machines_own_names_are_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "localhost.evil.example", "evil.example", "10.0.0.1", "")))
    assert [host_of(h) for h in ("a:1", "a", "[::1]:80", "[::1]", "1.2.3.4:5")] == ["a", "a", "::1", "::1", "1.2.3.4"]
    for no_host in (
        "",
        ":80",
        "a:",
        "a:b",
        "a:80:80",
        "[::1",
        "::1",
        "[::1]x",
        "a@b",
        "localhost:80@b",
        "a/b",
        "a b",
        "[]",
    ):
        assert host_of(no_host) == ""


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, {"CFLOW_TOKEN": "another-token-entirely"}) == TOKEN
    assert read_token(None, {"CFLOW_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with a space in it", "schlüssel-schlüssel", "tab\tin-the-middle"]
)
def test_a_token_that_is_easily_guessed_or_mistyped_is_refused(tmp_path: Path, token: str):
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    with pytest.raises(UserError, match="token") as error:
        read_token(file, {})
    assert not token or token not in str(error.value)  # it may be a real one with a slip
    with pytest.raises(UserError, match="token"):
        read_token(None, {"CFLOW_TOKEN": token})
    with pytest.raises(UserError, match="must hold a token"):
        read_token(tmp_path / "none", {})


def test_a_session_ends_and_belongs_to_its_token():
    now = [1e9]
    access = Access(TOKEN, lambda: now[0])
    session = access.new_session()
    assert access.session_left_s(session) == SESSION_S
    end, _, signature = session.partition(".")
    for forged in (
        "",
        ".",
        "x.y",
        f"{int(end) + 1}.{signature}",
        f"{end}.",
        f"{end}.{signature[:-1]}",
        f"ä.{signature}",
        f"{end}.\udcff",
        f"\ud800.{signature}",
    ):
        assert access.session_left_s(forged) == 0
    assert Access(TOKEN, lambda: now[0]).session_left_s(session) > 0  # a restart signs nobody out
    assert Access(TOKEN + "x", lambda: now[0]).session_left_s(session) == 0
    now[0] += SESSION_S
    assert access.session_left_s(session) == 0


def test_a_page_without_a_token_takes_no_token_for_one():
    access = Access(None)
    assert access.open and not access.is_token("") and not access.is_bearer("Bearer ")
    assert access.session_left_s(access.new_session()) == 0
    assert Access(TOKEN).is_bearer(f"bearer {TOKEN}") and not Access(TOKEN).is_bearer(TOKEN)
    assert not Access(TOKEN).is_token("ä" * 20) and not Access(TOKEN).is_bearer("Bearer \udcff")


@pytest.mark.parametrize(
    ("origin", "site", "same"),
    [
        (None, None, True),
        ("http://box:80", "same-origin", True),
        ("http://BOX:80", None, True),
        (None, "none", True),
        ("http://box", None, False),
        ("http://evil.example", None, False),
        ("null", None, False),
        ("http://box:80", "cross-site", False),
        (None, "same-site", False),
        ("http://[", None, False),
        ("http://a]b", None, False),
        ("http://\u2100", None, False),
    ],
)
def test_same_origin(origin: str | None, site: str | None, same: bool):
    assert same_origin(origin, "box:80", site) == same


def test_the_history_stays_bounded_and_exact():
    history = History()
    scores = np.random.default_rng(0).uniform(0, 2, RECENT + 500).tolist()
    for i, score in enumerate(scores):
        history.add(judged(score, at_s=60.0 * i, execute=score, **{f"stage{i}": 1.0}))
    points = history.points_after(0)
    assert [point[3] for point in points] == scores[-RECENT:] and points[-1][0] == len(scores)
    assert [p[0] for p in history.points_after(len(scores) - 2)] == [len(scores) - 1, len(scores)]
    assert history.points_after(len(scores)) == [] and history.points_after(10**9) == []
    bad = sum(score > 1 for score in scores)
    assert history.counts() == {"good": len(scores) - bad, "anomalous": bad, "none": 0}
    minutes = history.minutes()
    assert len(minutes) == MINUTES and minutes[-1] == (
        60 * (len(scores) - 1),
        scores[-1],
        scores[-1],
        1,
        scores[-1] > 1,
    )
    assert len(history.histograms()) == MOST_STAGES
    newest = scores[-history_module.LATENCIES :]
    assert history.percentiles_ms()["execute"] == pytest.approx(np.percentile(newest, (50, 95, 99)).tolist())
    counts, total_s = history.histograms()["execute"]
    below_ms = np.histogram(np.array(scores), np.array([-np.inf, *np.array(history_module.BUCKETS_S) * 1e3, np.inf]))[0]
    assert counts == below_ms.tolist() and total_s == pytest.approx(sum(scores) / 1e3)


def test_minutes_hold_lowest_and_highest_though_cameras_come_late_and_clocks_are_set_back():
    history = History()
    for at_s, score in (
        (60, 0.5),
        (70, 0.1),
        (119, 1.5),
        (121, 0.7),
        (118, 0.9),
        (130, 0.2),
        (100_000, 0.3),
        (50, 0.4),
    ):
        history.add(judged(score, at_s))
    assert history.minutes() == [
        (60, 0.1, 1.5, 3, 1),
        (120, 0.2, 0.9, 3, 0),  # with the one that came late
        (99_960, 0.3, 0.3, 1, 0),
        (0, 0.4, 0.4, 1, 0),
    ]


def test_frames_per_second_are_those_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(history_module.time, "monotonic", lambda: now[0])
    history = History()
    assert history.fps() == 0 and history.age_s() is None
    for _ in range(101):
        now[0] += 0.04
        history.add(judged(0.1))
    assert history.fps() == pytest.approx(25) and history.age_s() == 0
    now[0] += 10
    assert history.fps() == 0 and history.age_s() == 10


def test_health():
    assert not health(None, 5).ok and health(5.0, 5).ok
    assert health(5.01, 5).reason == "the last judgement is 5.0 s old, more than 5 s"


def test_what_waits_to_be_drawn_is_bounded(monkeypatch: pytest.MonkeyPatch):
    drawing = threading.Event()
    monkeypatch.setattr(Pictures, "_jpeg", lambda *_: b"jpeg" if drawing.wait(10) else b"")
    pictures = Pictures(3.0, lambda source: False, lambda error: None)
    for i in range(10_000):
        pictures.offer(i, judged(2.0, index=i))
    held = [anomaly for anomaly in pictures._anomalies if anomaly.undrawn]
    assert len(pictures._anomalies) == KEPT and len(held) <= PENDING
    assert held[-1].number == 9999
    drawing.set()
    pictures.close()
    pictures.close()


def test_two_cameras_that_are_watched_have_their_turns():
    pictures = Pictures(3.0, lambda source: True, lambda error: None)
    pictures.close()  # drawn from here, one by one
    drawn = []
    for number in range(1, 9):
        for source in ("a", "b"):
            pictures.offer(number, judged(0.1, source=source))
            pictures.live(source, number - 1)
        pictures._draw_live()
        drawn += [source for source, picture in pictures._live.items() if picture.number == number]
    assert drawn == ["a", "b"] * 4


def test_a_picture_that_cannot_be_drawn_is_told_and_the_next_one_drawn(monkeypatch: pytest.MonkeyPatch):
    errors: list[Exception] = []
    pictures = Pictures(3.0, lambda source: False, errors.append)
    bad = judged(2.0)
    object.__setattr__(bad.result, "anomaly_map", None)
    pictures.offer(1, bad)
    until(lambda: errors)
    pictures.offer(2, judged(2.0))
    until(lambda: [anomaly.number for anomaly in pictures.anomalies()] == [2])
    pictures.close()


def test_names_are_told_apart_and_defaults_read():
    class File:
        name, live, dropped = "parts", False, 0

    assert SourceStatus.of(File()) == SourceStatus("parts") and SourceStatus.of(File()).up
    status = SourceStatus("a", state="reconnecting")
    assert SourceStatus.of(status) is status and not status.up and SourceStatus("parts", state="file").up
    sinks = with_own_names(
        [SinkStatus("webhook", 1, 0, 0), SinkStatus("mqtt", 2, 0, 0), SinkStatus("webhook", 3, 0, 0)]
    )
    assert [sink.name for sink in sinks] == ["webhook", "mqtt", "webhook (2)"]


def test_each_kind_of_trouble_is_said_once(capsys: pytest.CaptureFixture[str]):
    troubles = Troubles()
    for _ in range(3):
        troubles.add("request", ValueError("two\nlines"))
    troubles.add("server", "gone")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "ValueError: two lines" in lines[0] and "server: gone" in lines[1]
    assert troubles.counts() == {"request": 3, "server": 1}


def test_a_detector_takes_another_threshold_whole(tmp_path: Path):
    """The verdict and the threshold beside it belong together, whenever another thread changes it."""
    limits = (Threshold(0.5, "low"), Threshold(2.0, "high", map_value=1.5))
    pairs = {(limit.value, limit.for_map) for limit in limits}
    engine = write_tiny_engine(tmp_path, size=(4, 4), threshold=0.5)
    stop = threading.Event()
    with runtime.load(engine, backend="onnxruntime", threads=1) as detector:

        def change() -> None:
            while not stop.is_set():
                for limit in limits:
                    detector.use(limit)

        thread = threading.Thread(target=change)
        thread.start()
        frame = np.full((4, 4, 3), 100, np.uint8)  # scores 1.18
        results = [detector(frame) for _ in range(500)]
        stop.set()
        thread.join()
    assert {(r.threshold, r.map_threshold) for r in results} <= pairs
    assert all((r.verdict == "anomalous") == (r.threshold == 0.5) for r in results)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_without_serve_there_is_no_server(tmp_path: Path):
    assert server_from(parse(), None) is None
    with pytest.raises(UserError, match="needs --serve"):
        server_from(parse("--token-file", str(tmp_path / "token")), None)
    with pytest.raises(UserError, match="above 0"):
        server_from(parse("--serve", "8080", "--health-after", "0"), None)
    with pytest.raises(UserError, match="above 0"):
        server_from(parse("--serve", "8080", "--health-after", "nan"), None)


def test_the_command_line_opens_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CFLOW_TOKEN", raising=False)
    engine = write_tiny_engine(tmp_path)
    args = parse("--serve", "0")
    args.engine = engine
    with runtime.load(engine, backend="onnxruntime", threads=1) as detector:
        recipes = Recipes([Recipe.plain(detector, engine)])
        server = server_from(args, recipes)
        assert server is not None and server.address.loopback and server.address.port > 0
        server.close()
        args.serve = "0.0.0.0:0"
        with pytest.raises(UserError, match="needs a token"):
            server_from(args, recipes)
        monkeypatch.setattr("runtime.serve.arguments.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install '\.\[serve\]'"):
            server_from(parse("--serve", "0"), recipes)


def test_its_command_line_loads_no_web_library():
    program = "import sys, runtime.serve.arguments; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"aiohttp", "prometheus_client", "asyncio", "numpy", "PIL", "cv2"} & set(run.stdout.split())


def test_live_pictures_are_asked_for_once_and_handed_out_in_turns():
    asked: list[int] = []

    async def ask(after: int) -> Picture | None:
        asked.append(after)
        return Picture(7, {}, b"jpeg", now_s()) if after < 7 else None

    async def look() -> list[int]:
        live = Live(ask)
        waiting = [asyncio.create_task(live.newer(i % 7, 30)) for i in range(2 * AT_ONCE + 5)]
        nobody = asyncio.create_task(live.newer(7, 30))  # has seen it
        turns = []
        while not all(task.done() for task in waiting):
            done = sum(task.done() for task in waiting)
            if not turns or done != turns[-1]:
                turns.append(done)
            await asyncio.sleep(0)
        assert [task.result().number for task in waiting] == [7] * len(waiting)
        assert all(task.done() for task in waiting[:AT_ONCE]) and not nobody.done()
        live.close()
        assert await nobody is None
        return turns

    assert asyncio.run(look()) == [0, AT_ONCE, 2 * AT_ONCE]
    assert asked[0] == 0 and set(asked[1:]) == {7}
