"""The OPC UA server's nodes, read and triggered by asyncua's own client."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import LINE, SOURCE
from runtime.triggers.trigger import Trigger
from tests.support.controllers import judged
from tests.support.opcua_client import Line
from tests.support.opcua_server import ask, open_server, read


@pytest.fixture(scope="module")
def server() -> Iterator[OpcuaServer]:
    """On this machine alone, unencrypted."""
    with open_server() as server:
        yield server


def test_an_answer_is_read_by_the_documented_names(server: OpcuaServer):
    server.write(judged("b", Trigger("SN-7", 1.0, "http"), 1.5))
    found = dict(
        zip((node.name for node in SOURCE), read(server, *(f"Source2.{node.name}" for node in SOURCE)), strict=True)
    )
    created = found.pop("CreationTime")
    assert abs(created.timestamp() - time.time()) < 3600
    assert found.pop("Sequence") == found.pop("Total") == found.pop("Anomalous") >= 1
    assert found == {
        "Name": "b", "Verdict": "anomalous", "VerdictCode": 2, "Reason": "", "ReasonCode": 0, "Score": 1.5,
        "Threshold": 1.0, "PartId": "SN-7", "Late": False, "Good": 0, "None": 0, "LateTotal": 0,
            "Recipe": "", "ModelHash": "",
    }  # fmt: skip
    assert read(server, "SoftwareVersion", "Engine", "ModelHash") == ["0.1.0", "cable.onnx", "ab" * 32]


def test_node_ids_and_types_are_those_of_the_table(server: OpcuaServer):
    async def look(line: Line) -> None:
        for name, node in [(n.name, n) for n in LINE] + [(f"Source2.{n.name}", n) for n in SOURCE]:
            found = line.node(name)
            assert (await found.read_data_type_as_variant_type()).name == node.kind
            assert (await found.read_browse_name()).Name == name.rpartition(".")[2]
            level = await found.get_user_access_level()
            assert (ua.AccessLevel.CurrentWrite in level) == node.writable
        below = {(await child.read_browse_name()).Name for child in await line.node().get_children()}
        assert {"Source1", "Source2", "Trigger", "Inspect", "Heartbeat"} <= below

    ask(server, look)


def test_only_what_is_the_controllers_can_be_written_and_only_as_its_type(server: OpcuaServer):
    server.write(judged())

    async def write(line: Line) -> None:
        for name in [node.name for node in LINE if not node.writable] + [f"Source1.{node.name}" for node in SOURCE]:
            with pytest.raises(ua.UaError):
                await line.node(name).write_value(await line.node(name).read_value())
        for name, value in (
            ("Trigger.Start", ua.Variant(1, ua.VariantType.Int16)),
            ("Trigger.PartId", ua.Variant(7, ua.VariantType.UInt32)),
            ("Trigger.PartId", ua.Variant("x" * 101)),
            ("Trigger.PartId", ua.Variant(["a"], ua.VariantType.String)),
            ("ControllerHeartbeat", ua.Variant("1")),
            ("Trigger.Start", ua.Variant(None, ua.VariantType.Null)),
        ):
            with pytest.raises(ua.UaError):
                await line.node(name).write_value(value)
        with pytest.raises(ua.UaError):
            await line.node().add_variable(ua.NodeId("Mine", line.index), f"{line.index}:Mine", 1)
        with pytest.raises(ua.UaError):
            await line.client.delete_nodes([line.node("Heartbeat")])
        with pytest.raises(ua.UaError):
            await line.inspect(5)

    ask(server, write)
    assert read(server, "Source1.Verdict") == ["good"]


def test_the_method_takes_a_part_or_says_why_not(server: OpcuaServer):
    taken: list[Trigger] = []

    async def call(line: Line) -> list[list[Any]]:
        refused = await line.inspect("SN1")
        server.triggers["opcua"].start(lambda trigger: taken.append(trigger) or "")
        return [refused, await line.inspect("SN2"), await line.inspect(""), await line.inspect("x" * 101)]

    first, *others = ask(server, call)
    server.triggers["opcua"].close()
    assert first == [False, "no trigger is taken from here"]
    assert [accepted for accepted, _ in others] == [True, True, False] and "printable" in others[2][1]
    assert [trigger.part for trigger in taken] == ["SN2", ""]


def test_who_subscribes_is_told_of_the_sequence_after_everything_else(server: OpcuaServer):
    told: list[tuple[str, Any]] = []

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            told.append((str(node.nodeid.Identifier).rpartition(".")[2], value))

    async def run(line: Line) -> None:
        subscription = await line.client.create_subscription(20, Handler())
        names = ("Source1.Sequence", "Source1.PartId", "Source1.Verdict")
        await subscription.subscribe_data_change([line.node(name) for name in names])
        for _ in range(100):
            await asyncio.sleep(0.05)
            if len(told) >= 3:
                break
        told.clear()
        await asyncio.to_thread(server.write, judged(trigger=Trigger("subscribed", 1.0, "http"), score=1.5))
        for _ in range(200):
            await asyncio.sleep(0.05)
            if told and told[-1][0] == "Sequence":
                break

    server.write(judged(trigger=Trigger("before", 1.0, "http")))
    ask(server, run)
    names = [name for name, _ in told]
    assert ("PartId", "subscribed") in told and ("Verdict", "anomalous") in told
    assert names.index("Sequence") > max(names.index("PartId"), names.index("Verdict"))


def test_more_than_a_message_is_not_waited_for(server: OpcuaServer):
    with socket.create_connection(("127.0.0.1", server.address.port), timeout=30) as connection:
        ended = False
        try:
            connection.sendall(b"HELF\xff\xff\xff\x7f" + b"x" * (1 << 18))
            ended = connection.recv(1) == b""
        except ConnectionError:
            ended = True
        assert ended
