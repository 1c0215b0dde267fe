import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from export.passes.opset17 import lower_to_opset17
from runtime.common.errors import UserError
from tests.support.graph_text import evaluate, model_of, normal


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def lowered(model):
    graph = gs.import_onnx(model)
    lower_to_opset17(graph)
    result = gs.export_onnx(graph)
    onnx.checker.check_model(result, full_check=True)
    onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
    assert [(o.domain, o.version) for o in result.opset_import] == [("", 17)]
    return result


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin", "ReduceMean", "ReduceSumSquare", "ReduceL2"])
@pytest.mark.parametrize("axes", [[1], [-1, 1], None])
def test_reductions(rng, operator, axes):
    body = f"y = {operator}<keepdims = 0>(x, axes)" if axes else f"y = {operator}<keepdims = 0>(x)"
    shape = "" if axes is None else "[2,4]" if len(axes) == 1 else "[2]"
    model = model_of(
        body, "float[2,3,4] x", f"float{shape} y" if shape else "float y", **({"axes": axes} if axes else {})
    )
    x = normal(rng, 2, 3, 4)
    result = lowered(model)
    np.testing.assert_array_equal(evaluate(result, x=x)[0], evaluate(model, x=x)[0])


def test_sum_keeps_its_input(rng):
    model = model_of("y = ReduceSum<keepdims = 0>(x, axes)", "float[2,3] x", "float[2] y", axes=[1])
    result = lowered(model)
    assert len(result.graph.node[0].input) == 2
    x = normal(rng, 2, 3)
    np.testing.assert_array_equal(evaluate(result, x=x)[0], evaluate(model, x=x)[0])


def test_split_with_sizes(rng):
    model = model_of("a, b = Split<axis = 1>(x, sizes)", "float[2,5] x", "float[2,2] a, float[2,3] b", sizes=[2, 3])
    x = normal(rng, 2, 5)
    for before, after in zip(evaluate(model, x=x), evaluate(lowered(model), x=x), strict=True):
        np.testing.assert_array_equal(after, before)


def test_resize(rng):
    body = """y = Resize<mode = "linear", coordinate_transformation_mode = "align_corners", antialias = 0,
                         keep_aspect_ratio_policy = "stretch">(x, , , sizes)"""
    model = model_of(body, "float[1,1,3,4] x", "float[1,1,6,9] y", sizes=[1, 1, 6, 9])
    result = lowered(model)
    assert {a.name for a in result.graph.node[0].attribute} == {"mode", "coordinate_transformation_mode"}
    x = normal(rng, 1, 1, 3, 4)
    np.testing.assert_array_equal(evaluate(result, x=x)[0], evaluate(model, x=x)[0])


@pytest.mark.parametrize("absent", ["", ", , , "])  # the second has a fourth input, and it is empty
def test_pad_over_all_axes(rng, absent):
    body = f'y = Pad<mode = "reflect">(x, pads{absent})'
    model = model_of(body, "float[1,1,3,4] x", "float[1,1,5,6] y", pads=[0, 0, 1, 1, 0, 0, 1, 1])
    x = normal(rng, 1, 1, 3, 4)
    expected = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
    np.testing.assert_array_equal(evaluate(lowered(model), x=x)[0], expected)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = ReduceMax<keepdims = 1, noop_with_empty_axes = 1>(x)", "noop_with_empty_axes is set"),
        ("z = Identity(axes)\ny = ReduceMax<keepdims = 1>(x, z)", "axes are computed"),
        ("y, z = Split<axis = 3, num_outputs = 2>(x)", "num_outputs without sizes"),
        ('y = Resize<mode = "linear", antialias = 1>(x, , , sizes)', "antialias is 1"),
        (
            'y = Resize<keep_aspect_ratio_policy = "not_larger">(x, , , sizes)',
            "keep_aspect_ratio_policy is 'not_larger'",
        ),
        ("y = Resize<axes = [2, 3]>(x, , , two)", "axes is set"),
        ("y = Pad(x, pads, , two)", "axes is set"),
        ("y = Mish(x)", "definition changed"),  # new in 18
    ],
)
def test_refuses_what_17_cannot_say(body, reason):
    text = f'<ir_version: 8, opset_import: ["" : 18]>\ngraph (float[1,1,4,4] x) => (y) {{\n{body}\n}}'
    model = onnx.parser.parse_model(text)
    values = {"axes": [1], "sizes": [1, 1, 8, 8], "two": [8, 8], "pads": [0] * 8}
    model.graph.initializer.extend(numpy_helper.from_array(np.int64(v), name) for name, v in values.items())
    model.graph.node[-1].name = "the/node"
    with pytest.raises(UserError, match=f"the/node .* must be expressible in opset 17; found (its )?{reason}"):
        lower_to_opset17(gs.import_onnx(model))


def test_leaves_17_alone():
    model = model_of("y = ReduceMax<axes = [1], keepdims = 0>(x)", "float[2,3] x", "float[2] y", opset=17)
    graph = gs.import_onnx(model)
    lower_to_opset17(graph)
    assert gs.export_onnx(graph).graph.node == model.graph.node
