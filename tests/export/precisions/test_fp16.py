import functools

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.fuse import fuse, probe_frames
from export.graph.onnx_files import get_info, set_info
from export.graph.weighted_layers import WEIGHTED
from export.model.cflow import DetectorModule, ModelConfig
from export.model.score import freeze_constants
from export.precisions.fp16_limits import FP16_MAX, HEADROOM, product_limits
from export.precisions.typing import to_fp16
from export.to_onnx import export_detector
from runtime.common.errors import UserError
from tests.support.export_fixtures import (
    exported,
    info_of,
    normalise_states,
    run_model,
    seeded_model,
    small_config,
    three_taps,
)
from tests.support.onnx_inspection import (
    FLOAT,
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


class TestFp16Types:
    @pytest.fixture(params=[small_model, mobilenet, lite], ids=["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
    def typed(self, request):
        return to_fp16(request.param())

    def test_weighted_layers_are_half_throughout(self, typed):
        types = types_of(typed)
        for node in nodes_of(typed, *WEIGHTED):
            assert {types[name] for name in (*node.input, *node.output)} == {HALF}, node.name

    def test_the_flow_and_the_score_stay_float(self, typed):
        types = types_of(typed)
        kinds = ("Tanh", "Exp", "ReduceSum", "ReduceSumSquare", "TopK", "MatMul")
        wide = [node for node in nodes_of(typed, *kinds) if not node.name.startswith("encoder/")]
        assert set(kinds) == {node.op_type for node in wide}
        for node in wide:
            assert types[node.output[0]] == FLOAT, node.name

    def test_no_node_mixes_types(self, typed):
        """TensorRT with strong typing refuses an elementwise operation on a float and a half."""
        types = types_of(typed)
        for node in typed.graph.node:
            if node.op_type != "Cast":
                found = {types[name] for name in (*node.input, *node.output) if name}
                assert not {FLOAT, HALF} <= found, node.name

    def test_only_the_encoders_ends_are_cast(self, typed):
        taps = get_info(typed, "").sidecar.taps
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

    @pytest.mark.parametrize("changes", [{}, {"factored": ("layer1", "layer2")}], ids=str)
    def test_agrees_with_fp32(self, changes):
        case = exported(small_config(**changes))
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
        case = exported(three_taps("mobilenet_v3_large", 2))
        anomaly_map, _ = run_model(to_fp16(case.fused), case.frames)
        # 15 blocks with squeeze-excitation in front of the flow's: a few times the shallow model's.
        assert np.abs(anomaly_map - case.anomaly_map).max() <= 5 * self.TOLERANCE

    def test_refuses_a_product_of_two_computed_tensors(self):
        model = copy_of(small_model())
        gemm = next(node for node in model.graph.node if node.name == "layer1/block0/permutation/active")
        weight = gemm.input[1]
        gemm.input[1] = "computed"
        model.graph.node.insert(0, onnx.helper.make_node("Identity", [weight], ["computed"], name="identity"))
        with pytest.raises(UserError, match="layer1/block0/permutation/active must be a plain product"):
            to_fp16(model)


def scaled(model, factors):
    """The model with some weights and biases, named by how they end, times a factor (per output channel or one)."""
    model = copy_of(model)
    for tensor in model.graph.initializer:
        for end, factor in factors.items():
            if tensor.name.endswith((f"{end}/weight", f"{end}/bias")):
                values = numpy_helper.to_array(tensor)
                by_channel = np.resize(
                    np.repeat(factor, len(values) // len(factor)), (len(values), *[1] * (values.ndim - 1))
                )
                tensor.CopyFrom(numpy_helper.from_array((values * by_channel).astype(np.float32), tensor.name))
    return model


@functools.cache
def explosive_model(part):
    """A model that leaves FP16's range: by a subnet's translations, or by a state that grows from block to block."""
    if part == "subnet":  # log-scales saturate at 1.9, translations reach 5e5
        return scaled(small_model(), {"/block0/subnet2/scale": [100], "/block0/subnet2/shift": [1e6]})
    return scaled(
        exported(small_config(coupling_blocks=4)).fused,
        {"/block0/permutation/passive": [2e4], "/block0/permutation/active": [2e4]},
    )


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
    @pytest.fixture(params=["subnet", pytest.param("state", marks=pytest.mark.slow)])
    def model(self, request):
        return explosive_model(request.param)

    @pytest.fixture
    def frame(self):
        return exported(small_config()).frames[:1]

    def test_the_state_passes_what_a_half_can_hold(self, model, frame):
        permutations = [node for node in nodes_of(model, "Conv") if "/permutation/" in node.name]
        states = run_as_written(model, frame, *(node.input[0] for node in permutations))
        assert 1e5 < max(np.abs(state).max() for state in states) < 1e7

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow is the point
    def test_a_naive_conversion_overflows(self, model, frame):
        norms = [node.input[0] for node in nodes_of(model, "Min")]
        values = ReferenceEvaluator(naive_fp16(with_outputs(model, *norms))).run(norms, {"frames": frame})
        assert not all(np.isfinite(v).all() for v in values)

    def test_ours_stays_finite_and_still_calls_it_anomalous(self, model, frame):
        typed = to_fp16(model)
        halves = [name for name, kind in types_of(typed).items() if kind == HALF and name not in weights_of(typed)]
        excess = [node.input[0] for node in nodes_of(typed, "Min")]
        evaluator = ReferenceEvaluator(with_outputs(typed, *halves, *excess))
        results = evaluator.run(["anomaly_map", *halves, *excess], {"frames": frame})
        assert all(np.isfinite(values).all() for values in results)
        (expected, _), (anomaly_map, score) = run_model(model, frame), run_model(typed, frame)
        np.testing.assert_array_equal(anomaly_map > 1, expected > 1)
        np.testing.assert_array_equal(results[0] > 1, expected > 1)
        assert score > 1.9  # of 2 taps


@functools.cache
def steep_model():
    """A detector that ordinary frames pass with states of tens and odd ones with thousands, as trained flows do.

    Eight blocks with strong subnets, each scaled so that ordinary frames leave it at unit variance.
    """
    config = ModelConfig("resnet18", ("layer1",), SIZE, coupling_blocks=8)
    ordinary = torch.from_numpy(probe_frames(info_of(config)))
    model = seeded_model(config, ordinary.numpy())
    with torch.no_grad():
        for name, parameter in model.decoders.named_parameters():
            parameter *= 3 if ".subnet.2." in name else 1
        normalise_states(model, ordinary)
        constants = freeze_constants(model.log_likelihoods(ordinary), config.score)
    unfused = export_detector(DetectorModule(model, constants))
    set_info(unfused, info_of(config))
    return fuse(unfused, info_of(config))[0]


def odd_frames():
    """What cameras and faults deliver, (1, H, W, 3): every pixel at an end of its range, noise, a checkerboard."""
    ordinary = probe_frames(info_of(small_config()))[:1]
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    squares = np.where((rows // 8 + columns // 8) % 2, 255, 0).astype(np.uint8)
    return {
        "saturated": np.where(ordinary > 127, 255, 0).astype(np.uint8),
        "noise": np.random.default_rng(7).integers(0, 256, ordinary.shape, dtype=np.uint8),
        "checkerboard": np.repeat(squares[None, :, :, None], 3, axis=3),
    }


@pytest.mark.slow
class TestOddFrames:
    """Where every operation rounds, as on a GPU: the reference implementation, not ONNX Runtime's CPU kernels."""

    @staticmethod
    def judged(model, frame):
        """anomaly_map, image_score, logp - m (before it is limited), and what else the model gives out."""
        (excess,) = (node.input[0] for node in nodes_of(model, "Min"))
        outputs = ["anomaly_map", "image_score", excess, *(output.name for output in model.graph.output[2:])]
        return ReferenceEvaluator(with_outputs(model, excess)).run(outputs, {"frames": frame})

    def test_ordinary_frames_pass_a_naive_conversion(self):
        """So what fails below is the frame, not the model."""
        frame = probe_frames(info_of(small_config()))[:1]
        assert all(np.isfinite(values).all() for values in self.judged(naive_fp16(steep_model()), frame))

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow is the point
    @pytest.mark.parametrize("kind", ["saturated", "noise", "checkerboard"])
    def test_odd_ones_overflow_it(self, kind):
        _, _, excess = self.judged(naive_fp16(steep_model()), odd_frames()[kind])
        assert not np.isfinite(excess).all()

    @pytest.mark.parametrize("kind", ["saturated", "noise", "checkerboard"])
    def test_ours_is_finite_and_near_fp32(self, kind):
        frame, typed = odd_frames()[kind], to_fp16(steep_model())
        halves = [name for name, kind in types_of(typed).items() if kind == HALF and name not in weights_of(typed)]
        anomaly_map, score, excess, *inside = self.judged(with_outputs(typed, *halves), frame)
        assert all(np.isfinite(values).all() for values in inside)
        expected_map, expected_score = run_model(steep_model(), frame)
        assert np.isfinite(excess).all()
        # One tap, score 0 to 1. Where the state reaches thousands the flow multiplies an FP16 rounding (5e-4) by tens,
        # but there the score is saturated; what is left are positions between.
        assert np.median(np.abs(anomaly_map - expected_map)) <= 0.01
        assert score == pytest.approx(expected_score, abs=0.02)


def gemm_graph(weight, bias, followers=()):
    """A Gemm as a subnet's first layer (with the row and column tables) or alone, for `product_limits`."""
    x = gs.Variable("x", np.float32, ("n", weight.shape[1]))
    y = gs.Variable("y", np.float32)
    constants = [gs.Constant("w", weight), gs.Constant("b", bias)]
    nodes = [gs.Node("Gemm", "first", {"transB": 1}, [x, *constants], [y])]
    for index, operator in enumerate(followers):
        out = gs.Variable(f"t{index}", np.float32)
        table = gs.Constant(f"table{index}", np.full((1, len(weight)), 100 * (index + 1), np.float32))
        inputs = {"Add": [y, table], "Relu": [y]}[operator]
        nodes.append(gs.Node(operator, f"n{index}", {}, inputs, [out]))
        y = out
    if followers and followers[-1] == "Relu":
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
        limit = product_limits(gemm_graph(weight, bias).nodes[0]).input_limit
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
        limit = product_limits(gemm_graph(weight, np.zeros(4, np.float32)).nodes[0]).input_limit / HEADROOM * 1.001
        worst = np.abs(weight).sum(axis=1).argmax()
        assert np.isinf(np.float16((np.abs(weight[worst]).astype(np.float64) * limit).sum()))

    def test_is_never_beyond_a_half(self):
        weight = np.full((2, 2), 1e-9, np.float32)
        limit = product_limits(gemm_graph(weight, np.zeros(2, np.float32)).nodes[0]).input_limit
        assert limit == pytest.approx(HEADROOM * FP16_MAX) and np.isfinite(np.float16(limit))

    def test_tables_behind_the_product_count(self):
        weight = np.eye(3, dtype=np.float32)
        limits = product_limits(gemm_graph(weight, np.full(3, 4, np.float32), ["Add", "Add", "Relu"]).nodes[0])
        assert limits.input_limit == pytest.approx(HEADROOM * (FP16_MAX - 4 - 100 - 200))
        assert [node.op for node in limits.followers] == ["Add", "Add", "Relu"]

    def test_a_chain_that_ends_elsewhere_is_not_followed(self):
        limits = product_limits(gemm_graph(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), ["Add"]).nodes[0])
        assert limits.followers == ()

    def test_biases_beyond_a_half_are_refused(self):
        with pytest.raises(UserError, match="first: biases must be below 65504 for FP16; found 70000"):
            product_limits(gemm_graph(np.eye(3, dtype=np.float32), np.full(3, 7e4, np.float32)).nodes[0])
