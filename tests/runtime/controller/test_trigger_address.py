"""A coil or a node that the user names as the trigger, with the real servers and their libraries' own clients."""

import asyncio
from collections.abc import Callable

import pytest

from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.controller import modbus_map, opcua_nodes
from runtime.controller.board import Board, Limits
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import INDEX, START, About
from runtime.controller.opcua_options import OpcuaOptions
from runtime.controller.trigger_address import coil, node_id
from runtime.triggers.trigger import Trigger
from tests.support.opcua_client import connected

PATIENT = Limits(safe_after_s=600.0, valid_s=600.0)


def test_without_a_name_it_is_the_documented_one():
    assert (coil(""), node_id("")) == (modbus_map.TRIGGER, opcua_nodes.START)
    assert (coil("0"), node_id("ns=2;s=VisionSystem.Trigger.Start")) == (modbus_map.TRIGGER, opcua_nodes.START)
    assert (coil("6"), coil("0100"), coil("65535")) == (6, 100, 65535)
    assert node_id("ns=2;s=a=b;c.d") == node_id("nsu=urn:cflow-edge:controller;s=a=b;c.d") == "a=b;c.d"
    assert node_id("ns=2;i=7") == 7


COILS = {
    "3": "must be a coil that the server does not set; found 3, where it tells Done; modbus:100",
    **dict.fromkeys(("65536", "-1", "1e2", "0x10", "٣", "999999999"), "takes a number of 0 to 65535; found"),
}
NODES = {
    **dict.fromkeys(("Line1.Trigger", "ns=2", "ns=2;s=", "ns=2;x=1", "ns=a;s=b", "ns=2;s=a\tb"), "takes a node id"),
    "ns=3;s=a": "must be in the server's own namespace, ns=2 or nsu=urn:cflow-edge:controller; found ns=3",
    "s=a": "must be in the server's own namespace, ns=2 or nsu=urn:cflow-edge:controller; found ns=0",
    "nsu=urn:plc;s=a": "found nsu=urn:plc",
    "ns=2;s=VisionSystem.Heartbeat": "must not be a node that the server has",
    "ns=2;s=VisionSystem": "must not be a node that the server has",
    "ns=2;i=4294967296": "takes a number of 0 to 2147483647 for i=",
    "ns=2;i=a": "takes a number of 0 to 2147483647 for i=",
}


@pytest.mark.parametrize(
    ("server", "read", "text", "said"),
    [
        *(("modbus", coil, text, said) for text, said in COILS.items()),
        *(("opcua", node_id, text, said) for text, said in NODES.items()),
    ],
)
def test_what_cannot_trigger_is_one_line_before_anything_opens(
    server: str, read: Callable[[str], object], text: str, said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(UserError, match="--trigger "):
        read(text)
    words = ["--engine", "none.onnx", "--camera", "0", f"--{server}", "0", f"--trigger={server}:{text}", "--dry-run"]
    assert run_command(infer.main, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


@pytest.mark.parametrize("place", [6, 100, 65535])
def test_another_coil_triggers_and_the_documented_one_does_not(place: int):
    pytest.importorskip("pymodbus")
    from pymodbus.client import AsyncModbusTcpClient

    taken: list[Trigger] = []
    options = ModbusOptions.parse("0", trigger=str(place))

    async def ask(port: int) -> None:
        async with AsyncModbusTcpClient("127.0.0.1", port=port, timeout=20, retries=0) as client:
            assert (await client.write_coil(modbus_map.TRIGGER, True)).exception_code == 2
            assert (await client.write_coil(place - 1, True)).exception_code == 2 and not taken
            await client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers("SN1"))
            assert not (await client.write_coil(place, True)).isError()
            assert [trigger.part for trigger in taken] == ["SN1"]
            coils = (await client.read_coils(0, count=6)).bits[:6]
            assert coils == [False, True, True, False, False, True]  # Ready, Busy, Running
            assert (await client.read_discrete_inputs(place)).bits[0]
            await client.write_coil(place, False)
            assert not (await client.read_coils(place)).bits[0] and len(taken) == 1

    with ModbusServer(options, Board(["a"], PATIENT)) as server:
        server.board.beat()
        server.triggers["modbus"].start(lambda trigger: taken.append(trigger) or "")
        asyncio.run(ask(server.address.port))


@pytest.mark.parametrize("text", ["ns=2;s=Line1.Trigger", "ns=2;i=7", "ns=2;i=2147483647"])
def test_another_node_triggers_in_the_place_of_the_documented_one(text: str):
    pytest.importorskip("asyncua")
    from asyncua import ua

    taken: list[Trigger] = []

    async def ask(port: int) -> None:
        async with connected(port) as line:
            assert line.index == INDEX
            with pytest.raises(ua.UaError):
                await line.client.get_node(f"ns={INDEX};s={START}").write_value(True)
            await line.node("Trigger.PartId").write_value("SN1")
            node = line.client.get_node(text)
            with pytest.raises(ua.UaError):
                await node.write_value("SN1")
            await node.write_value(True)
            assert [trigger.part for trigger in taken] == ["SN1"]
            assert await node.read_value() is True and await line.read("Trigger.Busy") == [True]
            names = {(await child.read_browse_name()).Name for child in await line.node("Trigger").get_children()}
            assert "Start" in names
            await node.write_value(False)
            await node.write_value(True)
            assert len(taken) == 2 and await line.inspect("SN2") == [True, ""]

    with OpcuaServer(OpcuaOptions.parse("0", trigger=text), Board(["a"], PATIENT), About()) as server:
        server.board.beat()
        server.triggers["opcua"].start(lambda trigger: taken.append(trigger) or "")
        asyncio.run(ask(server.address.port))
