import re

import numpy as np
import onnx
import pytest

from export import fuse as fuse_module
from export.fuse import compare, fuse, main
from export.graph.onnx_files import get_info, load_model, save_model
from export.model.checkpoint import save_checkpoint
from export.to_onnx import main as export_main
from runtime.common.errors import UserError
from tests.support.export_fixtures import (
    TEST_SIZES,
    build,
    checkpoint_of,
    config_of,
    exported,
    run_model,
    session_of,
    small_config,
    three_taps,
)

# FP32 rounding over 8 blocks measures 3e-7 to 2e-6 in score units; the criterion leaves a few times that.
MAP_TOLERANCE = 1e-5

(
    STEM,
    CONDITION,
    PARTS,
    LAST,
    GATHER,
    AFFINE,
    FACTOR,
    MERGED,
    HALVES,
    BEFORE,
    UNJOINED,
    MAPS,
    IMAGES,
    UNREAD,
    CARRIED,
) = (
    "normalisation into the stem",
    "condition into row and column bias",
    "norm of factored channels by parts",
    "last permutation dropped",
    "hard permutation into gather",
    "global affine into permutation",
    "constant factor into subnet",
    "log-determinants and constants merged",
    "halves as separate results",
    "global affine before its coupling",
    "halves of a coupling not joined",
    "maps upsampled by products",
    "fibers into images (1 x 1 convolutions)",
    "unread initializers (inverse permutations)",
    "what is not finite carried to the score",
)
FACTORED = {"factored": ("layer1", "layer2")}
# (encoder, input size, blocks, nodes before and after the rewrites), each on 3 taps
EVERY_ENCODER = [
    ("resnet18", (128, 192), 8, (612, 410)),
    ("mobilenet_v3_large", (72, 104), 2, (340, 264)),
    ("efficientnet_lite0", (72, 104), 2, (267, 191)),
    pytest.param(("resnet18", (256, 256), 8, (612, 410)), marks=pytest.mark.slow),
    pytest.param(("mobilenet_v3_large", (256, 256), 8, (700, 498)), marks=pytest.mark.slow),
    pytest.param(("mobilenet_v3_large", (72, 104), 8, (700, 498)), marks=pytest.mark.slow),
    pytest.param(("wide_resnet50_2", (256, 256), 8, (685, 483)), marks=pytest.mark.slow),
    pytest.param(("wide_resnet50_2", (96, 128), 8, (685, 483)), marks=pytest.mark.slow),
]


def of_three_taps(blocks):
    """The matches of each rewrite."""
    of_each_block = {CONDITION: 3 * blocks, AFFINE: 3 * (blocks - 1), FACTOR: 3 * blocks, HALVES: 3 * (2 * blocks - 1)}
    return {
        UNREAD: 0,
        STEM: 1,
        PARTS: 0,
        UNJOINED: 0,
        LAST: 3,
        GATHER: 0,
        MERGED: 3,
        BEFORE: 3,
        MAPS: 2,
        IMAGES: 3,
        CARRIED: 3,
    } | of_each_block


@pytest.fixture(scope="module", params=EVERY_ENCODER, ids=lambda case: f"{case[0]}-{case[1][0]}x{case[1][1]}-{case[2]}")
def full(request):
    encoder, size, blocks, nodes = request.param
    shared = size == TEST_SIZES[encoder] and encoder != "wide_resnet50_2"  # the big ones go when their tests end
    return (exported if shared else build)(config_of(encoder, size, coupling_blocks=blocks)), blocks, nodes


def assert_agrees(case):
    anomaly_map, score = run_model(case.fused, case.frames)
    assert case.anomaly_map.std() > 0.01  # a saturated map would agree with anything
    assert np.abs(anomaly_map - case.anomaly_map).max() <= MAP_TOLERANCE
    assert np.abs(score - case.image_score).max() <= MAP_TOLERANCE


def shape_of(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


class TestEveryEncoder:
    def test_agrees_with_float64(self, full):
        assert_agrees(full[0])

    def test_match_counts(self, full):
        case, blocks, _ = full
        assert case.counts == of_three_taps(blocks)

    def test_node_counts(self, full):
        assert full[0].nodes == full[2]

    def test_contract(self, full):
        case = full[0]
        height, width = case.info.sidecar.input_size
        graph = case.fused.graph
        facts = {v.name: (v.type.tensor_type.elem_type, shape_of(v)) for v in (*graph.input, *graph.output)}
        assert facts == {
            "frames": (onnx.TensorProto.UINT8, ["batch", height, width, 3]),
            "anomaly_map": (onnx.TensorProto.FLOAT, ["batch", height, width]),
            "image_score": (onnx.TensorProto.FLOAT, ["batch"]),
        }
        assert [(o.domain, o.version) for o in case.fused.opset_import] == [("", 17)]
        assert get_info(case.fused, "").fused

    def test_every_tensor_has_a_type(self, full):
        graph = full[0].fused.graph
        typed = {v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type}
        assert {output for node in graph.node for output in node.output} <= typed

    def test_names_tell_the_module_and_are_unique(self, full):
        case, blocks, _ = full
        names = [node.name for node in case.fused.graph.node]
        assert len(set(names)) == len(names)
        roots = {name.split("/")[0] for name in names}
        assert roots == {"normalise", "encoder", "score", *case.info.sidecar.taps}
        tap = case.info.sidecar.taps[1]
        parts = ("subnet0/Gemm", "subnet1/Relu", "subnet2/scale", "subnet2/shift", "permutation/active", "Tanh", "Exp")
        for part in parts:
            assert f"{tap}/block{blocks // 2 - 1}/{part}" in names

    def test_no_inverse_permutation_is_kept(self, full):
        case = full[0]
        for model in (case.unfused, case.fused):
            assert not [tensor.name for tensor in model.graph.initializer if "w_perm_inv" in tensor.name]
        read = {name for node in case.fused.graph.node for name in node.input}
        assert {tensor.name for tensor in case.fused.graph.initializer} <= read


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"conditional": False}, {CONDITION: 0}),
        ({"soft_permutation": False}, {GATHER: 2, AFFINE: 0, BEFORE: 4}),
        pytest.param(
            {"soft_permutation": False, "coupling_blocks": 4},
            {CONDITION: 8, GATHER: 6, AFFINE: 0, FACTOR: 8, HALVES: 14, BEFORE: 8},
            marks=pytest.mark.slow,
        ),
        ({"score": "paper"}, {MAPS: 1}),
        ({"score": "tap_deviation", "pooled": ("layer1",)}, {MAPS: 1}),
        ({"score": "tap_deviation", "pooled": ("layer1", "layer2"), "halved": ("layer1", "layer2")}, {MAPS: 1}),
        # a grid of odd sides, 9 x 13 and then 5 x 7, with fewer hidden units
        (
            {
                "input_size": (72, 104),
                "pooled": ("layer1", "layer2"),
                "halved": ("layer2",),
                "hidden_units": (160, 48),
            },
            {},
        ),
        ({"score": "place_deviation", "pooled": ("layer1", "layer2")}, {}),
        ({"clamp": "tanh(a/c)"}, {}),
        pytest.param({"coupling_blocks": 4}, {CONDITION: 8, AFFINE: 6, FACTOR: 8, HALVES: 14}, marks=pytest.mark.slow),
        ({"coupling_blocks": 1}, {CONDITION: 2, AFFINE: 0, FACTOR: 2, HALVES: 2}),
        (
            {"factored": ("layer2",), "coupling_blocks": 1},
            {PARTS: 1, CONDITION: 4, AFFINE: 1, FACTOR: 4, HALVES: 5, BEFORE: 3, UNJOINED: 1},
        ),
        (
            {**FACTORED, "conditional": False, "clamp": "tanh(a/c)"},
            {PARTS: 2, CONDITION: 0, AFFINE: 4, FACTOR: 8, HALVES: 12, BEFORE: 4, UNJOINED: 2},
        ),
        (
            {**FACTORED, "soft_permutation": False, "pooled": ("layer1", "layer2"), "halved": ("layer1",)},
            {PARTS: 2, CONDITION: 8, GATHER: 4, AFFINE: 0, FACTOR: 8, HALVES: 12, BEFORE: 8, UNJOINED: 2, MAPS: 1},
        ),
        (
            {"taps": ("layer2",)},
            {
                CONDITION: 2,
                LAST: 1,
                AFFINE: 1,
                FACTOR: 2,
                MERGED: 1,
                HALVES: 3,
                BEFORE: 1,
                MAPS: 1,
                IMAGES: 1,
                CARRIED: 1,
            },
        ),
    ],
    ids=str,
)
def test_variations_match_and_agree(changes, expected):
    case = exported(small_config(**changes))
    assert_agrees(case)
    of_two_taps = {CONDITION: 4, LAST: 2, GATHER: 0, AFFINE: 2, FACTOR: 4, MERGED: 2, HALVES: 6, BEFORE: 2, MAPS: 2}
    always = {UNREAD: 0, STEM: 1, IMAGES: 2, CARRIED: 2, PARTS: 0, UNJOINED: 0}
    assert case.counts == always | of_two_taps | expected


def test_clamps_differ():
    """Same weights, other soft clamp, other scores: the two must not be mixed up."""
    left, right = (exported(small_config(clamp=clamp)) for clamp in ("tanh(a)", "tanh(a/c)"))
    assert np.abs(left.anomaly_map - right.anomaly_map).max() > 100 * MAP_TOLERANCE


def test_hard_permutations_cost_no_arithmetic():
    case = exported(small_config(soft_permutation=False))
    decoders = [node for node in case.fused.graph.node if not node.name.startswith(("encoder/", "normalise", "score/"))]
    assert all("/subnet" in node.name for node in decoders if node.op_type == "Conv")
    # Of all the global affines one is left, in front of the decoder; the other products are the couplings' own.
    multiplications = [node.name for node in decoders if node.op_type == "Mul" and node.name.startswith("layer1/block")]
    assert sorted(name.split("/")[1] for name in multiplications) == sorted(
        ["block0"] + 2 * [f"block{i}" for i in range(2)]
    )


@pytest.mark.parametrize("changes", [{}, FACTORED], ids=str)
@pytest.mark.parametrize("layout", ["convolution", "gemm"])
def test_layouts_agree_with_float64(layout, changes):
    case = exported(small_config(**changes))
    fused, _ = fuse(case.unfused, case.info, layout)
    anomaly_map, score = run_model(fused, case.frames)
    assert np.abs(anomaly_map - case.anomaly_map).max() <= MAP_TOLERANCE
    assert np.abs(score - case.image_score).max() <= MAP_TOLERANCE
    operators = {node.op_type for node in fused.graph.node if "/block" in node.name}
    assert ("Gemm" in operators) == (layout == "gemm") and ("Conv" in operators) == (layout == "convolution")


class TestNeighbours:
    @pytest.fixture
    def case(self):
        return exported(three_taps("resnet18"))

    def test_same_bits_after_any_other_frame(self, case):
        session = session_of(case.fused)
        first = session.run(None, {"frames": case.frames[:1]})
        for other in (case.frames[1:2], case.frames, 255 - case.frames[:1]):
            session.run(None, {"frames": other})
            again = session.run(None, {"frames": case.frames[:1]})
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_same_score_and_verdict_at_any_place_of_a_batch(self, case):
        session = session_of(case.fused)
        alone = np.concatenate([session.run(["image_score"], {"frames": frame[None]})[0] for frame in case.frames])
        threshold = float(np.sort(alone)[:2].mean())  # between two frames, so that verdicts differ
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 0, 1, 2, 1]):
            (scores,) = session.run(["image_score"], {"frames": case.frames[order]})
            # Other batch sizes let the matrix product sum in another order: a few units of float32's last place.
            np.testing.assert_allclose(scores, alone[order], rtol=0, atol=1e-6)
            assert ((scores > threshold) == (alone[order] > threshold)).all()


class TestFuse:
    def test_second_run_changes_nothing(self):
        case = exported(small_config())
        again, counts = fuse(case.fused, get_info(case.fused, ""))
        assert all(count.matches == 0 for count in counts)
        for a, b in zip(run_model(case.fused, case.frames), run_model(again, case.frames), strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(again.graph.node) == len(case.fused.graph.node)

    def test_lowering_to_opset_17_keeps_every_bit(self, monkeypatch):
        case = exported(small_config())
        monkeypatch.setattr(fuse_module.opset17, "lower_to_opset17", lambda graph: None)
        monkeypatch.setattr(fuse_module.opset17, "IR_VERSION", case.unfused.ir_version)
        newer, _ = fuse(case.unfused, case.info)
        assert newer.opset_import[0].version == 18
        for a, b in zip(run_model(newer, case.frames), run_model(case.fused, case.frames), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_passes_the_full_check_at_opset_17(self):
        onnx.checker.check_model(exported(small_config()).fused, full_check=True)

    def test_a_model_that_should_match_and_does_not_is_an_error(self):
        case = exported(small_config())
        model = onnx.ModelProto.FromString(case.unfused.SerializeToString())
        next(node for node in model.graph.node if node.name == "layer1/block1/subnet0/Gemm").attribute.append(
            onnx.helper.make_attribute("alpha", 2.0)
        )
        with pytest.raises(
            UserError, match=r"condition into row.* must match 4 times; found 3 \(layer1/block1/subnet0"
        ):
            fuse(model, case.info)

    def test_a_fused_model_called_unfused_is_an_error(self):
        case = exported(small_config())
        with pytest.raises(UserError, match="must match 1 times; found 0"):
            fuse(case.fused, case.info)

    def test_compare_sees_what_a_saturated_score_hides(self):
        case = exported(small_config())
        other = onnx.ModelProto.FromString(case.fused.SerializeToString())
        offset = next(tensor for tensor in other.graph.initializer if tensor.name == "layer2/offset")
        offset.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(offset) - np.float32(0.01), offset.name)
        )
        assert compare(case.unfused, case.fused, case.frames).exact
        worse = compare(case.unfused, other, case.frames)
        assert worse.log_likelihood > 1e-4 and not worse.exact


class TestCommands:
    def test_checkpoint_to_fused(self, tmp_path, capsys):
        save_checkpoint(tmp_path / "cable.pt", checkpoint_of(small_config(("layer1",))))
        export_main([str(tmp_path / "cable.pt")])
        main([str(tmp_path / "cable.unfused.onnx")])
        info = get_info(load_model(tmp_path / "cable.onnx"), "cable.onnx")
        assert info.fused and info.sidecar.name == "cable" and info.sidecar.thresholds["quantile"].value == 0.5
        out = capsys.readouterr().out
        assert "error against the unfused graph" in out
        assert re.search(rf"{CONDITION} +2 ", out)

    def test_a_rewrite_that_is_wrong_is_refused(self, tmp_path, monkeypatch):
        case = exported(small_config())
        save_model(case.unfused, tmp_path / "cable.unfused.onnx")
        broken = onnx.ModelProto.FromString(case.fused.SerializeToString())
        for tensor in broken.graph.initializer:
            if tensor.name.endswith("row_bias"):
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[:, :, ::-1].copy(), tensor.name))
        _, counts = fuse(case.unfused, case.info)
        monkeypatch.setattr(fuse_module, "fuse", lambda model, info, layout: (broken, counts))
        with pytest.raises(UserError, match="must agree with the unfused one"):
            main([str(tmp_path / "cable.unfused.onnx")])
        assert not (tmp_path / "cable.onnx").exists()
