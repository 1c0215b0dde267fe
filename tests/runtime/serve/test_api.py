"""The page against its own description, and against requests that no client of ours would send."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from runtime.serve.api import OPERATIONS, Operation
from runtime.serve.limits import BODY_BYTES, Limits
from tests.support.serve_rig import TOKEN, Rig, serving

QUICK = Limits(fresh_s=0.0, long_poll_s=0.05, wrong_token_s=0.0, reading_s=1.0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A page without a token that has judged a few frames."""
    with serving(tmp_path_factory.mktemp("page"), health_after_s=1e6, limits=QUICK) as rig:
        for level in (30, 60, 200):
            rig.judge(level)
        yield rig


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A page with a token."""
    with serving(tmp_path_factory.mktemp("guarded"), TOKEN, 1e6, limits=QUICK) as rig:
        rig.judge(30)
        yield rig


WRONG = [operation for operation in OPERATIONS if operation.parameters or operation.body or operation.header]


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "guarded"])
@pytest.mark.parametrize(
    ("operation", "mode"),
    [(o, GenerationMode.POSITIVE) for o in OPERATIONS] + [(o, GenerationMode.NEGATIVE) for o in WRONG],
    ids=lambda value: f"{value.method} {value.path}" if isinstance(value, Operation) else value.value,
)
def test_every_address_answers_as_the_page_describes_it(
    request: pytest.FixtureRequest, operation: Operation, mode: GenerationMode, token: str
):
    rig: Rig = request.getfixturevalue("guarded" if token else "page")
    known = {"Authorization": f"Bearer {token}"} if token else {}
    api = schemathesis.openapi.from_url(f"{rig.server.address.url()}openapi.json", headers=known)
    seen = api[operation.path][operation.method]
    # any text is a token, and a field more than asked for harms nobody
    lenient = [schemathesis.checks.negative_data_rejection] if operation.path == "/login" else []

    @given(case=seen.as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=known, timeout=60, excluded_checks=lenient, allow_redirects=False)

    ask()
    assert rig.server.troubles.counts() == {}


def test_the_description_has_every_address(page: Rig):
    said = page.ask("/openapi.json").json()["paths"]
    assert {(path, method.upper()) for path in said for method in said[path]} == {
        (operation.path, operation.method) for operation in OPERATIONS
    }


def _raw(rig: Rig, request: bytes) -> tuple[int, bytes, bytes]:
    """Send these bytes and return (status, head, body)."""
    with rig.connect() as client:
        client.sendall(request.replace(b"COOKIE", f"cflow_session_{rig.server.address.port}".encode()))
        said = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def _request(line: bytes, headers: bytes = b"", body: bytes = b"", host: bytes = b"Host: localhost\r\n") -> bytes:
    return line + b" HTTP/1.1\r\n" + host + headers + b"Connection: close\r\n\r\n" + body


def _post(path: bytes, body: bytes, kind: bytes = b"application/json", more: bytes = b"") -> bytes:
    headers = b"X-Requested-By: cflow-edge\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (kind, len(body))
    return _request(b"POST " + path, headers + more, body)


FORM = b"application/x-www-form-urlencoded"
FINE = b'{"value": 1.0, "instead_of": 1.0}'
PART = b'--x\r\nContent-Disposition: form-data; name="token"\r\n'
REFUSED = {
    # parameters
    "since is none": (_request(b"GET /api/state?since="), 400),
    "since is negative": (_request(b"GET /api/state?since=-1"), 400),
    "since is another script's": (_request(b"GET /api/state?since=%D9%A1"), 400),
    "since is a power": (_request(b"GET /api/state?since=%C2%B2"), 400),
    "since is endless": (_request(b"GET /api/state?since=" + b"9" * 5000), 400),
    "since twice": (_request(b"GET /api/state?since=1&since=2"), 400),
    "minutes is 2": (_request(b"GET /api/state?minutes=2"), 400),
    "after is text": (_request(b"GET /live/0.jpg?after=x"), 400),
    "after is a broken character": (_request(b"GET /live/0.jpg?after=%ED%A0%80"), 400),
    "source is another script's": (_request(b"GET /live/%D9%A1.jpg"), 404),
    "source is endless": (_request(b"GET /live/" + b"1" * 5000 + b".jpg"), 404),
    "source is none": (_request(b"GET /live/99.jpg"), 404),
    "picture is endless": (_request(b"GET /anomalies/" + b"1" * 5000 + b".jpg"), 404),
    "picture is none": (_request(b"GET /anomalies/999.jpg"), 404),
    # addresses
    "up": (_request(b"GET /../../etc/passwd"), 404),
    "up, escaped": (_request(b"GET /..%2f..%2fserver.py"), 404),
    "up from a file": (_request(b"GET /page.js/../../server.py"), 404),
    "an escape that is none": (_request(b"GET /%zz"), 404),
    "bytes as an address": (_request(b"GET /\xff"), 400),
    "a zero in an address": (_request(b"GET /\x00"), 400),
    "no address": (_request(b"GET "), 400),
    "a broken address": (_request(b"GET http://[::1"), 400),
    "an endless address": (_request(b"GET /" + b"a" * 9000), 400),
    "a method that is not there": (_request(b"PUT /api/state"), 405),
    "a method that is none": (_request(b"FOO /"), 400),
    # bodies
    "no body": (_post(b"/api/threshold", b""), 400),
    "a number of 4000 digits": (_post(b"/api/threshold", b'{"value":' + b"9" * 4000 + b',"instead_of":1}'), 400),
    "nested deeply": (_post(b"/api/threshold", b"[" * 8000), 400),
    "nested deeply as a value": (_post(b"/api/threshold", b'{"value":' + b"[" * 8000), 400),
    "a list": (_post(b"/api/threshold", b"[1, 2]"), 400),
    "nothing in it": (_post(b"/api/threshold", b"null"), 400),
    "truth for a number": (_post(b"/api/threshold", b'{"value": true, "instead_of": 1}'), 400),
    "text for a number": (_post(b"/api/threshold", b'{"value": "1", "instead_of": 1}'), 400),
    "not a number": (_post(b"/api/threshold", b'{"value": NaN, "instead_of": 1}'), 400),
    "more than asked": (_post(b"/api/threshold", b'{"value": 1, "instead_of": 1, "x": 1}'), 400),
    "no text": (_post(b"/api/threshold", b"\xff\xfe"), 400),
    "too large": (_post(b"/api/threshold", b"x" * (BODY_BYTES + 1)), 413),
    "too large in pieces": (
        _request(
            b"POST /api/threshold",
            b"X-Requested-By: cflow-edge\r\nTransfer-Encoding: chunked\r\n",
            (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 6 + b"0\r\n\r\n",
        ),
        413,
    ),
    "pieces that are none": (
        _request(b"POST /api/threshold", b"X-Requested-By: cflow-edge\r\nTransfer-Encoding: chunked\r\n", b"zz\r\n"),
        400,
    ),
    "too slow": (_post(b"/api/threshold", FINE, more=b"").replace(FINE, b"{"), 408),
    "packed, and is not": (_post(b"/api/threshold", b"\x1f\x8b\x08", more=b"Content-Encoding: gzip\r\n"), 400),
    "a form with many fields": (_post(b"/login", b"&".join([b"a=b"] * 2000), FORM), 400),
    "a form of parts": (_post(b"/login", PART + b"\r\nabc\r\n--x--\r\n", b"multipart/form-data; boundary=x"), 400),
    "parts without end": (_post(b"/login", b"--x", b"multipart/form-data; boundary=x"), 400),
    "parts without a boundary": (_post(b"/login", b"token=abc", b"multipart/form-data"), 400),
    "a token of bytes": (_post(b"/login", b"token=\xff", FORM), 400),
    "a token of half a character": (_post(b"/login", b"token=%ED%A0%80", FORM), 401),
    # heads
    "two lengths": (_request(b"GET /", b"Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
    "a length below zero": (_request(b"GET /", b"Content-Length: -1\r\n"), 400),
    "an endless head": (_request(b"GET /", b"X: " + b"a" * 9000 + b"\r\n"), 400),
    "endless heads": (_request(b"GET /", b"X: y\r\n" * 600), 400),
    "a head that is none": (_request(b"GET /", b"head\r\n"), 400),
    "no host": (_request(b"GET /", host=b""), 400),
    "two hosts": (_request(b"GET /", host=b"Host: localhost\r\nHost: evil.example\r\n"), 400),
    "an empty host": (_request(b"GET /", host=b"Host: \r\n"), 421),
    "another host": (_request(b"GET /health", host=b"Host: evil.example\r\n"), 421),
    "another host behind ours": (_request(b"GET /", host=b"Host: localhost:80@evil.example\r\n"), 421),
    "half a host": (_request(b"GET /", host=b"Host: [::1\r\n"), 421),
    "a host of bytes": (_request(b"GET /", host=b"Host: \xff\r\n"), 421),
    "another host in the address": (_request(b"GET http://evil.example/api/state"), 421),
    # where an action comes from
    "an action of a form": (_request(b"POST /api/threshold", b"Content-Length: 33\r\n", FINE), 403),
    "an action of another site": (_post(b"/api/threshold", FINE, more=b"Origin: http://evil.example\r\n"), 403),
    "an action of nobody": (_post(b"/api/threshold", FINE, more=b"Origin: null\r\n"), 403),
    "an action of half an address": (_post(b"/logout", b"", more=b"Origin: http://[\r\n"), 403),
    "an action of no address": (_post(b"/logout", b"", more=b"Origin: http://\xe2\x84\x80\r\n"), 403),
    "an action of bytes": (_post(b"/logout", b"", more=b"Origin: \xff\r\n"), 403),
    "a cross-site action": (_post(b"/api/threshold", FINE, more=b"Sec-Fetch-Site: cross-site\r\n"), 403),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_client_of_ours_sends_is_refused_in_one_line(page: Rig, name: str):
    request, status = REFUSED[name]
    found, head, body = _raw(page, request)
    assert found == status, (head, body)
    assert b"\n" not in body.strip() or found == 401  # the login form again
    assert len(body) < 300 or found == 401
    assert b"Traceback" not in body and str(Path(__file__).parents[3]).encode() not in body and b"/tmp" not in body
    for header in (b"Content-Security-Policy: default-src 'none'", b"X-Content-Type-Options: nosniff"):
        assert header in head, head
    assert page.detector.threshold == 1.0 and page.server.troubles.counts() == {}


TAKEN = {
    "an odd character set": (_post(b"/api/threshold", FINE, b"application/json; charset=nonsense"), 200),
    "a character set that is a codec": (_post(b"/api/threshold", FINE, b"text/plain; charset=hex"), 200),
    "an odd cookie": (_request(b"GET /api/state", b"Cookie: COOKIE=\xff; =;;\r\n"), 200),
    "the newest number": (_request(b"GET /api/state?since=9007199254740991&minutes=1"), 200),
    "no picture yet": (_request(b"GET /live/0.jpg?after=9007199254740991"), 204),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_odd_and_harmless_is_answered(page: Rig, name: str):
    request, status = TAKEN[name]
    assert _raw(page, request)[0] == status


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer \xff",
        b"Authorization: Bearer \xed\xa0\x80",
        b"Authorization: Bearer",
        b"Authorization: \xff",
        b"Cookie: COOKIE=\xff.\xff",
        b"Cookie: COOKIE=99999999999." + b"0" * 64,
        b"Cookie: COOKIE=\xd9\xa1.\xd9\xa1",
        b"Cookie: COOKIE=.",
        b'Cookie: COOKIE="\\777"',
    ],
)
@pytest.mark.parametrize("line", [b"GET /api/state", b"POST /logout", b"GET /openapi.json", b"GET /metrics"])
def test_what_is_no_token_lets_nobody_in(guarded: Rig, line: bytes, header: bytes):
    found, _, _ = _raw(guarded, _request(line, b"X-Requested-By: cflow-edge\r\n" + header + b"\r\n"))
    assert found == 401
    assert guarded.server.troubles.counts() == {}


def test_a_token_is_in_no_address_and_in_nothing_that_is_said(guarded: Rig, capfd: pytest.CaptureFixture[str]):
    asked = guarded.ask(f"/api/state?token={TOKEN}")
    assert asked.status == 401  # a proxy would log it: no address takes a token
    sent = guarded.ask("/login", "POST", f"token={TOKEN}")
    said = " ".join([*sent.headers.values(), sent.body.decode(), asked.body.decode(), *capfd.readouterr()])
    assert TOKEN not in said


def test_a_path_of_the_machine_is_in_no_refusal(page: Rig):
    sidecar = page.engine.with_suffix(".json")
    kept = sidecar.read_bytes()
    sidecar.unlink()
    try:
        answer = page.ask("/api/threshold", "POST", {"value": 2.0, "instead_of": 1.0}, X_Requested_By="cflow-edge")
    finally:
        sidecar.write_bytes(kept)
    assert answer.status in (422, 507) and str(page.engine.parent) not in answer.body.decode()
    assert re.search(r"tiny|sidecar", answer.body.decode())
