"""Rewrite 6: weights that nothing reads are not shipped.

FrEIA keeps Wp⁻¹ = Wpᵀ beside every Wp for sampling, which a detector never does: 176 of WideResNet-50's 947 MB.
Our model does not keep it and the exporter writes what is read, so a count of 0 is the usual, good one.
"""

import onnx

from export.passes.rewrite import RewriteCount

NAME = "unread initializers (inverse permutations)"


def run(model: onnx.ModelProto) -> RewriteCount:
    """Remove every initializer of `model` that neither a node nor an output reads."""
    nodes = len(model.graph.node)
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    count = RewriteCount(NAME, len(model.graph.initializer) - len(kept), nodes_before=nodes, nodes_after=nodes)
    if count.matches:
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return count
