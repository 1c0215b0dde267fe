"""From the names that engines give their layers to the parts of the network."""

import functools
import re
from collections import Counter
from pathlib import Path

import onnx
import pytest

from export.frame_size import resize_inside
from export.fuse import fuse
from export.graph.onnx_files import save_model
from export.precisions.typing import to_fp16
from runtime.report.layers import FRAMES, LAYOUT, OTHER, SCORE, STEM, TAPS, group_layers, group_of, named_nodes
from runtime.report.onnx_nodes import node_behind, read_producers
from runtime.report.schema import LayerGroup
from tests.support.export_fixtures import exported, small_config

RESNET = ("layer1", "layer2", "layer3")
MOBILENET = ("features6", "features12", "features15")

# as the exporter named them, ONNX Runtime 1.32's trace and OpenVINO 2026.4's executed graph told them
NODES = [
    ("normalise/Cast", FRAMES),
    ("normalise/Transpose_original", FRAMES),
    ("normalise/Transpose + normalise/Mul + normalise/Sub", FRAMES),
    ("resize/MatMul_16", FRAMES),
    ("encoder/bn1/Conv/WithoutBiases + encoder/bn1/Conv + encoder/relu/Relu", STEM),
    ("encoder/conv1/Pad", STEM),
    ("encoder/maxpool/MaxPool", STEM),
    ("relu_nchwc (encoder/relu/Relu)", STEM),
    ("encoder/layer2/0/downsample/1/Conv", "encoder layer2"),
    ("encoder/layer1/0/Add + encoder/layer1/0/relu/Relu_2 + relu_2/int8/Q", "encoder layer1"),
    ("getitem_6_nchwc (encoder/layer1/0/bn2/Conv)", "encoder layer1"),
    ("layer1/block0/Split", "decoder 1 block 1"),
    ("layer3/block7/subnet0/Gemm/position", "decoder 3 block 8"),
    ("fused layer2/block0/subnet2/scale", "decoder 2 block 1"),
    ("InsertedPrecisionFreeCast_layer1/block0/subnet0/Gemm/product_nchwc", "decoder 1 block 1"),
    ("split_with_sizes_17_split_0_nchwc (layer3/block0/permutation/passive)", "decoder 3 block 1"),
    ("VariadicSplit_9426 (layer2/block3/Tanh + layer2/block3/Mul_2 + layer2/block3/Exp)", "decoder 2 block 4"),
    ("layer2/log_det_jacobian + layer2/log_det_scaled", "decoder 2 likelihood"),
    ("Add_1915 + Add_1916 + layer2/log_scales", "decoder 2 likelihood"),
    ("layer1/Add_2", "decoder 1 likelihood"),
    ("Multiply_1978 (layer2/norm + layer2/norm_scaled)", "decoder 2 likelihood"),
    ("layer1/unshifted + layer1/excess_fibers + score/Min + score/Exp + score/grid/sum", "decoder 1 likelihood"),
    ("score/map/heightened + anomaly_map", SCORE),
    ("image_score", SCORE),
    ("score/TopK", SCORE),
    ("ReorderInput", LAYOUT),
    ("ReorderOutput_token_453", LAYOUT),
    ("inserted Reorder normalise/Sub_abcd_acdb_encoder/bn1/Conv/WithoutBiases", LAYOUT),
    ("Multiply_402", OTHER),
    ("HardSigmoid_552", OTHER),
    ("/model/encoder/layer1/0/Conv", OTHER),  # another project's
    ("layer4/block0/Split", OTHER),  # a tap that this model does not have
]
# in TensorRT's wording: fused layers, DLA and Myelin regions, pointwise fusions, reformats and copies of 8.6 to 10
TENSORRT = [
    ("encoder/layer1/0/bn2/Conv + encoder/layer1/0/Add + encoder/layer1/0/relu/Relu_2", "encoder layer1"),
    ("relu_3/int8/Q + encoder/layer2/0/bn1/Conv + encoder/layer2/0/relu/Relu", "encoder layer2"),
    ("PWN(PWN(PWN(layer1/block0/Tanh), layer1/block0/Mul_2), layer1/block0/Exp)", "decoder 1 block 1"),
    ("{ForeignNode[layer1/block0/Split...score/map/sum]}", "decoder 1 block 1"),
    ("{ForeignNode[(Unnamed Layer* 12) [Shuffle]...layer3/block7/Concat_2]}", "decoder 3 block 8"),
    ("layer2/block1/subnet2/scale || layer2/block1/subnet2/shift", "decoder 2 block 2"),
    ("layer3/block2/permutation/passive_myl0_41", "decoder 3 block 3"),
    ("__myl_TanhMulExpMul_myl0_17 (layer2/block4/Tanh + layer2/block4/Mul_2)", "decoder 2 block 5"),
    ("Reformatting CopyNode for Input Tensor 0 to encoder/bn1/Conv + encoder/relu/Relu", LAYOUT),
    ("Reformatting CopyNode for Output Tensor 0 to {ForeignNode[layer1/norm...score/Exp]}", LAYOUT),
    ("add_23 copy", LAYOUT),
    ("__myl_MulAdd_myl0_3", OTHER),
    ("(Unnamed Layer* 12) [Shuffle]", OTHER),
    ("17", OTHER),  # a plan without names numbers its layers
]


@pytest.mark.parametrize(("name", "group"), NODES + TENSORRT)
def test_a_layers_part_of_a_residual_network(name: str, group: str):
    assert group_of(name, RESNET) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("encoder/features/0/1/Conv + encoder/features/0/2/HardSwish", STEM),
        ("encoder/features/4/block/2/avgpool/ReduceMean", "encoder features4"),
        ("encoder/features/12/block/3/1/BatchNormalization + encoder/Add_2", "encoder features12"),
        ("encoder/Add_2", TAPS),  # behind a tap, in no module of its own
        ("features12/block1/subnet2/scale", "decoder 2 block 2"),
        ("features15/norm", "decoder 3 likelihood"),
    ],
)
def test_a_layers_part_of_a_network_of_features(name: str, group: str):
    assert group_of(name, MOBILENET) == group


def test_the_taps_number_the_decoders():
    assert group_of("layer3/block0/Exp", RESNET) == "decoder 3 block 1"
    assert group_of("layer3/block0/Exp", ("layer2", "layer3", "layer4")) == "decoder 2 block 1"


def test_groups_are_in_the_networks_order_and_keep_every_layer():
    layers = [(name, 0.1 + index) for index, (name, _) in enumerate(NODES + TENSORRT)]
    groups = group_layers(layers, RESNET)
    assert [group.name for group in groups] == [
        "frames",
        "encoder stem",
        "encoder layer1",
        "encoder layer2",
        "decoder 1 block 1",
        "decoder 1 likelihood",
        "decoder 2 block 1",
        "decoder 2 block 2",
        "decoder 2 block 4",
        "decoder 2 block 5",
        "decoder 2 likelihood",
        "decoder 3 block 1",
        "decoder 3 block 3",
        "decoder 3 block 8",
        "upsampling and score",
        "data layout",
        "other",
    ]
    assert sum(group.ms for group in groups) == pytest.approx(sum(ms for _, ms in layers), rel=1e-12)  # float64 sums
    assert {group.name: group.layers for group in groups} == Counter(group for _, group in NODES + TENSORRT)


def test_numbers_sort_as_numbers_and_ends_come_last():
    names = ["encoder/Add", "encoder/features/10/Add", "encoder/features/9/Add", "encoder/features/0/1/Conv"]
    names += ["features6/norm", "features6/block10/Exp", "features6/block9/Exp", "normalise/Sub"]
    assert [group.name for group in group_layers([(name, 1.0) for name in names], MOBILENET)] == [
        "frames",
        "encoder stem",
        "encoder features9",
        "encoder features10",
        "encoder taps",
        "decoder 1 block 10",
        "decoder 1 block 11",
        "decoder 1 likelihood",
    ]


def test_a_group_is_the_sum_of_its_layers():
    layers = [("layer1/block0/Exp", 0.25), ("layer1/block0/Tanh", 0.5), ("ReorderInput", 1.0)]
    assert group_layers(layers, RESNET) == (LayerGroup("decoder 1 block 1", 0.75, 2), LayerGroup(LAYOUT, 1.0, 1))
    assert group_layers([], RESNET) == ()


@functools.cache
def _forms() -> dict[str, onnx.ModelProto]:
    detector = exported(small_config())
    gemm, _ = fuse(detector.unfused, detector.info, layout="gemm")
    framed = resize_inside(detector.fused, (100, 140), "small")
    return {"unfused": detector.unfused, "fused": detector.fused, "gemm": gemm, "resize inside": framed}


@pytest.mark.parametrize("form", ["unfused", "fused", "gemm", "resize inside"])
def test_every_node_of_a_real_graph_has_its_part(form: str):
    config = small_config()
    groups = Counter(group_of(node.name, config.taps) for node in _forms()[form].graph.node)
    blocks = {f"decoder {tap} block {block}" for tap in (1, 2) for block in range(1, config.coupling_blocks + 1)}
    ends = {"decoder 1 likelihood", "decoder 2 likelihood"}
    assert set(groups) == {FRAMES, STEM, "encoder layer1", "encoder layer2", SCORE} | blocks | ends
    assert min(groups[block] for block in blocks) >= 9  # products, Tanh, Exp, Mul, Add, ...


# what is read of a file without the package `onnx`


@pytest.mark.parametrize("form", ["fused", "fp16"])
def test_the_producers_of_a_file_are_those_that_onnx_reads(form: str, tmp_path: Path):
    fused = exported(small_config()).fused
    model = to_fp16(fused) if form == "fp16" else fused
    save_model(model, tmp_path / "a.onnx")
    expected = {output: node.name for node in model.graph.node for output in node.output}
    assert len(expected) > 100 and read_producers(tmp_path / "a.onnx") == expected


def test_a_typed_graphs_nodes_are_all_found_behind_their_tensors(tmp_path: Path):
    model = to_fp16(exported(small_config()).fused)
    save_model(model, tmp_path / "a.onnx")
    producers = read_producers(tmp_path / "a.onnx")
    after_tensors = [node.name for node in model.graph.node if not named_nodes(node.name)]
    assert any(name.endswith("/fp16/out/limit") for name in after_tensors)
    for name in after_tensors:
        assert re.match(r"decoder \d block \d", group_of(node_behind(name, producers), small_config().taps)), name


PRODUCERS = {"relu": "encoder/relu/Relu", "relu_3": "encoder/layer1/1/relu/Relu", "relu_3/q": "relu_3/int8/Q"}


@pytest.mark.parametrize(
    ("layer", "node"),
    [
        ("relu_nchwc", "encoder/relu/Relu"),
        ("relu_3_nchwc", "encoder/layer1/1/relu/Relu"),
        ("relu_3_bn_nchwc", "encoder/layer1/1/relu/Relu"),
        ("relu_3/int8/DQ/duplicated", "encoder/layer1/1/relu/Relu"),
        ("InsertedPrecisionFreeCast_relu_3_nchwc", "encoder/layer1/1/relu/Relu"),
        ("relu_3/q_nchwc", "encoder/layer1/1/relu/Relu"),  # by way of the node that is called after a tensor
        ("relu_31_nchwc", ""),  # neither relu_3 nor relu
        ("tanh", ""),
    ],
)
def test_the_node_that_a_layer_is_called_after(layer: str, node: str):
    assert node_behind(layer, PRODUCERS) == node


def test_a_node_that_is_called_after_its_own_result_ends_the_search():
    assert node_behind("a_nchwc", {"a": "a"}) == ""
