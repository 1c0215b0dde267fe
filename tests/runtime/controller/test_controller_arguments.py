"""The command line of the servers for controllers, and the inspection with one of them."""

import argparse
import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.common.errors import run_command
from runtime.controller.arguments import add_arguments, check_arguments, servers_from
from runtime.detector import load
from runtime.inspection import Inspection
from runtime.sinks.delivery import Deliveries
from tests.support.controlled_source import ControlledSource
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine


def _parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    check_arguments(parser, args)
    return args


def test_nothing_asked_for_is_nothing_opened():
    assert servers_from(_parse(), ["a"]) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--opcua-credentials", "x"), "--opcua-credentials needs --opcua"),
        (("--opcua-folder", "x"), "--opcua-folder needs --opcua"),
        (("--modbus-open",), "--modbus-open needs --modbus"),
        (("--modbus-allow", "10.0.0.1"), "--modbus-allow needs --modbus"),
        (("--modbus", "5020", "--safe-after", "0"), "--safe-after must be above 0 seconds"),
        (("--modbus", "5020", "--verdict-valid", "0"), "--verdict-valid must be above 0 seconds"),
    ],
)
def test_a_wrong_command_line_is_status_2(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        _parse(*words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_the_options_load_no_library():
    program = """
import argparse, sys
from runtime.controller.arguments import add_arguments
parser = argparse.ArgumentParser()
add_arguments(parser)
parser.format_help()
sys.exit(bool({"asyncua", "pymodbus", "cryptography", "numpy", "asyncio"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("words", "library", "said"),
    [
        (("--modbus", "0"), "pymodbus", "--modbus needs pymodbus; found"),
        (("--opcua", "0"), "asyncua", "--opcua needs asyncua; found"),
        (("--modbus", "0.0.0.0:0"), "", "Modbus has no passwords"),
        (("--opcua", "0.0.0.0:0"), "", "needs user and password"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    tmp_path: Path,
    words: tuple[str, ...],
    library: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    Image.fromarray(np.zeros((24, 36, 3), np.uint8)).save(tmp_path / "0.png")
    engine = write_tiny_engine(tmp_path)
    if library:
        ours = {"runtime.controller.modbus_server", "runtime.controller.opcua_server"}
        for name in [name for name in sys.modules if name in ours or name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)
    command = ["--engine", str(engine), "--source", str(tmp_path / "0.png"), *words]
    assert run_command(infer.main, command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_a_run_serves_every_verdict_and_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("pymodbus")
    Image.fromarray(np.full((24, 36, 3), 200, np.uint8)).save(tmp_path / "0.png")
    engine = write_tiny_engine(tmp_path)
    command = ["--engine", str(engine), "--source", str(tmp_path / "0.png"), "--modbus", "0"]
    assert run_command(infer.main, command) == 0
    said = capsys.readouterr()
    assert "1 frames: 0 good, 1 anomalous" in said.out and "Modbus 127.0.0.1:" in said.err


class _Camera(ControlledSource):
    """One that can be lost."""

    state = "live"


def test_the_inspections_verdicts_reach_the_registers(tmp_path: Path):
    """A real engine, one camera of two that is lost, and a client that polls."""
    pytest.importorskip("pymodbus")
    from pymodbus.client import AsyncModbusTcpClient

    from runtime.controller.modbus import ModbusServer

    names = ("left", "right")
    sources = [_Camera(name, True) for name in names]
    [server] = servers_from(_parse("--modbus", "0", "--verdict-valid", "600", "--safe-after", "600"), names)
    assert isinstance(server, ModbusServer)

    async def look(until: tuple[list[int], list[int]]) -> None:
        """Wait for (sequence, verdict, reason) of both sources."""
        async with AsyncModbusTcpClient("127.0.0.1", port=server.address.port, timeout=30) as client:
            deadline = time.monotonic() + 120
            while True:
                blocks = [(await client.read_input_registers(base, count=4)).registers[1:] for base in (100, 200)]
                if tuple(blocks) == until:
                    return
                assert time.monotonic() < deadline, blocks
                await asyncio.sleep(0.02)

    with load(write_tiny_engine(tmp_path), threads=1) as detector:
        deliveries = Deliveries([server])
        inspection = Inspection(sources, detector, [deliveries])
        server.board.watch(inspection.states)
        running = threading.Thread(target=inspection.run, args=(server.board.beat,))
        running.start()
        try:
            for number in range(1, 21):
                sources[0].put(200 if number % 2 else 20)
                sources[1].put(20)
                asyncio.run(look(([number, 2 if number % 2 else 1, 0], [number, 1, 0])))
            sources[1].state = "reconnecting since 2026-03-01T12:00:00+00:00 (unplugged)"
            asyncio.run(look(([20, 1, 0], [20, 0, 5])))
            sources[1].state = "live"
            sources[1].put(20)
            asyncio.run(look(([20, 1, 0], [21, 1, 0])))
        finally:
            inspection.stop()
            running.join()
            inspection.close()
            deliveries.close()
    assert [counts.undelivered for counts in deliveries.counts()] == [0]
