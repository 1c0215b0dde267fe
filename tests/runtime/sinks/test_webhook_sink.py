import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.sinks.delivery import Delivery
from runtime.sinks.json_lines import as_json
from runtime.sinks.webhook import WebhookOptions, WebhookSink
from tests.support.judgements import judgement
from tests.support.webhook_server import WebhookServer


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    server = WebhookServer()
    yield server
    server.stop()


def _sink(server: WebhookServer, **changes: object) -> WebhookSink:
    return WebhookSink(WebhookOptions(server.url, **{"first_pause_s": 0.01, "timeout_s": 0.3, **changes}))  # type: ignore[arg-type]


def test_anomalies_are_posted_as_json(server: WebhookServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CFLOW_WEBHOOK_TOKEN", "s3cret")
    delivery = Delivery(WebhookSink(WebhookOptions.parse(server.url)))
    for i in range(10):
        delivery.offer(judgement(i, 2.0 if i in (3, 7) else 0.5))
    delivery.close()
    assert [body for _, body in server.got] == [as_json(judgement(i, 2.0)) for i in (3, 7)]
    headers = server.got[0][0]
    assert headers["Content-Type"] == "application/json" and headers["Authorization"] == "Bearer s3cret"
    assert delivery.counts().delivered == 2
    assert "key" not in delivery.sink.name and "s3cret" not in repr(WebhookOptions.parse(server.url))


def test_good_ones_too_where_wanted(server: WebhookServer):
    delivery = Delivery(_sink(server, all_frames=True))
    delivery.offer(judgement())
    delivery.close()
    assert len(server.got) == 1 and "Authorization" not in server.got[0][0]


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, "hang", "nonsense"])
def test_trouble_of_the_server_is_tried_again(server: WebhookServer, trouble: int | str):
    server.answers = [trouble, trouble, 204]
    _sink(server).write(judgement(0, 2.0))
    assert [body["frame"] for _, body in server.got] == [0, 0, 0]


@pytest.mark.parametrize("answer", [400, 401, 404, 301, 302, 303, 307])
def test_a_refusal_and_a_redirection_are_not(server: WebhookServer, answer: int):
    server.answers = [answer]
    with pytest.raises(OSError, match=f"answered {answer}"):
        _sink(server).write(judgement(0, 2.0))
    assert len(server.got) == 1  # and no GET to where the redirection pointed


def test_trouble_that_stays_fails_after_all_tries(server: WebhookServer):
    server.answers = [500]
    with pytest.raises(OSError, match="answered 500"):
        _sink(server, tries=3).write(judgement(0, 2.0))
    assert len(server.got) == 3


def test_a_server_that_comes_back_gets_what_waited():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    said: list[str] = []
    options = WebhookOptions(f"http://127.0.0.1:{port}/", first_pause_s=0.01, tries=2)
    delivery = Delivery(WebhookSink(options), say=said.append)
    delivery.offer(judgement(0, 2.0))
    while not delivery.counts().failed:
        threading.Event().wait(0.01)
    assert "refused" in delivery.counts().last_error
    server = WebhookServer(port)
    delivery.offer(judgement(1, 2.0))
    delivery.close()
    server.stop()
    assert [body["frame"] for _, body in server.got] == [1]
    assert (delivery.counts().delivered, delivery.counts().failed) == (1, 1)
    assert len(said) == 2 and "delivers again" in said[1]


def test_a_server_that_hangs_loses_the_oldest_and_the_end_does_not_wait_for_it(server: WebhookServer):
    server.answers = ["hang"]
    delivery = Delivery(_sink(server, timeout_s=60.0), say=lambda line: None)
    for i in range(1000):
        delivery.offer(judgement(i, 2.0))
    delivery.close(timeout_s=0.1)
    counts = delivery.counts()
    assert (counts.delivered, counts.failed, counts.lost, counts.queued) == (0, 0, 1000, 0)


def test_the_pauses_between_tries_end_with_the_inspection(server: WebhookServer):
    server.answers = [500]
    delivery = Delivery(_sink(server, first_pause_s=3600.0), say=lambda line: None)
    delivery.offer(judgement(0, 2.0))
    while not server.got:
        threading.Event().wait(0.01)
    delivery.close(timeout_s=0.1)
    assert not delivery._thread.is_alive() and delivery.counts().failed == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "is http://HOST"),
        ("http:///x", "is http://HOST"),
        ("http://host:port/", "is http://HOST"),
        ("http://host/a b", "is http://HOST"),
        ("http://user:word@host/", "do not belong on the command line"),
        ("ftp://user:word@host/", "is http://HOST"),
        ("https:user:word@host/", "is http://HOST"),
        ("http://user:wo/word@host/", "is http://HOST"),
        ("http://host/a b?key=word", "is http://HOST"),
    ],
)
def test_addresses_that_are_none_are_refused(url: str, message: str):
    with pytest.raises(UserError, match=message) as error:
        WebhookOptions.parse(url)
    assert "word" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("content", [b"two words\n", b"a\nb\n", b"\xff\xfe", b"caf\xc3\xa9", b"\n\n"])
def test_tokens_that_no_header_can_hold_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UserError):
        WebhookOptions.parse("http://host/", tmp_path / "token")
    (tmp_path / "token").write_bytes(b"abc-123\n")
    assert WebhookOptions.parse("http://host/", tmp_path / "token").token == "abc-123"
