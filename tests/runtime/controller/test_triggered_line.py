"""A controller triggers a real inspection: each part gets the verdict of its own frame, or is late and says so."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymodbus")

from pymodbus.client import AsyncModbusTcpClient

from runtime.controller import modbus_map
from runtime.controller.board import Board, Limits
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.detector import load
from runtime.inspection import Inspection
from runtime.sinks.delivery import Deliveries
from runtime.triggers.orders import Orders, TriggerOptions
from tests.support.controlled_source import ControlledSource
from tests.support.judgements import judgement
from tests.support.tiny_engine import write_tiny_engine

PARTS = 60


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    board = Board(["line"], Limits(safe_after_s=600.0, valid_s=600.0))
    with ModbusServer(ModbusOptions.parse("0"), board) as server:
        yield server


async def _inspect(client: AsyncModbusTcpClient, part: str) -> tuple[str, int, int]:
    """Ask for one part with the whole handshake; return the answer's part, verdict and reason."""
    await client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers(part))
    await client.write_coil(modbus_map.TRIGGER, True)
    deadline = time.monotonic() + 120
    while not (await client.read_discrete_inputs(3)).bits[0]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    block = (await client.read_input_registers(modbus_map.BLOCK, count=modbus_map.SIZE)).registers
    await client.write_coil(modbus_map.TRIGGER, False)
    return modbus_map.text_of(block[20:36]), block[2], block[3]


def _run(server: ModbusServer, folder: Path, options: TriggerOptions, levels: list[int]) -> Any:
    orders = Orders(options)
    source = ControlledSource("line", False, *levels)

    async def parts() -> list[tuple[str, int, int]]:
        async with AsyncModbusTcpClient("127.0.0.1", port=server.address.port, timeout=60) as client:
            return [await _inspect(client, f"SN{number}") for number in range(PARTS)]

    with load(write_tiny_engine(folder), threads=1) as detector, Deliveries([server]) as deliveries:
        inspection = Inspection([source], detector, [deliveries], orders=orders)
        server.board.watch(inspection.states)
        server.triggers["modbus"].start(orders.take)
        running = threading.Thread(target=inspection.run, args=(server.board.beat,))
        running.start()
        try:
            return asyncio.run(parts())
        finally:
            inspection.stop()
            source.put(None)
            inspection.close()
            running.join()


def test_each_part_gets_the_verdict_of_its_own_frame(server: ModbusServer, tmp_path: Path):
    levels = [200 if number % 3 == 0 else 20 for number in range(PARTS)]
    answers = _run(server, tmp_path, TriggerOptions(deadline_s=60.0), levels)
    assert answers == [(f"SN{number}", 2 if number % 3 == 0 else 1, 0) for number in range(PARTS)]


def test_a_part_without_a_frame_is_late_and_never_another_parts(server: ModbusServer, tmp_path: Path):
    answers = _run(server, tmp_path, TriggerOptions(deadline_s=0.05), [])
    assert answers == [(f"SN{number}", 0, 2) for number in range(PARTS)]


def test_the_lines_decision_is_what_a_controller_reads(server: ModbusServer):
    server.board.beat()
    one = replace(judgement(0, 0.5, "line"), judged_s=time.monotonic())
    for decision in ("anomalous", "none", None):
        server.write(replace(one, decision=decision))
        [answer] = server.board.shown()
        assert answer.verdict == (decision or "good") and bool(answer.reason) == (decision == "none")
