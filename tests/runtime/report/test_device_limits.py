"""What a device takes for copies and launches: the probe's calls, counted on a stand-in for the driver."""

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.engines.trt import cuda
from runtime.report import device_limits, limits
from runtime.report.device_limits import COPY_BYTES, LAUNCHES, NOTHING_PTX, gb_s, launch_us, open_device
from runtime.report.models import ModelEntry, ModelFile
from runtime.report.schema import Work
from runtime.report.worker import Subject
from tests.support.fake_cuda_device import FakeDevice, fake_captured_graph, fake_driver


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    device = FakeDevice()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake_driver(device))
    monkeypatch.setattr(cuda, "device_problem", lambda: None)
    monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in")
    monkeypatch.setattr(cuda, "CapturedGraph", fake_captured_graph(device))
    monkeypatch.setattr(device_limits, "COPY_BYTES", 1024)
    return device


def test_a_probe_copies_what_it_wrote_and_launches_from_a_graph(device: FakeDevice) -> None:
    probe = open_device()
    source, target = (thing for thing in device.live if thing.kind == "buffer")
    assert set(source.data) == {0x5A} and set(target.data) == {0xA5}
    assert probe.copy_ms() == 0.25
    assert set(target.data) == {0x5A}
    before = device.calls.count("launch kernel")
    assert probe.launch_ms() == 0.25
    assert device.calls.count("launch kernel") - before == LAUNCHES and device.calls.count("launch") == 1
    probe.close()
    probe.close()
    assert device.live == device.stack == []


@pytest.mark.parametrize("step", ["make buffer", "make graph", "load module", "make event"])
def test_a_probe_that_fails_leaves_nothing(step: str, device: FakeDevice) -> None:
    device.fail = step
    with pytest.raises(UserError, match=f"must be measured; found {step} failed"):
        open_device()
    assert device.live == device.stack == []


def test_rates_are_of_bytes_read_and_written_and_of_one_launch() -> None:
    assert gb_s(1.0) == pytest.approx(2 * COPY_BYTES / 1e6) and launch_us(2.0) == pytest.approx(2000 / LAUNCHES)


@pytest.mark.skipif(cuda.device_problem() is None, reason="a CUDA device is here")
def test_without_a_device_there_are_no_limits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the device's limits need a CUDA device; found"):
        open_device()
    file = ModelFile("graph", tmp_path / "products-fp32.plan")
    product = ModelEntry("product", "", (128, 2048), "fp32", 1, file, None, Work(1e9, 1e6, 1e3))
    assert limits.measure_limits((product,), Subject("", {}, (0, 0)), 1, bfloat16=False) is None


class ChosenWorker:
    """A worker without a process, whose runs take what is chosen, the second one least."""

    def __init__(self, subject: Subject) -> None:
        self.paths = list(subject.paths)
        self._ms = {"copy": 2.0, "launch": 3.0, "network": 10.0}
        self._factors = itertools.cycle((1.5, 1.0, 1.2))

    def run(self, path: str, batch: int = 1, warm: int = 1, count: int = 1) -> list[dict[str, float]]:
        return [{path: self._ms[path] * next(self._factors)} for _ in range(count)]

    def __enter__(self) -> "ChosenWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_limits_of_a_device_are_the_best_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "Worker", ChosenWorker)
    file = ModelFile("graph", tmp_path / "products-fp16.plan")
    product = ModelEntry("product", "", (128, 2048), "fp16", 1, file, None, Work(5e9, 1e6, 1e3, "float16"))
    found = limits.measure_limits((product,), Subject("", {}, (0, 0)), 1, bfloat16=False)
    assert found.gflops == {"float16": 500.0}  # 5e9 operations in 10 ms
    assert found.read_gb_s == pytest.approx(gb_s(2.0), abs=0.01) and found.launch_us == pytest.approx(launch_us(3.0))
    slower = replace(found, gflops={"float16": 400.0}, launch_us=4.0)
    assert limits.merged(slower, found) == found


def test_the_empty_kernel_compiles(tmp_path: Path) -> None:
    ptxas = shutil.which("ptxas") or next(Path(sys.prefix).glob("lib/python3*/site-packages/**/bin/ptxas"), None)
    if ptxas is None:
        pytest.skip("ptxas is not installed")
    (tmp_path / "nothing.ptx").write_bytes(NOTHING_PTX)
    command = [str(ptxas), "--gpu-name", "sm_90", str(tmp_path / "nothing.ptx"), "-o", str(tmp_path / "nothing.cubin")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "nothing.cubin").stat().st_size > 0


@pytest.mark.gpu
def test_a_real_device_copies_and_launches() -> None:
    if (problem := cuda.device_problem()) is not None:
        pytest.skip(f"needs a CUDA device: {problem}")
    pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    probe = open_device()
    copy_ms, launch_ms = (min(measure() for _ in range(5)) for measure in (probe.copy_ms, probe.launch_ms))
    probe.close()
    # from the smallest Jetson (68 GB/s, its memory shared with the CPU) to HBM; a launch within a graph
    assert 10 < gb_s(copy_ms) < 20_000 and 0.1 < launch_us(launch_ms) < 50
