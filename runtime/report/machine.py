"""What the system says about the machine: names, clocks, power, versions. What it does not say stays empty.

Nothing is imported to learn its version, and no command or file that is missing or broken ends a report.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from runtime.common.machine import available_cores
from runtime.engines.trt import cuda
from runtime.report.schema import Machine

Ask = Callable[[Sequence[str]], str]  # a command, to what it prints ("" where it cannot be had)

COMMAND_TIMEOUT_S = 20.0  # nvidia-smi wakes a sleeping driver first
CPUS = "sys/devices/system/cpu"
GPU_FIELDS = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "power.limit",
    "power.default_limit",
)
PACKAGES = {  # a report's name for it: the distributions that bring it, the usual one first
    "numpy": ("numpy",),
    "pillow": ("pillow",),
    "opencv": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "pycuda": ("pycuda",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "onnx": ("onnx",),
    "anomalib": ("anomalib",),
}


def ask_command(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Return what `command` prints, "" where it is missing, fails, or takes longer than `timeout_s` seconds."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def cuda_device() -> str:
    """Return what the CUDA driver calls this process's device, "" without one."""
    try:
        return "" if cuda.device_problem() else cuda.device_name()
    except cuda.CudaError:
        return ""


def describe_machine(
    root: Path = Path("/"), ask: Ask = ask_command, gpu_by_driver: Callable[[], str] = cuda_device
) -> Machine:
    """Describe this machine, as far as it tells.

    `root` is where /proc, /sys and /etc are looked for; `ask` runs a command; `gpu_by_driver` names the GPU where
    nvidia-smi cannot.
    """
    gpu = gpu_values(GPU_FIELDS, ask)
    host = _host(root)
    gpu_name = gpu.get("name") or gpu_by_driver()
    return Machine(
        device=f"{gpu_name}, {host}" if gpu_name else host,
        cores=available_cores(),
        operating_system=_operating_system(root),
        driver=gpu.get("driver_version") or _jetson_release(root),
        clocks=_joined("; ", [_gpu_clocks(gpu), _cpu_clocks(root)]),
        power_mode=_joined("; ", [_nvpmodel(ask), _gpu_power(gpu), _cpu_power(root)]),
        versions={"python": platform.python_version(), **installed_versions()},
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of the libraries that a figure may depend on, those that are installed here."""
    found = {name: next(filter(None, map(_version, packages)), "") for name, packages in PACKAGES.items()}
    return {name: version for name, version in found.items() if version}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution) or ""  # None for a distribution that is half removed
    except importlib.metadata.PackageNotFoundError:
        return ""


def gpu_values(fields: Sequence[str], ask: Ask) -> dict[str, str]:
    """Return nvidia-smi's values of `fields` for the GPU that this process sees first, only those that it has.

    Numbers come without their unit. Empty without nvidia-smi, without a GPU, or where it does not know a field.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if gpu in ("", "-1"):  # hidden from CUDA, so nothing is measured on it
        return {}
    query = f"--query-gpu={','.join(fields)}"
    lines = ask(["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id={gpu}"]).splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != len(fields):  # a message, not values
        return {}
    return {name: value for name, value in zip(fields, values, strict=True) if _is_told(value)}


def _is_told(value: str) -> bool:
    """Tell a value from nvidia-smi's ways to say that there is none: "N/A", "[N/A]", "[Not Supported]"."""
    return bool(value) and value != "N/A" and not value.startswith("[")


def read_text(path: Path) -> str:
    """Return the text of a file of the system without the space around it, "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _host(root: Path) -> str:
    """Return the board's name, else the processor's."""
    board = read_text(root / "proc/device-tree/model")  # boards such as Jetson say here what they are
    return board or next(iter(_cpuinfo(root, "model name")), "") or platform.processor() or platform.machine()


def _cpuinfo(root: Path, key: str) -> list[str]:
    """Return the values of `key` in /proc/cpuinfo, one for each core that has it."""
    pairs = (line.partition(":") for line in read_text(root / "proc/cpuinfo").splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _operating_system(root: Path) -> str:
    """Return the system's name and version, and what it was compiled for."""
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release")
    name = re.search(r"^PRETTY_NAME=[\"']?(.*?)[\"']?\s*$", text, re.MULTILINE)
    return f"{name[1] if name else f'{platform.system()} {platform.release()}'} {platform.machine()}"


def _jetson_release(root: Path) -> str:
    """Return the release of a Jetson's Linux, which brings its driver: "L4T 36.4.3"; "" elsewhere."""
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", read_text(root / "etc/nv_tegra_release"))
    return f"L4T {release[1]}.{release[2]}" if release else ""


def _gpu_clocks(gpu: dict[str, str]) -> str:
    clocks = [_gpu_clock(gpu, "SM", "sm"), _gpu_clock(gpu, "memory", "mem")]
    return _joined(" ", ["GPU", _joined(", ", clocks)]) if any(clocks) else ""


def _gpu_clock(gpu: dict[str, str], name: str, field: str) -> str:
    now, most = gpu.get(f"clocks.{field}"), gpu.get(f"clocks.max.{field}")
    return f"{name} {now}{f' of {most}' if most else ''} MHz" if now else ""


def _cpu_clocks(root: Path) -> str:
    """Return what the cores run at now, lowest to highest, and the highest that they are allowed."""
    now = _cpu_mhz(root, "scaling_cur_freq") or _numbers(_cpuinfo(root, "cpu MHz"))
    most = _cpu_mhz(root, "scaling_max_freq")
    parts = [now and f"CPU {_span(now)} MHz", most and f"CPU limit {_span(most)} MHz"]
    return _joined(", ", [part or "" for part in parts])


def _cpu_mhz(root: Path, name: str) -> list[float]:
    return [khz / 1e3 for khz in _numbers(_of_cores(root, f"cpufreq/{name}"))]


def _of_cores(root: Path, name: str) -> list[str]:
    """Return the text of the file `name` of every core that has it."""
    return [read_text(path) for path in sorted((root / CPUS).glob(f"cpu[0-9]*/{name}"))]


def _numbers(texts: Iterable[str]) -> list[float]:
    return [float(text) for text in texts if re.fullmatch(r"\d+(\.\d*)?", text)]


def _span(values: Sequence[float]) -> str:
    least, most = f"{min(values):.0f}", f"{max(values):.0f}"
    return least if least == most else f"{least} to {most}"


def _nvpmodel(ask: Ask) -> str:
    """Return a Jetson's power mode; other machines lack the command."""
    mode = re.search(r"NV Power Mode:\s*(\S+)", ask(["nvpmodel", "-q"]))
    return f"nvpmodel {mode[1]}" if mode else ""


def _gpu_power(gpu: dict[str, str]) -> str:
    limit, default = (_numbers([gpu.get(name, "")]) for name in ("power.limit", "power.default_limit"))
    if not limit:
        return ""
    return f"GPU limit {limit[0]:.0f} W" + (f" (default {default[0]:.0f} W)" if default not in ([], limit) else "")


def _cpu_power(root: Path) -> str:
    governors = sorted({governor for governor in _of_cores(root, "cpufreq/scaling_governor") if governor})
    return _joined(", ", [f"CPU governor {'/'.join(governors)}" if governors else "", _turbo(root)])


def _turbo(root: Path) -> str:
    """Return whether the cores may exceed their nominal clock, by the two drivers' opposite switches."""
    no_turbo, boost = (read_text(root / CPUS / name) for name in ("intel_pstate/no_turbo", "cpufreq/boost"))
    if no_turbo in ("0", "1"):
        return "turbo on" if no_turbo == "0" else "turbo off"
    return {"0": "turbo off", "1": "turbo on"}.get(boost, "")


def _joined(separator: str, parts: Iterable[str]) -> str:
    return separator.join(part for part in parts if part)
