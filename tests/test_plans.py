"""The graphs as a real TensorRT takes them: TensorRT-RTX compiles on a machine without a GPU."""

import pytest

from export.calibration import collect_ranges
from export.calibration_data import read_calibration_data
from export.onnx_files import save_model
from export.precision import to_fp16, to_int8
from export.products import WEIGHTED
from export.tensorrt_build import BuildOptions, build_plan
from export.tensorrt_compat import find_backend
from tests.export_fixtures import CALIBRATION_DATA, config_of, exported

pytest.importorskip("tensorrt_rtx", reason="compiling a plan without a GPU needs the package tensorrt-rtx")

# Of 8 blocks on 3 taps: 3 products in each subnet and 2 in each permutation but the last; the rest are the encoder's.
SUBNETS, PERMUTATIONS = 72, 42
EXPECTED = {
    ("resnet18", "fp32"): {"convolution float": 20 + SUBNETS + PERMUTATIONS},
    ("resnet18", "fp16"): {"convolution half": 20 + SUBNETS + PERMUTATIONS},
    ("resnet18", "int8"): {"convolution int8": 20 + SUBNETS, "convolution half": PERMUTATIONS},
    ("mobilenet_v3_large", "fp32"): {"convolution float": 61 + SUBNETS + PERMUTATIONS},
    ("mobilenet_v3_large", "fp16"): {"convolution half": 61 + SUBNETS + PERMUTATIONS},
    ("mobilenet_v3_large", "int8"): {"convolution int8": 61 + SUBNETS, "convolution half": PERMUTATIONS},
}
SIZES = {"resnet18": (128, 192), "mobilenet_v3_large": (72, 104)}


def typed_as(model, precision, size):
    if precision == "fp32":
        return model
    if precision == "fp16":
        return to_fp16(model)
    ranges = collect_ranges(model, read_calibration_data(CALIBRATION_DATA), size, WEIGHTED, "minmax")
    return to_int8(model, ranges)


@pytest.mark.parametrize(("encoder", "precision"), EXPECTED)
def test_builds_with_the_types_that_the_graph_carries(encoder, precision, tmp_path):
    model = exported(config_of(encoder, SIZES[encoder])).fused
    path = tmp_path / "cable.onnx"
    save_model(typed_as(model, precision, SIZES[encoder]), path)
    plan = build_plan(path, BuildOptions(precision=precision, max_batch=2), find_backend("tensorrt_rtx"))
    weighted = {name: count for name, count in plan.layers.items() if "quantize" not in name}
    assert weighted == EXPECTED[encoder, precision]
    assert len(plan.data) > 1 << 20
