"""How large a product's input may be so that its FP16 result cannot overflow.

    |Σ_i w_ji x_i + b_j|  <=  ‖w_j‖₁ · max|x| + |b_j|  <=  65504     =>     max|x| <= (65504 - |b_j|) / ‖w_j‖₁

Inputs on good images lie within ±10 or so and the limit in the thousands, so it changes nothing but what
would have become infinite: eight blocks of e^1.9 let the state of an anomaly reach 4e6.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from export.passes.graph import gemm_bias, gemm_weight
from runtime.errors import UserError

FP16_MAX = float(np.finfo(np.float16).max)
# Rounding of weights, inputs and partial sums to FP16 can add to a result: half of 2^-10, a few times over.
HEADROOM = 0.98


@dataclass(frozen=True)
class GemmLimits:
    """What an FP16 product may take in, and the nodes behind it that share its type (a subnet's hidden layer)."""

    input_limit: float
    followers: tuple[gs.Node, ...]


def gemm_limits(gemm: gs.Node) -> GemmLimits | None:
    """Return the limits of a plain Gemm, None if its weights are not constant.

    Raises `UserError` if the biases alone leave FP16's range.
    """
    weight, bias = gemm_weight(gemm), gemm_bias(gemm)
    if weight is None or bias is None:
        return None
    followers = _hidden_layer(gemm)
    added = float(np.abs(bias).max(initial=0.0))
    for node in followers:
        if node.op == "Add":
            added += max(float(np.abs(t.values).max()) for t in node.inputs if isinstance(t, gs.Constant))
    largest = float(np.abs(weight.astype(np.float64)).sum(axis=1).max())
    if added >= FP16_MAX:
        raise UserError(
            f"{gemm.name}: biases must be below {FP16_MAX:.0f} for FP16", f"{added:.0f}", "build it as FP32"
        )
    limit = HEADROOM * (FP16_MAX - added) / max(largest, 1e-12)
    return GemmLimits(min(limit, HEADROOM * FP16_MAX), followers)


def _hidden_layer(gemm: gs.Node) -> tuple[gs.Node, ...]:
    """Return the Reshape and Add nodes from `gemm` to a Relu, that included; none if there is no such chain."""
    chain: list[gs.Node] = []
    node = gemm
    while len(node.outputs[0].outputs) == 1:
        node = node.outputs[0].outputs[0]
        constant_add = node.op == "Add" and any(isinstance(tensor, gs.Constant) for tensor in node.inputs)
        if node.op not in ("Reshape", "Relu") and not constant_add:
            return ()
        chain.append(node)
        if node.op == "Relu":
            feeds_one_product = [reader.op for reader in node.outputs[0].outputs] == ["Gemm"]
            return tuple(chain) if feeds_one_product else ()
    return ()
