"""What the system says about the machine: names, clocks, power, versions. What it does not say stays empty."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import psutil

from runtime.common.machine import available_cores
from runtime.engines.trt import cuda
from runtime.report.schema import Machine

COMMAND_TIMEOUT_S = 20.0  # nvidia-smi wakes a sleeping driver first
GPU_FIELDS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
# a figure may depend on these; nothing is imported to learn its version
PACKAGES = {
    *("numpy", "pillow", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx", "pycuda", "torch", "torchvision", "onnx", "anomalib"),
    *("tensorrt-lean-cu13-bindings", "onnxruntime-ep-nv-tensorrt-rtx"),
}
BOARD = "/proc/device-tree/model"  # boards such as Jetson say here what they are
GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"


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
    values = ask_command(["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id={gpu}"]).split(", ")
    if len(values) != len(fields):  # a message, not values
        return {}
    told = zip(fields, values, strict=True)  # "N/A", "[N/A]" or "[Not Supported]" is none
    return {name: value for name, value in told if value and value != "N/A" and not value.startswith("[")}


def describe_machine() -> Machine:
    """Describe this machine, as far as it tells."""
    gpu, clock = gpu_values(GPU_FIELDS), psutil.cpu_freq()
    model = re.search(r"^model name\s*: (.*)$", _text_of("/proc/cpuinfo"), re.MULTILINE)
    host = _text_of(BOARD) or (model[1] if model else "") or platform.processor() or platform.machine()
    jetson = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text_of("/etc/nv_tegra_release"))
    mode, governor = re.search(r"Power Mode:\s*(\S+)", ask_command(["nvpmodel", "-q"])), _text_of(GOVERNOR)
    clocks = {"GPU SM": "clocks.sm", "GPU SM at most": "clocks.max.sm", "GPU memory": "clocks.mem"}
    mhz = [f"{what} {gpu[field]} MHz" for what, field in clocks.items() if field in gpu]
    powers = {"nvpmodel": mode and mode[1], "CPU governor": governor, "GPU limit in W:": gpu.get("power.limit")}
    return Machine(
        device=", ".join(filter(None, (gpu.get("name") or _cuda_device(), host))),
        cores=available_cores(),
        operating_system=f"{_system()} {platform.machine()}",
        driver=gpu.get("driver_version") or (f"L4T {jetson[1]}.{jetson[2]}" if jetson else ""),
        clocks="; ".join([*mhz, *([f"CPU {clock.current:.0f} MHz"] if clock else [])]),
        power_mode="; ".join(f"{what} {value}" for what, value in powers.items() if value),
        versions={"python": platform.python_version(), **_versions()},
    )


def _cuda_device() -> str:
    """Return what the CUDA driver calls this process's device, "" without one: a Jetson may lack nvidia-smi."""
    try:
        return "" if cuda.device_problem() else cuda.device_name()
    except cuda.CudaError:
        return ""


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # no Linux, or one without a name
        return f"{platform.system()} {platform.release()}"


def _versions() -> dict[str, str]:
    installed = {str(found.name).lower(): str(found.version) for found in metadata.distributions()}
    return {name: version for name, version in sorted(installed.items()) if name in PACKAGES}
