import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.calibration_data import read_calibration_data
from export.graph.onnx_files import get_info
from export.graph.weighted_layers import WEIGHTED
from export.precisions.ranges import calibration_frames, collect_ranges
from export.precisions.typing import to_int8
from runtime.common.errors import UserError
from tests.support.export_fixtures import CALIBRATION_DATA, run_model, session_of
from tests.support.onnx_inspection import (
    HALF,
    SIZE,
    copy_of,
    lite,
    mobilenet,
    nodes_of,
    run_as_written,
    small_model,
    types_of,
    weights_of,
    with_outputs,
)


@functools.cache
def small_ranges():
    return collect_ranges(small_model(), read_calibration_data(CALIBRATION_DATA), SIZE, WEIGHTED, "minmax")


@functools.cache
def small_int8():
    return to_int8(small_model(), small_ranges())


def producers_of(model):
    return {output: node for node in model.graph.node for output in node.output}


def quantised(values, scale, axis=None):
    """Symmetric Q/DQ in numpy: round half to even, clip to ±127 (activations: ONNX saturates at -128)."""
    lowest = -128 if axis is None else -127
    return np.clip(np.rint(values / scale), lowest, 127) * scale


class TestInt8Structure:
    def test_weighted_layers_read_dequantised_tensors(self):
        model, makers = small_int8(), producers_of(small_int8())
        for node in nodes_of(model, *WEIGHTED):
            behind = [makers[name].op_type if name in makers else "constant" for name in node.input[:2]]
            permutation = "/permutation/" in node.name
            assert (behind == ["DequantizeLinear"] * 2) == (not permutation), node.name
            assert permutation == (types_of(model)[node.output[0]] == HALF), node.name
        products = [node for node in nodes_of(model, "Conv") if not node.name.startswith("encoder/")]
        assert len(products) == 2 * 2 * 3 + 2 * 2  # 2 taps, 2 blocks, 3 products in a subnet; 2 halves of 1 permutation

    def test_symmetric_by_channel_with_float_biases(self):
        model, makers, weights = small_int8(), producers_of(small_int8()), weights_of(small_int8())
        for node in nodes_of(model, "QuantizeLinear", "DequantizeLinear"):
            assert weights[node.input[2]].dtype == np.int8 and not weights[node.input[2]].any()
        for node in nodes_of(model, *WEIGHTED):
            weight = makers.get(node.input[1])
            if weight is None:
                continue
            assert weight.attribute[0].name == "axis" and weight.attribute[0].i == 0
            values, scale = (weights[name] for name in weight.input[:2])
            assert scale.shape == values.shape[:1] and np.abs(values.astype(int)).max() == 127
            assert all(weights[name].dtype == np.float32 for name in node.input[2:])  # not that of the kept ones

    def test_permutations_only_when_asked_for(self):
        ranges = small_ranges()
        model = to_int8(small_model(), ranges, left_out=())
        makers = producers_of(model)
        assert all(makers[node.input[1]].op_type == "DequantizeLinear" for node in nodes_of(model, *WEIGHTED))

    def test_layers_kept_out_of_it_are_fp16(self):
        kept = {"encoder/layer1/0/bn1/Conv", "layer2/block1/subnet2/scale"}
        model = to_int8(small_model(), small_ranges(), left_out=kept)
        onnx.checker.check_model(model, full_check=True)
        types = types_of(model)
        for node in nodes_of(model, *WEIGHTED):
            assert ({types[name] for name in (*node.input, *node.output)} == {HALF}) == (node.name in kept), node.name

    def test_an_unknown_layer_is_an_error(self):
        with pytest.raises(UserError, match="must be a weighted layer of the graph; found nonsense"):
            to_int8(small_model(), small_ranges(), left_out={"nonsense"})

    @pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
    def test_identities_share_the_quantised_tensor(self, encoder):
        if encoder == "resnet18":
            before, model = small_model(), small_int8()
        else:
            before = mobilenet() if encoder == "mobilenet_v3_large" else lite()
            names = {node.input[0] for node in nodes_of(before, *WEIGHTED)}
            model = to_int8(before, dict.fromkeys(names, (-4.0, 4.0)))
        makers = producers_of(model)
        inputs = {node.input[0] for node in nodes_of(model, "Conv")}
        found = 0
        for node in nodes_of(model, "Add"):
            behind = [makers[name].op_type for name in node.input if name in makers]
            if node.name.startswith("encoder/") and "DequantizeLinear" in behind:
                identity = next(name for name in node.input if makers[name].op_type == "DequantizeLinear")
                assert identity in inputs  # one Q/DQ for the convolution and the addition
                found += 1
        assert found >= (2 if encoder == "efficientnet_lite0" else 3)  # a plain Conv output is no identity here
        quantised_tensors = [node.input[0] for node in nodes_of(model, "QuantizeLinear")]
        assert len(set(quantised_tensors)) == len(quantised_tensors)

    def test_contract_is_kept(self):
        onnx.checker.check_model(small_int8(), full_check=True)
        assert get_info(small_int8(), "").precision == "int8" and small_int8().opset_import[0].version == 17

    def test_a_missing_range_is_an_error(self):
        tensor = nodes_of(small_model(), "Conv")[3].input[0]
        ranges = {name: limits for name, limits in small_ranges().items() if name != tensor}
        with pytest.raises(UserError, match=f"must have a calibration range; found none for {tensor}"):
            to_int8(small_model(), ranges)

    def test_computed_weights_are_an_error(self):
        model = copy_of(small_model())
        conv = nodes_of(model, "Conv")[0]
        model.graph.node.insert(0, onnx.helper.make_node("Identity", [conv.input[1]], ["computed"], name="identity"))
        conv = nodes_of(model, "Conv")[0]
        conv.input[1] = "computed"
        with pytest.raises(UserError, match=f"{conv.name} must have constant weights"):
            to_int8(model, small_ranges())


class TestInt8Values:
    @pytest.fixture
    def frame(self):
        return next(calibration_frames(read_calibration_data(CALIBRATION_DATA), SIZE))

    def layer(self, operator, frame):
        """A layer's input before Q/DQ and its output as the graph gives them, and its FP32 weight and bias."""
        typed, plain = small_int8(), small_model()
        name = "encoder/layer1/0/bn1/Conv" if operator == "Conv" else "layer2/block1/subnet2/scale"
        before, after = (next(n for n in model.graph.node if n.name == name) for model in (plain, typed))
        x, y = run_as_written(typed, frame, before.input[0], after.output[0])
        weights = weights_of(plain)
        weight, bias = (weights[tensor].astype(np.float64) for tensor in before.input[1:3])
        scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
        weight = quantised(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)), axis=0)
        low, high = small_ranges()[before.input[0]]
        return quantised(x.astype(np.float64), np.float32(max(-low, high) / 127)), weight, bias, y

    # Inputs and weights are exact multiples of their scales in both; what differs is float32's rounding in the sum.
    TOLERANCE = 1e-5

    def test_convolution(self, frame):
        x, weight, bias, y = self.layer("Conv", frame)
        expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1).numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=self.TOLERANCE * np.abs(expected).max())

    def test_product(self, frame):
        x, weight, bias, y = self.layer("product", frame)
        expected = np.einsum("bihw,oi->bohw", x, weight[:, :, 0, 0]) + bias[:, None, None]
        np.testing.assert_allclose(y, expected, rtol=0, atol=self.TOLERANCE * np.abs(expected).max())

    def test_anomaly_map_is_near_fp32(self, frame):
        expected, anomaly_map = (run_model(model, frame)[0] for model in (small_model(), small_int8()))
        # 8 bits: half of 1/127 of the range at each input, some ten layers deep, on a score of 0 to 2.
        assert 1e-4 < np.abs(anomaly_map - expected).max() < 0.2


class TestCalibration:
    def test_minmax_is_numpys(self):
        tensor = nodes_of(small_model(), "Conv")[2].input[0]
        frames = calibration_frames(read_calibration_data(CALIBRATION_DATA), SIZE)
        session = session_of(with_outputs(small_model(), tensor))
        values = [session.run([tensor], {"frames": frame})[0] for frame in frames]
        low, high = small_ranges()[tensor]
        # The calibrator's session fuses other layers than this one: rounding only.
        assert low == pytest.approx(min(v.min() for v in values), rel=1e-5, abs=1e-6)
        assert high == pytest.approx(max(v.max() for v in values), rel=1e-5)

    @pytest.mark.parametrize("method", ["percentile", "entropy"])
    def test_other_methods_stay_within_the_extremes(self, method, tmp_path):
        data = read_calibration_data(CALIBRATION_DATA)
        few = type(data)(data.paths[:2], data.sha256, data.origin)
        extremes = collect_ranges(small_model(), few, SIZE, ("Conv",), "minmax")
        ranges = collect_ranges(small_model(), few, SIZE, ("Conv",), method)
        assert ranges.keys() == extremes.keys()
        for name, (low, high) in ranges.items():
            largest = max(map(abs, extremes[name]))
            assert max(abs(low), abs(high)) <= largest * (1 + 1e-4)

    def test_ranges_that_are_not_finite_are_an_error(self):
        model = copy_of(small_model())
        tensor = next(t for t in model.graph.initializer if t.name == "layer1/block0/permutation/active/weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(np.inf), tensor.name))
        data = read_calibration_data(CALIBRATION_DATA)
        with pytest.raises(UserError, match="calibration ranges must be finite"):
            collect_ranges(model, type(data)(data.paths[:1], "", ""), SIZE, WEIGHTED, "minmax")
