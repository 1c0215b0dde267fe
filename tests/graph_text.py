"""Small graphs written as ONNX text."""

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


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
