#!/usr/bin/env bash
# anomalib 2.7.0's AUPIMO of a perfect detector is not always 1. It moves each bound of the false-positive rate (1e-5 and
# 1e-4) to the nearest rate that one of its cuts has, but divides the area by the whole range. With few good pixels the
# nearest rate lies well inside; with fewer than 100,000 it refuses, as its highest cut still calls one good pixel.
#
# Seen, a detector that scores every defect pixel far above all good ones:
#     good pixels  AUPIMO
#          50,000  refused
#         110,000  1.0 (the lower bound moved outwards and the area was cut off at 1)
#         155,000  0.903
#         200,000  1.0
#         250,000  0.921
#
# Fails if it is otherwise. Needs Python 3.10 to 3.13 and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet 'anomalib[cpu]==2.7.0'
cat > "$work/bounds.py" <<'PYTHON'
import numpy as np
import torch
from anomalib.metrics.pimo.pimo import _AUPIMO

SEEN = {50_000: None, 110_000: 1.0, 155_000: 0.903, 200_000: 1.0, 250_000: 0.921}
wrong = []
print(f"{'good pixels':>11}  AUPIMO")
for pixels, seen in SEEN.items():
    maps = np.random.RandomState(0).exponential(size=(2, pixels // 500, 500)).astype(np.float32)
    masks = np.zeros(maps.shape, np.int64)
    masks[1, 10:40, 10:40] = 1
    maps[masks == 1] += 1000
    metric = _AUPIMO(force=True)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
    try:
        found = float(metric.compute())
    except ValueError as error:
        found = None
        print(f"{pixels:>11}  refused: {error}")
    else:
        print(f"{pixels:>11}  {found:.3f}")
    if (found is None) != (seen is None) or (seen is not None and abs(found - seen) > 5e-4):
        wrong.append(pixels)
assert not wrong, f"no longer as described: {wrong}"
PYTHON
"$work/env/bin/python" "$work/bounds.py" 2> "$work/said" || { cat "$work/said" >&2; exit 1; }
