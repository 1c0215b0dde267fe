"""What a report tells of its machine, from commands that are made up here and from this one; its memory's speed."""

import math
import platform
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.engines.trt import cuda
from runtime.report import bandwidth, machine
from runtime.report.bandwidth import read_gb_s
from runtime.report.machine import ask_command, describe_machine, gpu_values

GPU = {
    "name": "NVIDIA Test 9000",
    "driver_version": "570.1.2",
    "clocks.sm": "1410",
    "clocks.max.sm": "1980",
    "clocks.mem": "2619",
    "power.limit": "350.00",
}
JETSON = {**dict.fromkeys(GPU, "[N/A]"), "name": "Orin (nvgpu)", "driver_version": "N/A"}  # what its tool knows


@pytest.fixture(autouse=True)
def all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def tools(monkeypatch: pytest.MonkeyPatch, gpu: dict[str, str], **others: str) -> None:
    """Let nvidia-smi know `gpu`, and other commands print `others`."""

    def ask(command: Sequence[str]) -> str:
        if command[0] != "nvidia-smi":
            return others.get(command[0], "")
        fields = next(part for part in command if part.startswith("--query-gpu=")).partition("=")[2].split(",")
        assert {"--format=csv,noheader,nounits", "--id=0"} <= set(command)
        return ", ".join(gpu[field] for field in fields) if set(fields) <= set(gpu) else "Field is not valid"

    monkeypatch.setattr(machine, "ask_command", ask)


def test_this_machine_describes_itself() -> None:
    found = describe_machine()
    assert found.device and found.operating_system.endswith(platform.machine()) and found.cores >= 1
    assert found.versions["python"] == platform.python_version() and found.versions["numpy"] == np.__version__
    assert all(found.versions.values())


def test_a_gpu_is_named_before_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    tools(monkeypatch, GPU)
    found = describe_machine()
    assert found.device.startswith("NVIDIA Test 9000, ") and found.driver == "570.1.2"
    assert found.clocks.startswith("GPU SM 1410 MHz; GPU SM at most 1980 MHz; GPU memory 2619 MHz")
    assert "GPU limit in W: 350.00" in found.power_mode


def test_a_jetson_tells_its_mode_and_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tools(monkeypatch, JETSON, nvpmodel="NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2")
    found = describe_machine()
    assert found.device.startswith("Orin (nvgpu), ") and "GPU" not in found.clocks and found.driver == ""
    assert found.power_mode.startswith("nvpmodel MAXN_SUPER") and "GPU limit" not in found.power_mode


@pytest.mark.parametrize("printed", ["", "No devices were found", "a, b, c", "\n"])
def test_a_message_is_no_value(printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ask_command", lambda command: printed)
    assert gpu_values(["name", "clocks.sm"]) == {}


@pytest.mark.parametrize(("visible", "asked"), [("2,0", "--id=2"), ("GPU-1b2c", "--id=GPU-1b2c"), ("", ""), ("-1", "")])
def test_the_gpu_asked_for_is_the_first_visible_one(visible: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(machine, "ask_command", lambda command: str(commands.append(command)))
    gpu_values(["name"])
    assert [command[-1] for command in commands] == ([asked] if asked else [])


def test_no_library_is_imported_to_learn_its_version() -> None:
    code = (
        "import sys\n"
        "from runtime.report.machine import describe_machine\n"
        "describe_machine()\n"
        "libraries = 'PIL cv2 onnxruntime openvino tensorrt tensorrt_rtx pycuda torch torchvision onnx anomalib'\n"
        "print([name for name in libraries.split() if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "timeout_s", "answer"),
    [
        ([sys.executable, "-c", "print(' two\\nlines ')"], 60, "two\nlines"),
        ([sys.executable, "-c", "import sys; print('said'); sys.exit(3)"], 60, ""),
        ([sys.executable, "-c", "import time; print('said', flush=True); time.sleep(60)"], 0.2, ""),
        (["no-such-command-anywhere"], 60, ""),
    ],
    ids=["prints", "fails", "hangs", "missing"],
)
def test_a_command_that_gives_no_answer_gives_an_empty_one(command: list[str], timeout_s: float, answer: str) -> None:
    assert ask_command(command, timeout_s) == answer


def test_a_driver_that_fails_names_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise cuda.CudaError("cuDeviceGet: CUDA_ERROR_UNKNOWN")

    tools(monkeypatch, {})
    monkeypatch.setattr(cuda, "device_problem", lambda: None)
    monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in 5")
    assert describe_machine().device.startswith("Stand-in 5, ")
    monkeypatch.setattr(cuda, "device_name", fail)
    assert "Stand-in" not in describe_machine().device


def test_bandwidth_counts_the_bytes_read_over_the_best_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def kernel(part: np.ndarray) -> None:
        assert part.min() == part.max() == 1  # written, and so in memory of its own
        read.append(part.nbytes)

    clock = iter(np.cumsum([0, 0.5, 1, 0.25, 1, 0.5, 1, 9]).tolist())
    monkeypatch.setattr(bandwidth, "KERNELS", (kernel,))
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(clock))
    assert read_gb_s(2, 0.0, 2**21) == pytest.approx(2 * 2**20 / 0.25 / 1e9)
    assert read == [2**20] * 2 * bandwidth.LEAST_PASSES


@pytest.mark.parametrize("place", [slice(0, 8), slice(-8, None)])
def test_kernels_read_from_the_first_byte_to_the_last(place: slice) -> None:
    part = np.zeros(3 * 4096, np.uint8)
    part[place] = 0x40
    found = [kernel(part) for kernel in bandwidth.KERNELS]
    # in float32, 0x40404040 is 2^(128 - 127) · (1 + 0x404040 / 2^23)
    assert found == [0x4040404040404040, 0x40, 2.0 * (1 + 0x404040 / 2**23)]


def test_bandwidth_of_this_machine_is_a_number_and_needs_a_thread() -> None:
    speed = read_gb_s(2, 0.01, 2**21)  # so few bytes that it is the caches' speed, to be quick
    assert math.isfinite(speed) and speed > 0
    with pytest.raises(UserError, match=r"threads must be 1 or more; found 0"):
        read_gb_s(0)
