"""The parts of a detector's FP32 graph, told apart by the names of its nodes: the encoder, and all up to the score."""

from collections.abc import Callable

import onnx

from runtime.common.errors import UserError
from runtime.engines.sidecar import INPUT_NAME


def encoder_taps(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that the encoder hands to the decoders. Raises `UserError` where there are none."""
    return _border(model, lambda name: name.startswith("encoder/"), "the encoder must end in tensors of decoders")


def likelihood_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors that the decoders hand to the score. Raises `UserError` where there are none."""
    return _border(model, lambda name: not name.startswith("score/"), "the decoders must end in tensors of the score")


def _border(model: onnx.ModelProto, inside: Callable[[str], bool], expected: str) -> tuple[str, ...]:
    made = {name for node in model.graph.node if inside(node.name) for name in node.output}
    read = {name for node in model.graph.node if not inside(node.name) for name in node.input}
    if not made & read:
        raise UserError(expected, "none")
    return tuple(sorted(made & read))


def up_to(model: onnx.ModelProto, tensors: tuple[str, ...]) -> onnx.ModelProto:
    """Return the part of a graph from the frames to `tensors`."""
    return onnx.utils.Extractor(model).extract_model([INPUT_NAME], list(tensors))
