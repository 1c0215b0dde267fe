"""How large the input of a decoder's product may be so that its FP16 result cannot overflow.

    |Σ_i w_ji x_i + b_j|  <=  ‖w_j‖₁ · max|x| + |b_j|  <=  65504     =>     max|x| <= (65504 - |b_j|) / ‖w_j‖₁

Inputs on good images lie within ±10 or so and the limit in the thousands, so it changes nothing but what
would have become infinite: eight blocks of e^1.9 let the state of an anomaly reach 4e6. This is proven of the decoders
only: the encoder's convolutions are not limited.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from export.graph.weighted_layers import is_product, product_bias, product_weight
from export.passes.rewrite import tables_behind
from runtime.common.errors import UserError

FP16_MAX = float(np.finfo(np.float16).max)
# Rounding of weights, inputs and partial sums to FP16 can add to a result: half of 2^-10, a few times over.
HEADROOM = 0.98


_ADDITIONS = ("Add", "Sum")


@dataclass(frozen=True)
class ProductLimits:
    """What an FP16 product may take in, and the nodes behind it that share its type (a subnet's hidden layer)."""

    input_limit: float
    followers: tuple[gs.Node, ...]


def product_limits(product: gs.Node) -> ProductLimits | None:
    """Return the limits of a plain product, None if its weights are not constant.

    Raises `UserError` if the biases alone leave FP16's range.
    """
    weight, bias = product_weight(product), product_bias(product)
    if weight is None or bias is None:
        return None
    followers = _hidden_layer(product)
    added = float(np.abs(bias).max(initial=0.0))
    for node in followers:
        if node.op in _ADDITIONS:
            added += sum(_added(tensor) or 0 for tensor in node.inputs)
    largest = float(np.abs(weight.astype(np.float64)).sum(axis=1).max())
    if added >= FP16_MAX:
        raise UserError(
            f"{product.name}: biases must be below {FP16_MAX:.0f} for FP16", f"{added:.0f}", "build it as FP32"
        )
    limit = HEADROOM * (FP16_MAX - added) / max(largest, 1e-12)
    return ProductLimits(min(limit, HEADROOM * FP16_MAX), followers)


def _added(tensor: gs.Tensor) -> float | None:
    """Return the most that an input adds, a constant or what a place chooses from tables; None for anything else."""
    tables = [tensor] if isinstance(tensor, gs.Constant) else tables_behind(tensor)
    return sum(float(np.abs(table.values).max()) for table in tables) if tables else None


def _hidden_layer(product: gs.Node) -> tuple[gs.Node, ...]:
    """Return the nodes from `product` to a Relu that products alone read, that included; none if there are none."""
    chain: list[gs.Node] = []
    node = product
    while len(node.outputs[0].outputs) == 1:
        node = node.outputs[0].outputs[0]
        constant_add = node.op in _ADDITIONS and any(_added(tensor) is not None for tensor in node.inputs)
        if node.op not in ("Reshape", "Relu") and not constant_add:
            return ()
        chain.append(node)
        if node.op == "Relu":
            return tuple(chain) if all(is_product(reader) for reader in node.outputs[0].outputs) else ()
    return ()
