"""Records what anomalib's own metrics say of `tests.support.metric_cases`; run where anomalib is installed.

python3 -m venv env && env/bin/pip install 'anomalib[cpu]==2.7.0'
PYTHONPATH=. env/bin/python -m tests.support.record_anomalib_metrics
"""

import json
from importlib.metadata import version

import numpy as np
import torch
from anomalib.metrics.aupro import _AUPRO  # without the wrapper that takes a batch object
from anomalib.metrics.f1_score import BinaryF1Score, _F1Max
from anomalib.metrics.pimo.pimo import _AUPIMO

from tests.support.metric_cases import CASES, RECORD, Case, digest


def _aupimo(maps: torch.Tensor, masks: torch.Tensor, *, force: bool) -> list[float] | str:
    metric = _AUPIMO(return_average=False, force=force)
    metric.update(maps, masks)
    try:
        _, result = metric.compute()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return [float(value) for value in result.aupimos[~torch.isnan(result.aupimos)]]


def _figures(case: Case) -> dict[str, object]:
    maps, masks = torch.from_numpy(case[0]), torch.from_numpy(case[1].astype(np.int64))
    found: dict[str, object] = {"sha256": digest(case)}
    for limit in (0.3, 0.05):
        metric = _AUPRO(fpr_limit=limit)
        metric.update(maps, masks)
        found[f"aupro {limit}"] = float(metric.compute())
    cut = float(np.quantile(case[0][: case[0].shape[0] // 2], 0.99))
    f1, best = BinaryF1Score(), _F1Max()
    f1.update(maps > cut, masks)
    best.update(maps, masks)
    found |= {"cut": cut, "F1 at the cut": float(f1.compute()), "F1Max": float(best.compute())}
    for force in (False, True):
        found[f"aupimo{' forced' if force else ''}"] = _aupimo(maps, masks, force=force)
    return found


def main() -> None:
    """Write the record."""
    names = ("anomalib", "torch", "torchmetrics", "numpy")
    record = {"versions": {name: version(name) for name in names}}
    record["cases"] = {name: _figures(make()) for name, make in CASES.items()}
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
