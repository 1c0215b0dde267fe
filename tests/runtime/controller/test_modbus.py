"""The Modbus server, read and triggered by pymodbus' own client."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pymodbus")

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu import ExceptionResponse

from runtime.common.errors import UserError
from runtime.controller import modbus_map
from runtime.controller.board import Board, Limits
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.controller.modbus_map import BLOCK, LINE, SIZE, SOURCE, WRITABLE
from runtime.controller.modbus_server import CONNECTIONS, is_allowed
from runtime.result import Result
from runtime.sinks.delivery import Delivery
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.judgements import judgement
from tests.support.modbus import decoded
from tests.support.waiting import wait_until

PATIENT = Limits(safe_after_s=60.0, valid_s=60.0)


def _judged(source: str = "a", trigger: Trigger | None = None, score: float = 0.5, reason: str = "") -> Judgement:
    one = judgement(0, score, source)
    result: Result = one.result.without_verdict(reason) if reason else one.result
    return replace(one, result=result, trigger=trigger, late=reason.startswith("late"), judged_s=time.monotonic())


@contextlib.contextmanager
def _serving(text: str = "0", limits: Limits = PATIENT, **who: Any) -> Iterator[ModbusServer]:
    with ModbusServer(ModbusOptions.parse(text, **who), Board(["a", "b"], limits)) as server:
        server.board.beat()
        yield server


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    with _serving() as server:
        yield server


@contextlib.asynccontextmanager
async def _connected(server: ModbusServer) -> AsyncIterator[AsyncModbusTcpClient]:
    async with AsyncModbusTcpClient("127.0.0.1", port=server.address.port, timeout=20, retries=0) as client:
        assert client.connected
        yield client


def _ask(server: ModbusServer, work: Callable[[AsyncModbusTcpClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with _connected(server) as client:
            return await work(client)

    return asyncio.run(run())


async def _source(client: AsyncModbusTcpClient, number: int = 1) -> dict[str, Any]:
    answer = await client.read_input_registers(number * BLOCK, count=SIZE)
    assert not answer.isError()
    return decoded(answer.registers, SOURCE)


async def _bits(client: AsyncModbusTcpClient) -> dict[str, bool]:
    bits = (await client.read_discrete_inputs(0, count=len(modbus_map.BITS))).bits
    return dict(zip(modbus_map.BITS, bits, strict=False))


def test_an_answer_is_read_by_the_documented_map(server: ModbusServer):
    server.write(_judged("b", Trigger("SN-7", 1.0, "http"), 1.5))
    first, second = (_ask(server, lambda client, n=n: _source(client, n)) for n in (1, 2))
    assert (first["Sequence"], first["Verdict"], first["ReasonCode"], first["AgeMs"]) == (0, 0, 3, 0)
    assert first["Score"] != first["Score"]  # NaN: there is no score
    assert {name: second[name] for name in ("Sequence", "Verdict", "ReasonCode", "PartId", "Threshold", "Score")} == {
        "Sequence": 1, "Verdict": 2, "ReasonCode": 0, "PartId": "SN-7", "Threshold": 1.0, "Score": 1.5,
    }  # fmt: skip
    assert (second["Total"], second["Good"], second["Anomalous"], second["None"], second["Late"]) == (1, 0, 1, 0, 0)
    assert second["AgeMs"] < 60_000


def test_none_and_late_are_told_apart(server: ModbusServer):
    server.write(_judged(reason="the picture is black", trigger=Trigger("SN1", 1.0, "http")))
    plain = _ask(server, _source)
    server.write(_judged(reason="late: no verdict within 80 ms", trigger=Trigger("SN2", 2.0, "http")))
    late = _ask(server, _source)
    assert [(one["Verdict"], one["ReasonCode"], one["Late"]) for one in (plain, late)] == [(0, 1, 0), (0, 2, 1)]


def test_both_kinds_of_registers_and_of_bits_are_the_same(server: ModbusServer):
    async def look(client: AsyncModbusTcpClient) -> None:
        for block in range(3):
            held = (await client.read_holding_registers(block * BLOCK, count=SIZE)).registers
            given = (await client.read_input_registers(block * BLOCK, count=SIZE)).registers
            age = slice(8, 10)  # of a source's block
            held[age] = given[age] = [0, 0]
            assert held == given and len(held) == SIZE
        coils = (await client.read_coils(0, count=6)).bits
        assert coils == (await client.read_discrete_inputs(0, count=6)).bits

    _ask(server, look)
    line = decoded(_ask(server, lambda client: client.read_input_registers(0, count=SIZE)).registers, LINE)
    assert (line["MapVersion"], line["Sources"], line["State"], line["Heartbeat"]) == (1, 2, 0, 1)


@pytest.mark.parametrize(("address", "count"), [(36, 1), (30, 7), (99, 2), (135, 2), (300, 1), (236, 1), (65535, 1)])
def test_an_address_that_is_none_is_an_illegal_address(server: ModbusServer, address: int, count: int):
    answer = _ask(server, lambda client: client.read_holding_registers(address, count=count))
    assert isinstance(answer, ExceptionResponse) and answer.exception_code == 2


def test_only_what_is_the_controllers_can_be_written(server: ModbusServer):
    async def write(client: AsyncModbusTcpClient) -> list[int]:
        refused = []
        for address in range(SIZE):
            answer = await client.write_register(address, 1)
            refused += [address] if isinstance(answer, ExceptionResponse) else []
        for answer in (
            await client.write_registers(19, [1, 1]),
            await client.write_registers(BLOCK, [1] * 4),
            await client.write_coil(1, True),
            await client.write_coils(0, [True, True]),
            await client.mask_write_register(address=3, and_mask=0, or_mask=5),
        ):
            assert isinstance(answer, ExceptionResponse) and answer.exception_code == 2
        return refused

    refused = _ask(server, write)
    assert set(refused) == set(range(SIZE)) - WRITABLE
    assert _ask(server, _source)["Verdict"] == 0 and not _ask(server, _bits)["Trigger"]


async def _inspect(client: AsyncModbusTcpClient, part: str) -> dict[str, Any]:
    """Ask for one part with the whole handshake and return its answer."""
    await client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers(part))
    await client.write_coil(modbus_map.TRIGGER, True)
    deadline = time.monotonic() + 30
    while not (bits := await _bits(client))["Done"]:
        assert bits["Busy"] and not bits["Refused"] and time.monotonic() < deadline
        await asyncio.sleep(0.001)
    answer = await _source(client)
    await client.write_coil(modbus_map.TRIGGER, False)
    assert not (await _bits(client))["Done"]
    return answer


def test_two_hundred_parts_each_get_their_own_answer(server: ModbusServer):
    """Through a queue of its own, as every sink has."""
    with contextlib.closing(Delivery(server)) as delivery:

        def judge(trigger: Trigger) -> None:
            score = 1.5 if int(trigger.part.removeprefix("SN")) % 3 == 0 else 0.5
            for source in ("b", "a"):
                delivery.offer(_judged(source, trigger, score))

        def take(trigger: Trigger) -> str:
            threading.Thread(target=judge, args=(trigger,)).start()
            return ""

        server.triggers["modbus"].start(take)

        async def line(client: AsyncModbusTcpClient) -> list[dict[str, Any]]:
            return [await _inspect(client, f"SN{number}") for number in range(200)]

        answers = _ask(server, line)
    assert [answer["PartId"] for answer in answers] == [f"SN{number}" for number in range(200)]
    assert [answer["Verdict"] for answer in answers] == [2 if number % 3 == 0 else 1 for number in range(200)]
    assert [answer["Sequence"] for answer in answers] == list(range(1, 201))


def test_a_refused_trigger_is_told(server: ModbusServer):
    async def trigger(client: AsyncModbusTcpClient) -> dict[str, bool]:
        await client.write_coil(modbus_map.TRIGGER, True)
        bits = await _bits(client)
        await client.write_coil(modbus_map.TRIGGER, False)
        assert not (await _bits(client))["Refused"]
        return bits

    assert _ask(server, trigger) == {
        "Trigger": True, "Ready": False, "Busy": False, "Done": False, "Refused": True, "Running": True,
    }  # fmt: skip
    server.triggers["modbus"].start(lambda trigger: "too many wait")
    bits = _ask(server, trigger)
    assert bits["Ready"] and bits["Refused"] and not bits["Busy"]


def test_no_reader_sees_a_verdict_beside_another_parts_id(server: ModbusServer):
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            server.write(_judged("a", Trigger(f"SN{number}", 1.0, "http"), 1.5 if number % 2 else 0.5))

    async def read(client: AsyncModbusTcpClient) -> int:
        seen = set()
        for _ in range(300):
            one = await _source(client)
            if one["Sequence"]:
                assert one["PartId"] == f"SN{one['Sequence']}"
                assert one["Verdict"] == (2 if one["Sequence"] % 2 else 1) and one["Total"] == one["Sequence"]
                seen.add(one["Sequence"])
        return len(seen)

    async def all_at_once() -> list[int]:
        async def one() -> int:
            async with _connected(server) as client:
                return await read(client)

        return await asyncio.gather(*(one() for _ in range(4)))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert min(asyncio.run(all_at_once())) > 1
    finally:
        stop.set()
        writing.join()


def test_the_safe_state_is_read_by_everybody():
    with _serving(limits=Limits(safe_after_s=0.5, valid_s=60.0)) as server:
        server.write(_judged())
        assert _ask(server, _source)["Verdict"] == 1
        time.sleep(0.6)  # the inspection does not go on
        one = _ask(server, _source)
        assert (one["Verdict"], one["ReasonCode"], one["Sequence"]) == (0, 4, 1)
        assert not _ask(server, _bits)["Running"]


def test_a_controller_that_is_lost_and_comes_back():
    with _serving(limits=Limits(safe_after_s=0.6, valid_s=60.0)) as server:
        running = threading.Event()

        def inspect() -> None:
            while not running.wait(0.05):
                server.board.beat()
                server.write(_judged())

        thread = threading.Thread(target=inspect)
        thread.start()
        try:

            async def beat(client: AsyncModbusTcpClient, value: int) -> int:
                await client.write_register(modbus_map.CONTROLLER_BEAT, value)
                await asyncio.sleep(0.2)
                return int((await _source(client))["Verdict"])

            assert _ask(server, lambda client: beat(client, 1)) == 1
            wait_until(lambda: _ask(server, _source)["ReasonCode"] == 6)  # it has gone
            assert _ask(server, lambda client: beat(client, 2)) == 1
        finally:
            running.set()
            thread.join()


def test_the_last_that_is_served_is_no_verdict():
    with _serving() as server:
        server.write(_judged())

        async def until_the_end() -> list[int]:
            seen = []
            async with _connected(server) as client:
                seen.append((await _source(client))["Verdict"])
                threading.Thread(target=server.close).start()
                with contextlib.suppress(Exception):
                    while True:
                        seen.append((await _source(client))["Verdict"])
                        await asyncio.sleep(0.01)
            return seen

        seen = asyncio.run(until_the_end())
        assert seen[0] == 1 and seen[-1] == 0


def test_a_restart_listens_at_once_on_the_same_port():
    with _serving() as server:
        port = server.address.port
        server.write(_judged())
        _ask(server, _source)
    with _serving(str(port)) as server:
        assert _ask(server, _source)["Sequence"] == 0


def test_a_port_that_is_taken_is_one_line():
    with _serving() as server:
        before = threading.active_count()
        with pytest.raises(UserError, match=rf"--modbus must be able to listen on 127.0.0.1:{server.address.port}"):
            ModbusServer(ModbusOptions.parse(str(server.address.port)), Board(["a"]))
        assert threading.active_count() == before


def test_what_is_no_modbus_ends_nothing(server: ModbusServer, capfd: pytest.CaptureFixture[str]):
    server.write(_judged())
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 600, b"\xff" * 7, bytes(range(256)) * 20, b"\0\1\0\0\0\2\1\x63"):
        with socket.create_connection(("127.0.0.1", server.address.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                connection.settimeout(0.2)
                connection.recv(100)
    silent = [socket.create_connection(("127.0.0.1", server.address.port)) for _ in range(5)]
    assert _ask(server, _source)["Verdict"] == 1
    for connection in silent:
        connection.close()
    assert capfd.readouterr() == ("", "")


def test_too_many_connections_give_up_the_oldest(server: ModbusServer):
    silent = [socket.create_connection(("127.0.0.1", server.address.port)) for _ in range(CONNECTIONS + 5)]
    try:
        assert _ask(server, _source)["Sequence"] == 0
        for connection in silent[:5]:
            connection.settimeout(20)
            assert connection.recv(1) == b""
    finally:
        for connection in silent:
            connection.close()


def test_an_address_that_others_reach_needs_to_say_who():
    with pytest.raises(UserError, match=r"Modbus has no passwords.*--modbus-allow ADDRESS.*--modbus-open"):
        ModbusOptions.parse("0.0.0.0:502")
    assert ModbusOptions.parse("0.0.0.0:502", True).allowed is None
    assert ModbusOptions.parse("0.0.0.0:502", allow=["192.168.0.20"]).allowed is not None
    for wrong in ({"everybody": True, "allow": ["10.0.0.1"]}, {"allow": ["plc"]}, {"allow": ["10.0.0.0/40"]}):
        with pytest.raises(UserError, match="--modbus-"):
            ModbusOptions.parse("0.0.0.0:502", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--modbus takes \[HOST:\]PORT; found 'x'"):
        ModbusOptions.parse("x")


def test_who_is_not_named_gets_no_answer():
    with _serving(allow=["10.1.2.0/24"]) as server:
        connection = socket.create_connection(("127.0.0.1", server.address.port), timeout=20)
        given = b""
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"\0\1\0\0\0\6\1\4\0\0\0\1")
            given = connection.recv(100)
        assert given == b""
    with _serving(allow=["10.1.2.0/24", "127.0.0.1"]) as server:
        assert _ask(server, _source)["Sequence"] == 0


def test_ipv4_is_known_in_the_clothes_of_ipv6():
    allowed = ModbusOptions.parse("[::]:502", allow=["192.168.0.0/28", "fe80::/10"]).allowed
    assert allowed is not None
    hosts = ("192.168.0.5", "::ffff:192.168.0.5", "192.168.0.20", "::ffff:192.168.0.20", "fe80::1%eth0", "::1")
    assert [is_allowed(host, allowed) for host in hosts] == [True, True, False, False, True, False]


def test_a_part_id_is_ascii_of_32_characters():
    for text in ("", "SN-000123", "x" * 32):
        assert modbus_map.text_of(modbus_map.text_registers(text)) == text
    assert modbus_map.text_of(modbus_map.text_registers("x" * 40)) == "x" * 32
    assert modbus_map.text_of(modbus_map.text_registers("Teil-ä")) == "Teil-?"
    assert modbus_map.text_of([0x41FF, 0x4200]) == "A\\xffB"
