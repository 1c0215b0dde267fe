#!/usr/bin/env bash
# pymodbus' simulator keeps N bits that are given as a count and one value in memory that grows with the square of N:
# eight bytes for each bit of each bit, 134 MB for 4,096 coils. All 65,536 coils that Modbus has would be 34 GB. The same
# bits as a list of values take 24 bytes each. Registers given as a count grow as they should.
#
# Seen with pymodbus 3.16.1, the most memory while a device is made (tracemalloc):
#     bits, a count      1024:  8.4 MB   2048: 33.6 MB   4096: 134.3 MB
#     bits, a list       1024:  0.0 MB   2048:  0.1 MB   4096:   0.1 MB
#     registers, a count 1024:  0.0 MB   2048:  0.0 MB   4096:   0.0 MB
#
# Fails if that changes. Needs Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet "pymodbus==3.16.1"
cat > "$work/memory.py" <<'PYTHON'
import tracemalloc

from pymodbus.simulator import DataType, SimData, SimDevice

SIZES = (1024, 2048, 4096)


def most_bytes(what: str, size: int) -> int:
    kind = DataType.REGISTERS if what.startswith("registers") else DataType.BITS
    empty = 0 if kind is DataType.REGISTERS else False
    tracemalloc.start()
    entry = SimData(0, count=1, values=[empty] * size, datatype=kind) if what.endswith("list") else SimData(
        0, count=size, values=empty, datatype=kind
    )
    bits, registers = SimData(0, values=False, datatype=DataType.BITS), SimData(0, values=0, datatype=DataType.REGISTERS)
    if kind is DataType.BITS:
        SimDevice(1, simdata=([entry], [bits], [registers], [registers]))
    else:
        SimDevice(1, simdata=([bits], [bits], [entry], [registers]))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


growth = {}
for what in ("bits, a count", "bits, a list", "registers, a count"):
    most = [most_bytes(what, size) for size in SIZES]
    growth[what] = most[-1] / most[0]
    print(f"{what:<19}" + "   ".join(f"{size}: {taken / 1e6:5.1f} MB" for size, taken in zip(SIZES, most)))
assert 14 < growth["bits, a count"] < 18, "no longer by the square: four times the bits, sixteen times the memory"
assert growth["bits, a list"] < 6 and growth["registers, a count"] < 6, "no longer as described"
PYTHON
"$work/env/bin/python" "$work/memory.py"
