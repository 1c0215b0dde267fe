"""What the system says about the machine: names, clocks, power, versions. What it does not say stays empty."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from runtime.common.machine import available_cores
from runtime.engines.trt import cuda
from runtime.report.schema import Machine

COMMAND_TIMEOUT_S = 20.0  # nvidia-smi wakes a sleeping driver first
GPU_FIELDS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit")
# a figure may depend on these; nothing is imported to learn its version
PACKAGES = (
    *("numpy", "pillow", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx", "pycuda", "torch", "torchvision", "onnx", "anomalib"),
)
BOARD = Path("/proc/device-tree/model")  # boards such as Jetson say here what they are
CPU_INFO = Path("/proc/cpuinfo")
JETSON_RELEASE = Path("/etc/nv_tegra_release")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def ask_command(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Return what `command` prints, "" where it is missing, fails, or takes longer than `timeout_s` seconds."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def gpu_values(fields: Sequence[str]) -> dict[str, str]:
    """Return nvidia-smi's values of `fields` for the GPU that this process sees first, only those that it has.

    Numbers come without their unit. Empty without nvidia-smi, without a GPU, or where it does not know a field.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if gpu in ("", "-1"):  # hidden from CUDA, so nothing is measured on it
        return {}
    query = f"--query-gpu={','.join(fields)}"
    lines = ask_command(["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id={gpu}"]).splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != len(fields):  # a message, not values
        return {}
    told = zip(fields, values, strict=True)  # "N/A", "[N/A]" or "[Not Supported]" is none
    return {name: value for name, value in told if value and value != "N/A" and not value.startswith("[")}


def describe_machine() -> Machine:
    """Describe this machine, as far as it tells."""
    gpu = gpu_values(GPU_FIELDS)
    gpu_name = gpu.get("name") or _cuda_device()
    jetson = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text_of(JETSON_RELEASE))
    mode = re.search(r"NV Power Mode:\s*(\S+)", ask_command(["nvpmodel", "-q"]))
    governor = _text_of(GOVERNOR)
    powers = [f"nvpmodel {mode[1]}" if mode else "", f"CPU governor {governor}" if governor else ""]
    powers.append(f"GPU limit {float(gpu['power.limit']):.0f} W" if "power.limit" in gpu else "")
    return Machine(
        device=", ".join(filter(None, (gpu_name, _host()))),
        cores=available_cores(),
        operating_system=f"{_system()} {platform.machine()}",
        driver=gpu.get("driver_version") or (f"L4T {jetson[1]}.{jetson[2]}" if jetson else ""),
        clocks="; ".join(filter(None, (_gpu_clocks(gpu), _cpu_clock()))),
        power_mode="; ".join(filter(None, powers)),
        versions={"python": platform.python_version(), **_versions()},
    )


def _cuda_device() -> str:
    """Return what the CUDA driver calls this process's device, "" without one: a Jetson has no nvidia-smi."""
    try:
        return "" if cuda.device_problem() else cuda.device_name()
    except cuda.CudaError:
        return ""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _host() -> str:
    """Return the board's name, else the processor's."""
    model = re.search(r"^model name\s*: (.*)$", _text_of(CPU_INFO), re.MULTILINE)
    return _text_of(BOARD) or (model[1] if model else "") or platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # no Linux, or one without a name
        return f"{platform.system()} {platform.release()}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpu_clocks(gpu: dict[str, str]) -> str:
    parts = [
        f"{name} {gpu[now]} of {gpu.get(most, '?')} MHz"
        for name, now, most in (("SM", "clocks.sm", "clocks.max.sm"), ("memory", "clocks.mem", "clocks.max.mem"))
        if now in gpu
    ]
    return f"GPU {', '.join(parts)}" if parts else ""


def _cpu_clock() -> str:
    clock = psutil.cpu_freq()
    if clock is None:
        return ""
    return f"CPU {clock.current:.0f}{f' of {clock.max:.0f}' if clock.max else ''} MHz"
