"""FP16 in the graph: the encoder as a whole, and in the decoders the products with the subnets' hidden layers.

The coupling (tanh, exp, the transformed half), log-determinants, norms and the map stay FP32. In the decoders a value
is limited before it is rounded to FP16, so far that no product can overflow (`fp16_limits`). The encoder's FP16 has no
such limit: what would overflow there is only seen when the typed graph's answers are measured (`parity`). The state's
passive half is only ever read by products, so it never leaves FP16, and the concatenation in front of a permutation
moves halves.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from export.graph.weighted_layers import in_encoder, is_product
from export.passes.rewrite import producer, tables_behind
from export.precisions.fp16_limits import ProductLimits, product_limits
from runtime.common.errors import UserError

FP16_TOP = np.float16(np.finfo(np.float16).max)


def type_encoder(graph: gs.Graph) -> None:
    """Make every node of the encoder FP16, with one Cast on the way in and one at each tap; nothing is limited."""
    encoder = [node for node in graph.nodes if in_encoder(node)]
    made = {id(output) for node in encoder for output in node.outputs}
    entries: dict[int, gs.Tensor] = {}
    for node in encoder:
        inputs = []
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) or id(tensor) in made or tensor.dtype != np.float32:
                inputs.append(_half(tensor))
                continue
            if id(tensor) not in entries:
                entries[id(tensor)] = _cast(graph, tensor, np.float16, f"encoder/input{len(entries)}/fp16")
            inputs.append(entries[id(tensor)])
        node.inputs = inputs
    for node in encoder:
        for output in node.outputs:
            readers = [reader for reader in output.outputs if not in_encoder(reader)]
            _widen(graph, output, readers, node.name)


def type_layers(graph: gs.Graph, layers: Iterable[gs.Node]) -> None:
    """Make single convolutions of an encoder that stays as it is FP16, each between two Casts; nothing is limited."""
    for node in layers:
        source = _cast(graph, node.inputs[0], np.float16, f"{node.name}/fp16")
        node.inputs = [source, *(_half(tensor) for tensor in node.inputs[1:])]
        _widen(graph, node.outputs[0], list(node.outputs[0].outputs), node.name)


def type_products(graph: gs.Graph, products: Sequence[gs.Node]) -> None:
    """Make the decoders' `products` FP16, in the order of the graph, and limit what they read (`fp16_limits`).

    Raises `UserError` for one whose weights are not constant.
    """
    chosen = {id(node) for node in products}
    limiter = _Limiter(graph, chosen)
    for node in products:
        limits = product_limits(node)
        if limits is None:
            raise UserError(f"{node.name} must be a plain product with constant weights to become FP16", node.op)
        _type_product(graph, node, limits, limiter)


def _half(tensor: gs.Tensor) -> gs.Tensor:
    """Return a floating constant, or what is chosen from one by a place, rounded to FP16; anything else as it is."""
    if tables_behind(tensor) and len(tensor.outputs) == 1:
        for entry in tensor.inputs[0].inputs:
            entry.inputs[0].inputs[0] = _half(entry.inputs[0].inputs[0])
            entry.dtype = np.float16
        tensor.dtype = np.float16
        return tensor
    if isinstance(tensor, gs.Constant) and tensor.values.dtype == np.float32:
        return gs.Constant(f"{tensor.name}/fp16", tensor.values.astype(np.float16))
    return tensor


def _cast(graph: gs.Graph, tensor: gs.Tensor, to: type[np.generic], name: str) -> gs.Tensor:
    output = gs.Variable(f"{name}/out", dtype=to)
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to))
    graph.nodes.append(gs.Node("Cast", name, attrs={"to": code}, inputs=[tensor], outputs=[output]))
    return output


def _widen(graph: gs.Graph, narrow: gs.Tensor, readers: Sequence[gs.Node], name: str) -> None:
    """Mark `narrow` as FP16 and let `readers` see it as FP32."""
    narrow.dtype = np.float16
    if readers:
        _replace(readers, narrow, _cast(graph, narrow, np.float32, f"{name}/fp32"))


def _replace(readers: Iterable[gs.Node], old: gs.Tensor, new: gs.Tensor) -> None:
    for reader in readers:
        reader.inputs = [new if tensor is old else tensor for tensor in reader.inputs]


class _Limiter:
    """Gives products their FP16 inputs: every tensor is limited and rounded once, for the narrowest of its readers."""

    def __init__(self, graph: gs.Graph, products: set[int]) -> None:
        self._graph = graph
        self._products = products
        self._limited: dict[int, tuple[gs.Tensor, gs.Node]] = {}

    def halved(self, tensor: gs.Tensor, limit: float) -> gs.Tensor:
        """Return `tensor` as FP16, within ±limit."""
        narrow = self._narrow(tensor)
        concat = producer(narrow, "Concat")
        if concat is not None and all(id(reader) in self._products for reader in narrow.outputs):
            concat.inputs = [self.halved(part, limit) for part in concat.inputs]
            narrow.dtype = np.float16
            return narrow
        hidden = producer(narrow, "Clip")
        if hidden is not None and narrow.dtype == np.float16:  # limited before: a rectifier, or by another reader
            self._tighten(hidden, limit)
            return narrow
        if id(narrow) not in self._limited:
            self._limited[id(narrow)] = self._limit(narrow, limit)
        limited, clip = self._limited[id(narrow)]
        self._tighten(clip, limit)
        return limited

    def _narrow(self, tensor: gs.Tensor) -> gs.Tensor:
        """Return the FP16 tensor that `tensor` was widened from, or itself."""
        cast = producer(tensor, "Cast")
        return cast.inputs[0] if cast is not None and cast.inputs[0].dtype == np.float16 else tensor

    def _limit(self, tensor: gs.Tensor, limit: float) -> tuple[gs.Tensor, gs.Node]:
        graph, name = self._graph, tensor.name
        kind = np.float16 if tensor.dtype == np.float16 else np.float32
        output = gs.Variable(f"{name}/limited", dtype=kind)
        bounds = [
            gs.Constant(f"{name}/limit/{side}", np.array(v, kind)) for side, v in (("low", -limit), ("high", limit))
        ]
        clip = gs.Node("Clip", f"{name}/limit", inputs=[tensor, *bounds], outputs=[output])
        graph.nodes.append(clip)
        return (output if kind == np.float16 else _cast(graph, output, np.float16, f"{name}/fp16")), clip

    @staticmethod
    def _tighten(clip: gs.Node, limit: float) -> None:
        low, high = (bound.values for bound in clip.inputs[1:3])
        if limit < high:
            clip.inputs[2].values = np.array(limit, high.dtype)
            clip.inputs[1].values = np.array(max(float(low), -limit), low.dtype)


def _type_product(graph: gs.Graph, product: gs.Node, limits: ProductLimits, limiter: _Limiter) -> None:
    """Make one product FP16, and for a subnet's first layer everything up to its rectifier."""
    name = product.name
    source = limiter.halved(product.inputs[0], limits.input_limit)
    product.inputs = [source, *(_half(tensor) for tensor in product.inputs[1:])]
    product.outputs[0].dtype = np.float16
    for node in limits.followers:
        node.inputs = [_half(tensor) for tensor in node.inputs]
        node.outputs[0].dtype = np.float16
    last = limits.followers[-1] if limits.followers else product
    if last.op == "Relu":  # one operation that rectifies and limits; the next products set the limit
        last.op = "Clip"
        bounds = [
            gs.Constant(f"{name}/{side}", np.array(v)) for side, v in (("zero", np.float16(0)), ("top", FP16_TOP))
        ]
        last.inputs = [last.inputs[0], *bounds]
        return
    narrow = last.outputs[0]
    _widen(graph, narrow, list(narrow.outputs), name)


def decoder_products(graph: gs.Graph) -> list[gs.Node]:
    """Return the decoders' products in the order of the graph."""
    return [node for node in graph.nodes if is_product(node)]
