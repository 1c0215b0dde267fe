import functools

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.calibration import calibration_frames, collect_ranges
from export.calibration_data import read_calibration_data
from export.fp16_limits import FP16_MAX, HEADROOM, gemm_limits
from export.onnx_files import get_info, load_model, save_model
from export.precision import WEIGHTED, main, to_fp16, to_int8
from runtime.errors import UserError
from tests.export_fixtures import CALIBRATION_DATA, config_of, exported, run_model, session_of, small_config

SIZE = small_config().input_size
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def small_model():
    return exported(small_config()).fused


def mobilenet():
    return exported(config_of("mobilenet_v3_large", (72, 104))).fused


def types_of(model):
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def weights_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def nodes_of(model, *operators):
    return [node for node in model.graph.node if node.op_type in operators]


def copy_of(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def with_outputs(model, *names):
    """The model with more tensors given out."""
    copy = copy_of(model)
    types = types_of(copy)
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, types[name], None) for name in names)
    return copy


def run_as_written(model, frames, *names):
    """The tensors `names` with ONNX Runtime's own rewrites off, so that each is what the graph says."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(with_outputs(model, *names).SerializeToString(), options)
    return session.run(list(names), {"frames": frames})


class TestFp16Types:
    @pytest.fixture(params=["resnet18", "mobilenet_v3_large"])
    def typed(self, request):
        return to_fp16(small_model() if request.param == "resnet18" else mobilenet())

    def test_weighted_layers_are_half_throughout(self, typed):
        types = types_of(typed)
        for node in nodes_of(typed, *WEIGHTED):
            assert {types[name] for name in (*node.input, *node.output)} == {HALF}, node.name

    def test_the_flow_and_the_score_stay_float(self, typed):
        types = types_of(typed)
        wide = nodes_of(typed, "Tanh", "Exp", "ReduceSum", "ReduceSumSquare", "ReduceMax", "Resize", "Sum", "Concat")
        wide = [
            node for node in wide if not node.name.startswith("encoder/") and types[node.output[0]] != TensorProto.INT64
        ]
        assert {"Tanh", "Exp", "ReduceSum", "ReduceSumSquare", "ReduceMax", "Resize"} <= {node.op_type for node in wide}
        for node in wide:
            assert types[node.output[0]] == FLOAT, node.name

    def test_no_node_mixes_types(self, typed):
        """TensorRT with strong typing refuses an elementwise operation on a float and a half."""
        types = types_of(typed)
        for node in typed.graph.node:
            if node.op_type not in ("Cast", "Resize"):  # Resize's empty regions have no type
                floating = {
                    types[name] for name in (*node.input, *node.output) if name and types[name] in (FLOAT, HALF)
                }
                assert len(floating) <= 1, node.name

    def test_only_the_encoders_ends_are_cast(self, typed):
        taps = get_info(typed, "").metadata.taps
        ends = [node.name for node in nodes_of(typed, "Cast") if node.name.startswith("encoder/")]
        assert len(ends) == 1 + len(taps)

    def test_contract_is_kept(self, typed):
        onnx.checker.check_model(typed, full_check=True)
        assert get_info(typed, "").precision == "fp16" and typed.opset_import[0].version == 17
        types = types_of(typed)
        assert (types["frames"], types["anomaly_map"], types["image_score"]) == (TensorProto.UINT8, FLOAT, FLOAT)

    def test_hidden_layers_rectify_and_limit_at_once(self, typed):
        assert not [node for node in nodes_of(typed, "Relu") if "subnet" in node.name]
        hidden = [node for node in nodes_of(typed, "Clip") if "/subnet1/" in node.name]
        assert len(hidden) == len(nodes_of(typed, "Tanh"))


class TestFp16Values:
    # A half has 11 bits: each rounding is up to 4.9e-4 of a value. The features pass some ten layers, the state a few
    # more; logp is a mean over the channels of about 1 nat, so that the error in score units stays within 1e-2.
    TOLERANCE = 1e-2

    def test_agrees_with_fp32(self):
        case = exported(small_config())
        anomaly_map, score = run_model(to_fp16(case.fused), case.frames)
        assert np.abs(anomaly_map - case.anomaly_map).max() <= self.TOLERANCE
        assert np.abs(score - case.image_score).max() <= self.TOLERANCE

    def test_agrees_where_every_operation_rounds(self):
        """ONNX Runtime on a CPU computes in float between casts; the reference implementation does not."""
        case = exported(small_config())
        frames = case.frames[:1]
        anomaly_map, _ = ReferenceEvaluator(to_fp16(case.fused)).run(None, {"frames": frames})
        assert np.abs(anomaly_map - case.anomaly_map[:1]).max() <= self.TOLERANCE

    def test_differs_from_fp32(self):
        """Or the casts do nothing."""
        case = exported(small_config())
        assert np.abs(run_model(to_fp16(case.fused), case.frames)[0] - case.anomaly_map).max() > 1e-5

    def test_mobilenet_agrees_with_fp32(self):
        case = exported(config_of("mobilenet_v3_large", (72, 104)))
        anomaly_map, _ = run_model(to_fp16(case.fused), case.frames)
        # 15 blocks with squeeze-excitation in front of 8 of the flow: a few times the shallow model's.
        assert np.abs(anomaly_map - case.anomaly_map).max() <= 5 * self.TOLERANCE

    def test_refuses_a_product_of_two_computed_tensors(self):
        model = copy_of(small_model())
        gemm = next(node for node in model.graph.node if node.name == "layer1/block0/Gemm")
        weight = gemm.input[1]
        gemm.input[1] = "computed"
        model.graph.node.insert(0, onnx.helper.make_node("Identity", [weight], ["computed"], name="identity"))
        with pytest.raises(UserError, match="layer1/block0/Gemm must be a plain product"):
            to_fp16(model)


@functools.cache
def explosive_model():
    """Subnets whose translation reaches 1e4 and whose log-scale saturates at 1.9: the state passes 1e5."""
    model = copy_of(small_model())
    for tensor in model.graph.initializer:
        if tensor.name.endswith(("/subnet2/Gemm/weight", "/subnet2/Gemm/bias")):
            values = numpy_helper.to_array(tensor).copy()
            half = len(values) // 2
            values[:half] *= 100
            values[half:] *= 1e3
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def naive_fp16(model):
    """Every float constant, cast and tensor becomes a half; what a converter does that knows nothing of the graph."""
    model = copy_of(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT:
            values = np.clip(numpy_helper.to_array(tensor), -FP16_MAX, FP16_MAX)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = HALF
    for output in model.graph.output:
        output.type.tensor_type.elem_type = HALF
    del model.graph.value_info[:]
    return model


class TestOverflow:
    @pytest.fixture(scope="class")
    def frame(self):
        return exported(small_config()).frames[:1]

    def test_the_state_passes_what_a_half_can_hold(self, frame):
        concat = [node.output[0] for node in nodes_of(explosive_model(), "Concat") if node.name.startswith("layer")]
        state = max(float(np.abs(values).max()) for values in run_as_written(explosive_model(), frame, *concat))
        assert 1e5 < state < 1e7

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow is the point
    def test_a_naive_conversion_overflows(self, frame):
        norms = [node.input[0] for node in nodes_of(explosive_model(), "Min")]
        values = ReferenceEvaluator(naive_fp16(with_outputs(explosive_model(), *norms))).run(norms, {"frames": frame})
        assert not all(np.isfinite(v).all() for v in values)

    def test_ours_stays_finite_and_still_calls_it_anomalous(self, frame):
        typed = to_fp16(explosive_model())
        halves = [name for name, kind in types_of(typed).items() if kind == HALF and name not in weights_of(typed)]
        excess = [node.input[0] for node in nodes_of(typed, "Min")]
        evaluator = ReferenceEvaluator(with_outputs(typed, *halves, *excess))
        results = evaluator.run(["anomaly_map", *halves, *excess], {"frames": frame})
        assert all(np.isfinite(values).all() for values in results)
        (expected, _), (anomaly_map, score) = run_model(explosive_model(), frame), run_model(typed, frame)
        np.testing.assert_array_equal(anomaly_map > 1, expected > 1)
        np.testing.assert_array_equal(results[0] > 1, expected > 1)
        assert score > 1.9  # of 2 taps


def gemm_graph(weight, bias, followers=""):
    """A Gemm as a subnet's first layer (with the row and column tables) or alone, for `gemm_limits`."""
    x = gs.Variable("x", np.float32, ("n", weight.shape[1]))
    y = gs.Variable("y", np.float32)
    constants = [gs.Constant("w", weight), gs.Constant("b", bias)]
    nodes = [gs.Node("Gemm", "first", {"transB": 1}, [x, *constants], [y])]
    for index, operator in enumerate(followers):
        out = gs.Variable(f"t{index}", np.float32)
        inputs = {
            "a": [y, gs.Constant(f"table{index}", np.full((1, len(weight)), 100 * (index + 1), np.float32))],
            "r": [y],
        }
        nodes.append(gs.Node({"a": "Add", "r": "Relu"}[operator], f"n{index}", {}, inputs[operator], [out]))
        y = out
    if followers.endswith("r"):
        last = gs.Variable("last", np.float32)
        square = gs.Constant("w2", np.eye(len(weight), dtype=np.float32))
        nodes.append(gs.Node("Gemm", "second", {"transB": 1}, [y, square], [last]))
        y = last
    return gs.Graph(nodes, [x], [y])


class TestLimits:
    @pytest.mark.parametrize("seed", range(20))
    def test_the_worst_input_within_the_limit_does_not_overflow(self, seed):
        rng = np.random.default_rng(seed)
        outputs, inputs = rng.integers(1, 48, 2)
        weight = rng.normal(scale=10.0 ** rng.uniform(-3, 2), size=(outputs, inputs)).astype(np.float32)
        bias = rng.normal(scale=10.0 ** rng.uniform(-3, 3.5), size=outputs).astype(np.float32)
        limit = gemm_limits(gemm_graph(weight, bias).nodes[0]).input_limit
        half_weight, half_bias, half_limit = (np.asarray(value, np.float16) for value in (weight, bias, limit))
        for row in range(outputs):
            sign = np.where(half_weight[row] < 0, -1, 1).astype(np.float16)
            for direction in (1, -1):
                total = half_bias[row]
                for term in half_weight[row] * (sign * half_limit) * np.float16(direction):
                    total = np.float16(total + term)  # the roughest accumulator there is
                assert np.isfinite(total)

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_little_more_would_overflow(self):
        weight = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
        limit = gemm_limits(gemm_graph(weight, np.zeros(4, np.float32)).nodes[0]).input_limit / HEADROOM * 1.001
        worst = np.abs(weight).sum(axis=1).argmax()
        assert np.isinf(np.float16((np.abs(weight[worst]).astype(np.float64) * limit).sum()))

    def test_is_never_beyond_a_half(self):
        weight = np.full((2, 2), 1e-9, np.float32)
        limit = gemm_limits(gemm_graph(weight, np.zeros(2, np.float32)).nodes[0]).input_limit
        assert limit == pytest.approx(HEADROOM * FP16_MAX) and np.isfinite(np.float16(limit))

    def test_tables_behind_the_product_count(self):
        weight = np.eye(3, dtype=np.float32)
        limits = gemm_limits(gemm_graph(weight, np.full(3, 4, np.float32), "aar").nodes[0])
        assert limits.input_limit == pytest.approx(HEADROOM * (FP16_MAX - 4 - 100 - 200))
        assert [node.op for node in limits.followers] == ["Add", "Add", "Relu"]

    def test_a_chain_that_ends_elsewhere_is_not_followed(self):
        limits = gemm_limits(gemm_graph(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), "a").nodes[0])
        assert limits.followers == ()

    def test_biases_beyond_a_half_are_refused(self):
        with pytest.raises(UserError, match="first: biases must be below 65504 for FP16; found 70000"):
            gemm_limits(gemm_graph(np.eye(3, dtype=np.float32), np.full(3, 7e4, np.float32)).nodes[0])


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
            permutation = node.op_type == "Gemm" and "/subnet" not in node.name
            assert (behind == ["DequantizeLinear"] * 2) == (not permutation), node.name
        assert len(nodes_of(model, "Gemm")) == 2 * 2 * 2 + 2  # 2 taps, 2 blocks, 2 layers; 1 permutation a tap

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
            assert all(weights[name].dtype == np.float32 for name in node.input[2:])

    def test_permutations_only_when_asked_for(self):
        ranges = small_ranges()
        model = to_int8(small_model(), ranges, quantise_permutations=True)
        makers = producers_of(model)
        assert all(makers[node.input[1]].op_type == "DequantizeLinear" for node in nodes_of(model, *WEIGHTED))

    @pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v3_large"])
    def test_identities_share_the_quantised_tensor(self, encoder):
        if encoder == "resnet18":
            before, model = small_model(), small_int8()
        else:
            before = mobilenet()
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
        assert found >= 3
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
    @pytest.fixture(scope="class")
    def frame(self):
        return next(calibration_frames(read_calibration_data(CALIBRATION_DATA), SIZE))

    def layer(self, operator, frame):
        """A layer's input before Q/DQ and its output as the graph gives them, and its FP32 weight and bias."""
        typed, plain = small_int8(), small_model()
        name = "encoder/layer1/0/conv1/Conv" if operator == "Conv" else "layer2/block1/subnet2/Gemm"
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
        x, weight, bias, y = self.layer("Gemm", frame)
        expected = x @ weight.T + bias
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
        extremes = collect_ranges(small_model(), few, SIZE, ("Gemm",), "minmax")
        ranges = collect_ranges(small_model(), few, SIZE, ("Gemm",), method)
        assert ranges.keys() == extremes.keys()
        for name, (low, high) in ranges.items():
            largest = max(map(abs, extremes[name]))
            assert max(abs(low), abs(high)) <= largest * (1 + 1e-4)

    def test_ranges_that_are_not_finite_are_an_error(self):
        model = copy_of(small_model())
        tensor = next(t for t in model.graph.initializer if t.name == "layer1/block0/Gemm/weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(np.inf), tensor.name))
        data = read_calibration_data(CALIBRATION_DATA)
        with pytest.raises(UserError, match="calibration ranges must be finite"):
            collect_ranges(model, type(data)(data.paths[:1], "", ""), SIZE, WEIGHTED, "minmax")


class TestCommand:
    def test_int8_with_the_shipped_images(self, tmp_path, capsys):
        save_model(small_model(), tmp_path / "cable.onnx")
        main([str(tmp_path / "cable.onnx"), "--int8", "--calibration-data", str(CALIBRATION_DATA)])
        typed = load_model(tmp_path / "cable.int8.onnx")
        assert get_info(typed, "").precision == "int8" and nodes_of(typed, "QuantizeLinear")
        assert "wrote" in capsys.readouterr().out

    def test_fp16(self, tmp_path):
        save_model(small_model(), tmp_path / "cable.onnx")
        main([str(tmp_path / "cable.onnx"), "--fp16"])
        assert get_info(load_model(tmp_path / "cable.fp16.onnx"), "").precision == "fp16"

    def test_refuses_an_unfused_graph(self, tmp_path):
        save_model(exported(small_config()).unfused, tmp_path / "cable.unfused.onnx")
        with pytest.raises(UserError, match=r"must be fused; found an unfused export; run export\.fuse"):
            main([str(tmp_path / "cable.unfused.onnx"), "--fp16"])
        assert [path.name for path in tmp_path.iterdir()] == ["cable.unfused.onnx"]

    def test_refuses_an_onnx_of_others(self, tmp_path):
        model = copy_of(small_model())
        del model.metadata_props[:]
        save_model(model, tmp_path / "cable.onnx")
        with pytest.raises(UserError, match="written by export.to_onnx"):
            main([str(tmp_path / "cable.onnx"), "--fp16"])

    @pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"metadata": {"schema": "other"}}'])
    def test_refuses_damaged_metadata(self, text):
        model = copy_of(small_model())
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {"cflow-edge": text})
        with pytest.raises(UserError, match="cable"):
            get_info(model, "cable")

    @pytest.mark.parametrize("content", [b"", b"\x00\xff no onnx"])
    def test_refuses_a_file_that_is_no_onnx(self, tmp_path, content):
        (tmp_path / "cable.onnx").write_bytes(content)
        with pytest.raises(UserError, match="must be an ONNX file"):
            load_model(tmp_path / "cable.onnx")

    def test_refuses_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            load_model(tmp_path / "cable.onnx")
