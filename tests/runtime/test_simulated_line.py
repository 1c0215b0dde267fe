"""A line as it runs: a controller asks by Modbus, a GigE Vision camera takes a picture, the answer is read and logged.

The camera is Aravis' own over the loopback, the controller pymodbus' own client, the inspection the real command.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.controller.modbus_map import BITS, BLOCK, LINE, SIZE, SOURCE, text_registers
from runtime.records.read import Query, judgements
from tests.support.genicam import GvCamera, gv_camera, needs_gv_camera
from tests.support.modbus import decoded
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

modbus_client = pytest.importorskip("pymodbus.client")
PARTS = 200
CAMERA_GOES, CAMERA_RETURNS, CONTROLLER_GOES = 60, 64, 120  # before these parts
BACK_WITHIN = 10  # parts
DEADLINE_MS = 3000  # what a busy test machine keeps


class Controller:
    """A PLC's program: it asks for a part by the documented handshake, and reads the answer."""

    def __init__(self, port: int) -> None:
        self.client = modbus_client.ModbusTcpClient("127.0.0.1", port=port, timeout=20)
        assert self.client.connect()

    def close(self) -> None:
        self.client.close()

    def bits(self) -> dict[str, bool]:
        return dict(zip(BITS, self.client.read_discrete_inputs(0, count=len(BITS)).bits, strict=False))

    def ask(self, part: str) -> None:
        [place] = [row.address for row in LINE if row.name == "TriggerPartId"]
        assert not self.client.write_registers(place, text_registers(part)).isError()
        assert not self.client.write_coil(0, True).isError()

    def answer(self) -> dict[str, Any]:
        wait_until(lambda: self.bits()["Done"], "no answer")
        assert not self.bits()["Refused"]
        answer = decoded(self.client.read_input_registers(BLOCK, count=SIZE).registers, SOURCE)
        self.client.write_coil(0, False)
        wait_until(lambda: not self.bits()["Done"])
        return answer


@contextmanager
def _inspection(engine: Path, camera: GvCamera, folder: Path) -> Iterator[int]:
    """Run the command and yield the port of its Modbus server."""
    words = ["--engine", engine, "--camera", f"genicam:{camera.id}", "--camera-size", "64x48", "--modbus", "0"]
    words += ["--camera-trigger", "software", "--trigger", "modbus", "--deadline", DEADLINE_MS, "--stall-after", 1]
    words += ["--log", folder / "line.db", "--json-file", folder / "line.jsonl"]
    command = [sys.executable, "-m", "runtime.infer", *map(str, words)]
    with (folder / "said").open("wb") as said:
        run = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
    try:
        yield int(_found(folder / "said", r"Modbus 127\.0\.0\.1:(\d+): listening"))
    finally:
        run.terminate()
        assert run.wait(60) == 143, (folder / "said").read_text()


def _found(path: Path, pattern: str) -> str:
    wait_until(lambda: re.search(pattern, path.read_text()), f"never said {pattern}")
    found = re.search(pattern, path.read_text())
    assert found is not None
    return found[1]


def _play(port: int, camera: GvCamera) -> list[dict[str, Any]]:
    """Ask for `PARTS` parts, one after the other, and return what was read; camera and controller are lost once."""
    answers = []
    controller = Controller(port)
    wait_until(lambda: controller.bits()["Ready"])
    for number in range(PARTS):
        if number == CAMERA_GOES:
            camera.kill()
        if number == CAMERA_RETURNS:
            camera.start()
        controller.ask(f"SN-{number:04d}")
        if number == CONTROLLER_GOES:  # its cable is pulled while it waits
            controller.close()
            controller = Controller(port)
        answers.append(controller.answer())
    controller.close()
    return answers


@needs_gv_camera
@pytest.mark.slow
def test_every_part_gets_its_own_answer_though_camera_and_controller_are_lost(tmp_path: Path):
    engine = write_tiny_engine(tmp_path)
    with gv_camera("CF09") as camera, _inspection(engine, camera, tmp_path) as port:
        answers = _play(port, camera)
    assert [answer["PartId"] for answer in answers] == [f"SN-{number:04d}" for number in range(PARTS)]
    assert [answer["Sequence"] for answer in answers] == list(range(1, PARTS + 1))
    none = {number for number, answer in enumerate(answers) if answer["Verdict"] == 0}
    lost = set(range(CAMERA_GOES, CAMERA_RETURNS))
    assert lost <= none <= lost | set(range(CAMERA_RETURNS, CAMERA_RETURNS + BACK_WITHIN))
    assert {answers[number]["ReasonCode"] for number in none} == {2} and answers[-1]["Late"] == len(none)  # late ones

    with closing(judgements(tmp_path / "line.db", Query(), newest_first=False)) as found:
        records = [record for record in found if record["answer"]]
    assert [record["part"] for record in records] == [answer["PartId"] for answer in answers]
    codes = {"none": 0, "good": 1, "anomalous": 2}
    assert [codes[record["verdict"]] for record in records] == [answer["Verdict"] for answer in answers]
    judged = [record for record in records if record["verdict"] != "none"]
    assert len(judged) >= PARTS - len(lost) - BACK_WITHIN
    assert all(record["asked"] <= record["time"] for record in judged)  # exposed after it was asked for
    assert max(Counter(record["name"] for record in records).values()) == 1  # no picture answers twice
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines if line.get("answer", True)] == [record["part"] for record in records]
