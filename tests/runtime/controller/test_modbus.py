"""The Modbus server, read and triggered by pymodbus' own client."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("pymodbus")

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu import ExceptionResponse

from runtime.common.errors import UserError
from runtime.controller import modbus_map
from runtime.controller.board import Board, Limits
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.controller.modbus_map import BLOCK, LINE, RECIPE_REQUEST, SIZE, SOURCE, WRITABLE
from runtime.controller.modbus_server import CONNECTIONS, is_allowed
from runtime.triggers.trigger import Trigger
from tests.support.controllers import PATIENT, judged
from tests.support.modbus import decoded


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
    server.write(judged("b", Trigger("SN-7", 1.0, "http"), 1.5))
    first, second = (_ask(server, lambda client, n=n: _source(client, n)) for n in (1, 2))
    assert (first["Sequence"], first["Verdict"], first["ReasonCode"], first["AgeMs"]) == (0, 0, 3, 0)
    assert first["Score"] != first["Score"]  # NaN: there is no score
    assert {name: second[name] for name in ("Sequence", "Verdict", "ReasonCode", "PartId", "Threshold", "Score")} == {
        "Sequence": 1, "Verdict": 2, "ReasonCode": 0, "PartId": "SN-7", "Threshold": 1.0, "Score": 1.5,
    }  # fmt: skip
    assert (second["Total"], second["Good"], second["Anomalous"], second["None"], second["Late"]) == (1, 0, 1, 0, 0)
    assert second["AgeMs"] < 60_000


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


@pytest.mark.parametrize(("address", "count"), [(37, 1), (30, 8), (99, 2), (136, 2), (300, 1), (237, 1), (65535, 1)])
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
    assert set(refused) == (set(range(SIZE)) - WRITABLE) | {RECIPE_REQUEST}  # here are no recipes
    assert _ask(server, _source)["Verdict"] == 0 and not _ask(server, _bits)["Trigger"]


def test_a_restart_listens_at_once_on_the_same_port():
    with _serving() as server:
        port = server.address.port
        server.write(judged())
        _ask(server, _source)
    with _serving(str(port)) as server:
        assert _ask(server, _source)["Sequence"] == 0


def test_what_is_no_modbus_ends_nothing(server: ModbusServer, capfd: pytest.CaptureFixture[str]):
    server.write(judged())
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
