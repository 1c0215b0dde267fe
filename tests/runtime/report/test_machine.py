"""What a report tells of its machine, from trees and commands that are made up here; and its memory's speed."""

import math
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.engines.trt import cuda
from runtime.report import bandwidth
from runtime.report.bandwidth import available_bytes, last_level_cache_bytes, read_gb_s
from runtime.report.machine import ask_command, cuda_device, describe_machine, gpu_values

CPU = "sys/devices/system/cpu"
DESKTOP = {
    "etc/os-release": 'NAME="Some"\nPRETTY_NAME="Some Linux 12 (worm)"\nID=some\n',
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: A Fast CPU @ 3.00GHz\ncpu MHz\t\t: 1234.567\n\n"
    "processor\t: 1\nmodel name\t: Another\ncpu MHz\t\t: 2999.900\n",
}
CPUFREQ = {
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "801000\n",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "4195500\n",
    f"{CPU}/cpu10/cpufreq/scaling_cur_freq": "<unknown>\n",
    f"{CPU}/cpu0/cpufreq/scaling_max_freq": "4800000\n",
    f"{CPU}/cpu1/cpufreq/scaling_max_freq": "4800000\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/intel_pstate/no_turbo": "1\n",
}
GPU = {
    "name": "NVIDIA Test 9000",
    "driver_version": "570.1.2",
    "clocks.sm": "1410",
    "clocks.max.sm": "1980",
    "clocks.mem": "2619",
    "clocks.max.mem": "2619",
    "power.limit": "350.00",
    "power.default_limit": "400.00",
}
ORIN = {**dict.fromkeys(GPU, "[N/A]"), "name": "Orin (nvgpu)", "driver_version": "N/A"}  # what a Jetson's tool knows


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def nvidia_smi(gpu: dict[str, str], **others: str) -> Callable[[Sequence[str]], str]:
    """A machine whose nvidia-smi knows `gpu`, and whose other commands print `others`."""

    def ask(command: Sequence[str]) -> str:
        if command[0] != "nvidia-smi":
            return others.get(command[0], "")
        fields = next(part for part in command if part.startswith("--query-gpu=")).partition("=")[2].split(",")
        assert {"--format=csv,noheader,nounits", "--id=0"} <= set(command)
        return ", ".join(gpu[field] for field in fields) if set(fields) <= set(gpu) else "Field is not valid"

    return ask


def nothing(command: Sequence[str]) -> str:
    return ""


def no_gpu() -> str:
    return ""


@pytest.fixture(autouse=True)
def all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_desktop_without_a_gpu(tmp_path: Path):
    machine = describe_machine(tree(tmp_path, DESKTOP | CPUFREQ), nothing, no_gpu)
    assert machine.device == "A Fast CPU @ 3.00GHz"
    assert machine.cores >= 1
    assert machine.operating_system == f"Some Linux 12 (worm) {platform.machine()}"
    assert machine.driver == ""
    assert machine.clocks == "CPU 801 to 4196 MHz, CPU limit 4800 MHz"
    assert machine.power_mode == "CPU governor performance/powersave, turbo off"
    assert machine.versions["python"] == platform.python_version()
    assert machine.versions["numpy"] == np.__version__


def test_a_virtual_machine_tells_its_clock_in_cpuinfo_alone(tmp_path: Path):
    machine = describe_machine(tree(tmp_path, DESKTOP), nothing, no_gpu)
    assert (machine.clocks, machine.power_mode) == ("CPU 1235 to 3000 MHz", "")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({f"{CPU}/intel_pstate/no_turbo": "0\n"}, "turbo on"),
        ({f"{CPU}/cpufreq/boost": "1\n"}, "turbo on"),
        ({f"{CPU}/cpufreq/boost": "0\n"}, "turbo off"),
        ({f"{CPU}/cpufreq/boost": "perhaps\n"}, ""),
    ],
)
def test_the_two_switches_of_turbo_are_opposite(tmp_path: Path, files: dict[str, str], said: str):
    assert describe_machine(tree(tmp_path, files), nothing, no_gpu).power_mode == said


def test_a_gpu_is_named_before_its_host(tmp_path: Path):
    machine = describe_machine(tree(tmp_path, DESKTOP), nvidia_smi(GPU), no_gpu)
    assert machine.device == "NVIDIA Test 9000, A Fast CPU @ 3.00GHz"
    assert machine.driver == "570.1.2"
    assert machine.clocks == "GPU SM 1410 of 1980 MHz, memory 2619 of 2619 MHz; CPU 1235 to 3000 MHz"
    assert machine.power_mode == "GPU limit 350 W (default 400 W)"
    unlimited = nvidia_smi(GPU | {"power.limit": "400.00"})
    assert describe_machine(tmp_path, unlimited, no_gpu).power_mode == "GPU limit 400 W"


def test_a_jetson_is_its_board_and_nothing_is_made_up(tmp_path: Path):
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64\n",
        "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\n",
        f"{CPU}/cpu0/cpufreq/scaling_governor": "schedutil\n",
    }
    ask = nvidia_smi(ORIN, nvpmodel="NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN_SUPER\n2")
    machine = describe_machine(tree(tmp_path, files), ask, no_gpu)
    assert machine.device == "Orin (nvgpu), NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.driver == "L4T 36.4.3"
    assert machine.clocks == ""
    assert machine.power_mode == "nvpmodel MAXN_SUPER; CPU governor schedutil"


def test_the_driver_names_a_gpu_that_nvidia_smi_does_not(tmp_path: Path):
    machine = describe_machine(tree(tmp_path, DESKTOP), nothing, lambda: "Orin")
    assert (machine.device, machine.driver) == ("Orin, A Fast CPU @ 3.00GHz", "")


def test_without_files_and_commands_only_python_speaks(tmp_path: Path):
    machine = describe_machine(tmp_path, nothing, no_gpu)
    assert machine.operating_system == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert machine.device in (platform.processor(), platform.machine())
    assert (machine.driver, machine.clocks, machine.power_mode) == ("", "", "")


def test_files_that_cannot_be_read_are_as_missing(tmp_path: Path):
    for name in ("proc/cpuinfo", "proc/device-tree/model", "etc/os-release", f"{CPU}/cpu0/cpufreq/scaling_cur_freq"):
        (tmp_path / name).mkdir(parents=True)  # reading one is an OSError, for root as well
    (tmp_path / f"{CPU}/intel_pstate").mkdir()
    (tmp_path / f"{CPU}/intel_pstate/no_turbo").write_bytes(b"\xff\xfe")
    machine = describe_machine(tmp_path, nothing, no_gpu)
    assert (machine.clocks, machine.power_mode) == ("", "")


@pytest.mark.parametrize("printed", ["", "No devices were found", "a, b, c", "\n"])
def test_a_message_is_no_value(printed: str):
    assert gpu_values(["name", "clocks.sm"], lambda command: printed) == {}


@pytest.mark.parametrize(("visible", "asked"), [("2,0", "--id=2"), ("GPU-1b2c", "--id=GPU-1b2c"), ("", ""), ("-1", "")])
def test_the_gpu_asked_for_is_the_first_visible_one(monkeypatch: pytest.MonkeyPatch, visible: str, asked: str):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands: list[Sequence[str]] = []
    gpu_values(["name"], lambda command: str(commands.append(command)))
    assert [command[-1] for command in commands] == ([asked] if asked else [])


def test_versions_are_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, version in (("anomalib", "99.1"), ("opencv_contrib_python", "98.2"), ("pycuda", "")):
        metadata = f"Metadata-Version: 2.1\nName: {name}\n" + (f"Version: {version}\n" if version else "")
        tree(tmp_path, {f"{name}-{version or 1}.dist-info/METADATA": metadata})
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    versions = describe_machine(tmp_path, nothing, no_gpu).versions
    assert versions == {"python": platform.python_version(), "opencv": "98.2", "anomalib": "99.1"}


def test_no_library_is_imported_to_learn_its_version():
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
        (["/"], 60, ""),
    ],
    ids=["prints", "fails", "hangs", "missing", "no program"],
)
def test_a_command_that_gives_no_answer_gives_an_empty_one(command: list[str], timeout_s: float, answer: str):
    assert ask_command(command, timeout_s) == answer


def test_this_machine_describes_itself():
    machine = describe_machine()
    assert machine.device and machine.operating_system
    assert machine.cores >= 1


def test_a_driver_that_fails_names_no_gpu(monkeypatch: pytest.MonkeyPatch):
    def fail() -> str:
        raise cuda.CudaError("cuDeviceGet: CUDA_ERROR_UNKNOWN")

    monkeypatch.setattr(cuda, "device_problem", lambda: None)
    monkeypatch.setattr(cuda, "device_name", fail)
    assert cuda_device() == ""
    monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in 5")
    assert cuda_device() == "Stand-in 5"
    monkeypatch.setattr(cuda, "device_problem", lambda: "no libcuda.so.1")
    assert cuda_device() == ""


def one_second_passes(*shorter: float) -> Iterator[float]:
    """A clock whose first passes last `shorter`, the others a second."""
    now = 100.0
    for duration in [*shorter, *[1.0] * 1000]:
        yield now
        now += duration
        yield now


def small_machine(root: Path) -> Path:
    return tree(root, {"proc/meminfo": "MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable: 8192 kB\n"})


def test_bandwidth_counts_the_bytes_read_over_the_best_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """8 MiB are available, a quarter is used: two arrays of 1 MiB."""
    read: list[int] = []

    def kernel(part: bandwidth.Part) -> None:
        assert part.min() == part.max() == 1  # written, and so in memory of its own
        read.append(part.nbytes)

    monkeypatch.setattr(bandwidth, "KERNELS", (kernel,))
    clock = one_second_passes(0.5, 0.25, 0.5)
    speed = read_gb_s(2, 5.0, small_machine(tmp_path), lambda: next(clock))
    assert speed == pytest.approx(2 * 1048576 / 0.25 / 1e9)
    assert read == [1048576] * 2 * 7  # 0.5 + 0.25 + 0.5 + 4 · 1 is the first sum of 5 s or more


def test_bandwidth_lets_every_kernel_run_three_times_at_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[str] = []
    monkeypatch.setattr(bandwidth, "KERNELS", (lambda part: ran.append("a"), lambda part: ran.append("b")))
    clock = one_second_passes()
    read_gb_s(1, 0.0, small_machine(tmp_path), lambda: next(clock))
    assert ran == ["a", "b"] * 3


@pytest.mark.parametrize("place", [slice(0, 8), slice(-8, None)])
def test_kernels_read_from_the_first_byte_to_the_last(place: slice):
    part = np.zeros(3 * 4096, np.uint8)
    part[place] = 0x40
    found = [kernel(part) for kernel in bandwidth.KERNELS]
    # in float32, 0x40404040 is 2^(128 - 127) · (1 + 0x404040 / 2^23)
    assert found == [0x4040404040404040, 0x40, 2.0 * (1 + 0x404040 / 2**23)]


def test_bandwidth_of_this_machine_is_a_number(tmp_path: Path):
    """So few bytes that it is the caches' speed, to be quick."""
    speed = read_gb_s(2, 0.01, small_machine(tmp_path))
    assert math.isfinite(speed) and speed > 0


def test_bandwidth_needs_a_thread():
    with pytest.raises(UserError, match=r"threads must be 1 or more; found 0"):
        read_gb_s(0)


def cache(core: int, index: int, level: int, shared: str, size: str) -> dict[str, str]:
    folder = f"{CPU}/cpu{core}/cache/index{index}"
    return {f"{folder}/level": f"{level}\n", f"{folder}/shared_cpu_list": f"{shared}\n", f"{folder}/size": f"{size}\n"}


def test_caches_are_those_of_the_usable_cores_and_a_shared_one_counts_once(tmp_path: Path):
    files = {
        **cache(0, 0, 1, "0", "48K"),
        **cache(0, 3, 3, "0-1", "32768K"),
        **cache(1, 3, 3, "0-1", "32768K"),
        **cache(2, 2, 2, "2", "1M"),  # another cluster, without a third level
        **cache(3, 3, 3, "3", "much"),
    }
    tree(tmp_path, files)
    assert last_level_cache_bytes(tmp_path, [0, 1]) == 32 * 2**20
    assert last_level_cache_bytes(tmp_path, [1, 2]) == 33 * 2**20
    assert last_level_cache_bytes(tmp_path, [3, 4]) == 0


@pytest.mark.parametrize(
    ("cache_kb", "available_kb", "expected_mib"),
    [
        (32 * 1024, 64 * 2**20, 512),  # 4 · 32 MiB would be over in a moment
        (256 * 1024, 64 * 2**20, 1024),
        (1024 * 1024, 64 * 2**20, 2048),  # not 4 GiB
        (256 * 1024, 2 * 2**20, 512),  # a quarter of 2 GiB
    ],
)
def test_the_arrays_exceed_the_caches_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_kb: int, available_kb: int, expected_mib: int
):
    monkeypatch.setattr(bandwidth, "_usable_cores", lambda: [0])
    files = {**cache(0, 3, 3, "0", f"{cache_kb}K"), "proc/meminfo": f"MemAvailable: {available_kb} kB\n"}
    assert bandwidth._bytes_to_read(tree(tmp_path, files)) == expected_mib * 2**20


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 5 kB\n"}, None),
        ({"proc/meminfo": "MemTotal: 5 kB\nMemAvailable:   4 kB\n"}, 4096),
        ({"proc/meminfo": "MemAvailable: 4 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 4096),
        (
            {
                "proc/meminfo": "MemAvailable: 4 kB\n",
                "sys/fs/cgroup/memory.max": "5000\n",
                "sys/fs/cgroup/memory.current": "2000\n",
            },
            3000,
        ),
    ],
)
def test_available_memory_is_what_the_container_may_still_take(
    tmp_path: Path, files: dict[str, str], expected: int | None
):
    assert available_bytes(tree(tmp_path, files)) == expected
