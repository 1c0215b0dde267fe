"""What holds for both servers: one answer a part, nothing torn, the handshake, the safe state."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from runtime.common.errors import UserError
from runtime.controller.board import Limits
from runtime.sinks.delivery import Delivery
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.controllers import AnyServer, Controller, Kind, Seen, controller_of, judged, parts, server_of
from tests.support.waiting import wait_until

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(find_spec(library) is None, reason=f"needs {library}"))
    for kind, library in (("modbus", "pymodbus"), ("opcua", "asyncua"))
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[AnyServer]:
    with server_of(kind) as opened:
        yield opened


@pytest.fixture
def taking(server: AnyServer, kind: Kind) -> Iterator[Callable[[Callable[[Trigger], str]], None]]:
    """Return what lets the server's triggers be taken until the end of the test."""
    server.board.beat()
    yield server.triggers[kind].start
    server.triggers[kind].close()


def _ask(server: AnyServer, work: Callable[[Controller], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with controller_of(server) as controller:
            return await work(controller)

    return asyncio.run(run())


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 120
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def _answer(controller: Controller) -> Seen:
    return await controller.answer()


def test_none_and_late_are_told_apart(server: AnyServer):
    server.board.beat()
    server.write(judged(reason="the picture is black", trigger=Trigger("SN1", 1.0, "http")))
    plain = _ask(server, _answer)
    server.write(judged(reason="late: no verdict within 80 ms", trigger=Trigger("SN2", 2.0, "http")))
    late = _ask(server, _answer)
    assert [(one.verdict, one.why, one.part) for one in (plain, late)] == [(0, 1, "SN1"), (0, 2, "SN2")]
    assert late.late == plain.late + 1 and late.sequence == plain.sequence + 1


@contextlib.contextmanager
def _delivering(server: AnyServer) -> Iterator[Delivery]:
    """Give the server a queue of its own, as every sink has, which does not close it."""

    class Kept:
        name, queueing = server.name, server.queueing

        def write(self, judgement: Judgement) -> None:
            server.write(judgement)

        def close(self) -> None:
            pass

    with contextlib.closing(Delivery(Kept())) as delivery:  # type: ignore[arg-type]
        yield delivery
    assert not delivery.counts().undelivered


def test_two_hundred_parts_each_get_their_own_answer(
    server: AnyServer, taking: Callable[[Callable[[Trigger], str]], None]
):
    def judge(trigger: Trigger, delivery: Delivery) -> None:
        score = 1.5 if int(trigger.part.removeprefix("SN")) % 3 == 0 else 0.5
        for source in ("b", "a"):
            delivery.offer(judged(source, trigger, score))

    async def inspect(controller: Controller, part: str) -> Seen:
        await controller.ask(part)

        async def done() -> bool:
            _, busy, done, refused = await controller.handshake()
            assert not refused and busy != done
            return done

        await _until(done)
        answer = await controller.answer()
        await controller.acknowledge()
        assert await controller.handshake() == (True, False, False, False)
        return answer

    async def line(controller: Controller) -> list[Seen]:
        return [await inspect(controller, f"SN{number}") for number in range(200)]

    with _delivering(server) as delivery:

        def take(trigger: Trigger) -> str:
            threading.Thread(target=judge, args=(trigger, delivery)).start()
            return ""

        taking(take)
        answers = _ask(server, line)
    assert parts(answers) == [f"SN{number}" for number in range(200)]
    assert [answer.verdict for answer in answers] == [1 if number % 3 else 2 for number in range(200)]
    first = answers[0].sequence
    assert [answer.sequence for answer in answers] == list(range(first, first + 200))


def test_a_refused_trigger_is_told(server: AnyServer, taking: Callable[[Callable[[Trigger], str]], None]):
    async def trigger(controller: Controller) -> tuple[bool, bool, bool, bool]:
        await controller.ask("SN1")
        told = await controller.handshake()
        await controller.acknowledge()
        assert not (await controller.handshake())[-1]
        return told

    assert _ask(server, trigger) == (False, False, False, True)  # nothing was started
    taking(lambda trigger: "too many wait")
    assert _ask(server, trigger) == (True, False, False, True)


def test_no_reader_sees_a_verdict_beside_another_parts_id(server: AnyServer):
    stop = threading.Event()
    first = _ask(server, _answer).sequence

    def write() -> None:
        number = first
        while not stop.is_set():
            number += 1
            server.write(judged("a", Trigger(f"SN{number}", 1.0, "http"), 1.5 if number % 2 else 0.5))

    def check(seen: Seen | None) -> int:
        if seen is None or seen.sequence <= first:
            return 0
        assert (seen.part, seen.verdict) == (f"SN{seen.sequence}", 2 if seen.sequence % 2 else 1)
        return seen.sequence

    async def read() -> set[int]:
        async with (
            controller_of(server) as at_once,
            controller_of(server) as another,
            controller_of(server) as piecewise,
        ):

            async def whole(controller: Controller) -> set[int]:
                return {check(await controller.answer()) for _ in range(100)}

            async def pieces() -> None:
                for _ in range(100):
                    check(await piecewise.pieces())

            seen, *_ = await asyncio.gather(whole(at_once), whole(another), pieces())
            return seen - {0}

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert len(asyncio.run(read())) > 1
    finally:
        stop.set()
        writing.join()


def test_the_safe_state_the_controllers_heartbeat_and_the_end(kind: Kind):
    """A server of its own: the inspection stops and goes on, the controller goes and returns, then all ends."""
    server = server_of(kind, limits=Limits(safe_after_s=1.0, valid_s=60.0))
    ended, going = threading.Event(), threading.Event()
    going.set()

    def inspect() -> None:
        while not ended.wait(0.05):
            if going.is_set():
                server.board.beat()
                server.write(judged())

    async def until(controller: Controller, stopped: bool, verdict: int, why: int) -> None:
        async def seen() -> bool:
            answer = await controller.answer()
            return (await controller.stopped(), answer.verdict, answer.why) == (stopped, verdict, why)

        await _until(seen)

    async def run(controller: Controller) -> list[Seen]:
        await until(controller, False, 1, 0)
        going.clear()
        await until(controller, True, 0, 4)
        going.set()
        await until(controller, False, 1, 0)
        await controller.beat(1)
        await until(controller, True, 0, 6)  # the controller does not go on
        await controller.beat(2)
        await until(controller, False, 1, 0)
        ended.set()
        threading.Thread(target=server.close).start()
        last: list[Seen] = []
        with contextlib.suppress(Exception):
            while True:
                last = [await controller.answer()]
                await asyncio.sleep(0.01)
        seen.extend(last)
        return last

    seen: list[Seen] = []
    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        with contextlib.suppress(ConnectionError):  # the client's own goodbye finds nobody
            _ask(server, run)
    finally:
        ended.set()
        thread.join()
        server.close()
    assert [one.verdict for one in seen] == [0]


def test_a_port_that_is_taken_is_one_line(server: AnyServer, kind: Kind):
    before, port = threading.active_count(), server.address.port
    with pytest.raises(UserError, match=rf"--{kind} must be able to listen on 127.0.0.1:{port}"):
        server_of(kind, port)
    wait_until(lambda: threading.active_count() == before)
