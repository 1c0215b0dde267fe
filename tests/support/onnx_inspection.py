"""What tests ask of an ONNX model: its small examples, types, weights, nodes, and tensors from inside."""

import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from tests.support.export_fixtures import exported, small_config, three_taps

SIZE = small_config().input_size
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def small_model():
    return exported(small_config()).fused


def mobilenet():
    return exported(three_taps("mobilenet_v3_large", 2)).fused


def lite():
    return exported(three_taps("efficientnet_lite0", 2)).fused


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
