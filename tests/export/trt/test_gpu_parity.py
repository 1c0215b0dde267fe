"""What an engine of each precision says of real graphs, against float64: on the CPU here, and on a GPU where one is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.calibration_data import read_calibration_data
from export.graph.onnx_files import save_model
from export.precisions.typing import calibrated_int8, to_fp16
from export.trt.build import build_plan
from export.trt.options import BuildOptions
from runtime.engines.onnxruntime_session import OnnxRuntimeSession
from runtime.engines.session import Session
from runtime.engines.trt.session import TensorRTSession
from tests.support.export_fixtures import CALIBRATION_DATA, exported, small_config
from tests.support.gpu_backend import gpu_backend

# of a map that lies in 0..2, against float64, in ONNX Runtime: the order of FP32 sums; 2^-11 of every operand of two
# blocks' products, through exp; INT8 steps of ranges that few images chose. 3e-7, 2e-4 and 0.12 were measured.
TOLERANCE = {"fp32": 5e-6, "fp16": 1e-3, "int8": 0.3}
# A plan rounds the same operands, and sums products in another order, in FP16 also in another type. INT8 activations
# that lie between two steps may fall to either.
PLAN_TIMES, PLAN_MORE = 3.0, 1e-3


def typed(precision: str):
    case = exported(small_config())
    if precision == "fp16":
        return case, to_fp16(case.fused)
    if precision == "int8":
        data = read_calibration_data(CALIBRATION_DATA)
        return case, calibrated_int8(case.fused, replace(data, paths=data.paths[:4]))
    return case, case.fused


def errors(session: Session, case) -> tuple[float, float]:
    """Return the largest and the root-mean-square difference of the map from float64's, frame by frame."""
    maps = np.concatenate([session.run(case.frames[i : i + 1])[0] for i in range(len(case.frames))])
    difference = np.abs(maps - case.anomaly_map)
    return float(difference.max()), float(np.sqrt((difference**2).mean()))


@contextmanager
def on_cpu(path: Path, sidecar) -> Iterator[Session]:
    with OnnxRuntimeSession(path, 1, sidecar) as session:
        yield session


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_each_precision_on_the_cpu_is_near_float64(precision: str, tmp_path: Path) -> None:
    case, model = typed(precision)
    path = tmp_path / "cable.onnx"
    save_model(model, path)
    with on_cpu(path, case.info.sidecar) as session:
        largest, _ = errors(session, case)
    assert largest < TOLERANCE[precision]
    if precision != "fp32":  # the graph is of that precision indeed
        assert largest > TOLERANCE["fp32"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_a_plan_of_each_precision_is_as_near_to_float64(precision: str, tmp_path: Path, capsys) -> None:
    backend, targets = gpu_backend()
    case, model = typed(precision)
    path, plan_path = tmp_path / "cable.onnx", tmp_path / "cable.plan"
    save_model(model, path)
    built = build_plan(path, BuildOptions(precision, 1, compute_capabilities=targets), backend)
    plan_path.write_bytes(built.data)
    with (
        on_cpu(path, case.info.sidecar) as reference,
        TensorRTSession(plan_path, case.info.sidecar, built.artefact) as session,
    ):
        found, expected = errors(session, case), errors(reference, case)
    with capsys.disabled():
        for name, (largest, rms) in (("ONNX Runtime", expected), (backend.library, found)):
            print(
                f"\n{precision} {name}: largest {largest:.2e}, rms {rms:.2e} of a map in 0..2, against float64", end=""
            )
    assert all(plan <= PLAN_TIMES * cpu + PLAN_MORE for plan, cpu in zip(found, expected, strict=True))
