"""Small graphs written as ONNX text, and what a rewrite does to them."""

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from export.passes.rewrite import run

# Values are around 1 and sums over at most 8 of them: float32 rounding in another order stays below this.
TOLERANCE = 1e-5


def model_of(body, inputs, outputs, opset=18, **constants):
    """Parse a graph given as ONNX text; `constants` become its initializers."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\ngraph ({inputs}) => ({outputs}) {{\n{body}\n}}'
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"tap/node{index}/{node.op_type}"
    for name, value in constants.items():
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def evaluate(model, **feeds):
    return ReferenceEvaluator(model).run(None, feeds)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def rewritten(model, rewrite):
    """Apply `rewrite`, check the result and that a second run finds nothing: (model, count)."""
    graph = gs.import_onnx(model)
    count = run(graph, rewrite)
    result = gs.export_onnx(graph)
    onnx.checker.check_model(result, full_check=True)
    if count.matches:
        assert run(gs.import_onnx(result), rewrite).matches == 0
    return result, count


def assert_rewritten(model, rewrite, matches=1, **feeds):
    """The rewrite applies that often and every output keeps its values."""
    result, count = rewritten(model, rewrite)
    assert (count.matches, count.refusals) == (matches, [])
    for before, after in zip(evaluate(model, **feeds), evaluate(result, **feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE)
    return [node.op_type for node in result.graph.node]


def assert_untouched(model, rewrite, reason=None):
    """The rewrite does not apply: refused for `reason`, or (None) not even its pattern is seen."""
    result, count = rewritten(model, rewrite)
    assert count.matches == 0
    assert sorted(map(str, result.graph.node)) == sorted(map(str, model.graph.node))
    if reason is None:
        assert count.refusals == []
    else:
        assert len(count.refusals) == 1 and reason in count.refusals[0]
