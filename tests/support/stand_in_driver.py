"""NVIDIA's driver libraries with nothing behind them: what links to them loads, and every call fails as it may."""

import re
import subprocess
from pathlib import Path

# a driver that is there and counts one device, which no library will find fit
DRIVER = "int cuInit(unsigned f) {return 0;}\nint cuDeviceGetCount(int *n) {*n = 1; return 0;}\n"
CUDA_ERROR_NO_DEVICE, NVML_ERROR_DRIVER_NOT_LOADED = 100, 9


def make_driver(extension: Path, folder: Path) -> Path:
    """Compile `libcuda.so.1` and `libnvidia-ml.so.1` with all that `extension` asks of them; return their folder."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True)
    asked = set(re.findall(r" U (\w+)$", listed.stdout, re.MULTILINE))  # versioned ones are other libraries'
    for name, prefix, first, failure in (
        ("libcuda.so.1", "cu[A-Z]", DRIVER, CUDA_ERROR_NO_DEVICE),
        ("libnvidia-ml.so.1", "nvml", "", NVML_ERROR_DRIVER_NOT_LOADED),
    ):
        rest = sorted(one for one in asked if re.match(prefix, one) and f" {one}(" not in first)
        source = folder / "driver.c"
        source.write_text(first + "".join(f"int {one}(void) {{return {failure};}}\n" for one in rest))
        link = ["cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(link, check=True, capture_output=True)
    return folder
