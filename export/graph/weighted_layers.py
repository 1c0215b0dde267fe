"""The layers that hold weights, whatever operator they are: convolutions, and the decoders' matrix products."""

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.rewrite import Array, gemm_bias, gemm_weight

WEIGHTED = ("Conv", "Gemm")


def in_encoder(node: gs.Node) -> bool:
    """Say whether a node belongs to the encoder."""
    return bool(node.name.startswith("encoder/"))


def is_product(node: gs.Node) -> bool:
    """Say whether a node is one of the decoders' products; in images they are 1 x 1 convolutions."""
    return node.op in WEIGHTED and not in_encoder(node)


def is_permutation(node: gs.Node) -> bool:
    """Say whether a node is a decoder's product that mixes the state itself, not a subnet's layer."""
    return is_product(node) and "/subnet" not in node.name


def product_weight(node: gs.Node) -> Array | None:
    """Return a plain product's constant weight as (out, in); None if it is anything else."""
    if node.op == "Gemm":
        return gemm_weight(node)
    weight = node.inputs[1] if node.op == "Conv" else None
    if not isinstance(weight, gs.Constant) or weight.values.shape[2:] != (1, 1) or not _is_plain(node):
        return None
    values: Array = weight.values[:, :, 0, 0]
    return values


def _is_plain(conv: gs.Node) -> bool:
    """Say whether a convolution has no groups, strides or padding."""
    attrs = conv.attrs
    return (
        attrs.get("group", 1) == 1
        and not any(attrs.get("pads", ()))
        and attrs.get("auto_pad", "NOTSET") == "NOTSET"
        and set(attrs.get("strides", (1,))) == {1}
    )


def product_bias(node: gs.Node) -> Array | None:
    """Return a plain product's constant bias (out,), zeros where it has none, None where it is not constant."""
    if node.op == "Gemm":
        return gemm_bias(node)
    weight = product_weight(node)
    if weight is None or len(node.inputs) < 3:
        return None if weight is None else np.zeros(len(weight), weight.dtype)
    values: Array | None = node.inputs[2].values if isinstance(node.inputs[2], gs.Constant) else None
    return values
