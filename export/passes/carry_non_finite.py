"""What is not finite in front of the score reaches the score, in every engine.

    S = Σ_k (1 - up_k(exp(min(x_k, 0))))   ->   S + e,      e = |q²| - q²,   q = Σ_k Σ_positions x_k

min and exp are where an engine may lose a NaN: OpenVINO's min(NaN, 0) is 0, and the worst frame of all would score as
the best. A sum and a product carry it in every engine, and so they do an infinity: e is exactly 0 where q is finite,
and NaN where it is not. It is added to the map and to the image score. (q² stays finite for sums up to 1.8e19; log-
likelihoods of frames unlike anything trained on have been seen to reach -1e10 at single positions.)
"""

import onnx_graphsurgeon as gs

from export.passes.rewrite import RewriteCount, constant, constant_and_other, insert, producer

NAME = "what is not finite carried to the score"
PREFIX = "score/finite"


def run(graph: gs.Graph) -> RewriteCount:
    """Add the term to both outputs, (B, H, W) and (B,); once, and to a graph without the pattern never."""
    count = RewriteCount(NAME, nodes_before=len(graph.nodes))
    excesses = _excesses(graph)
    if excesses and not any(node.name.startswith(PREFIX) for node in graph.nodes):
        fault = _fault(graph, excesses)
        anomaly_map, image_score = graph.outputs
        _add(graph, anomaly_map, fault)
        axes = constant(f"{PREFIX}/axes_of_one", [1, 2])
        _add(graph, image_score, insert(graph, "Squeeze", f"{PREFIX}/of_frame", [fault, axes]))
        graph.toposort()
        count.matches = len(excesses)
    count.nodes_after = len(graph.nodes)
    return count


def _excesses(graph: gs.Graph) -> list[gs.Tensor]:
    """Return every x (B, h, w) of an exp(min(x, 0)), or exp(min(x, q) - q) with the q <= 0 of places."""
    found = []
    for node in graph.nodes:
        limited = producer(node.inputs[0], "Min", "Sub") if node.op == "Exp" else None
        if limited is not None and limited.op == "Sub":
            limited = producer(limited.inputs[0], "Min")
        split = constant_and_other(limited) if limited is not None else None
        if split is not None and not (split[0] > 0).any():
            found.append(split[1])
    return found


def _fault(graph: gs.Graph, excesses: list[gs.Tensor]) -> gs.Tensor:
    """Return e (B, 1, 1)."""
    axes = constant(f"{PREFIX}/axes", [1, 2])
    sums = [
        insert(graph, "ReduceSum", f"{PREFIX}/sum{index}", [excess, axes], {"keepdims": 1})
        for index, excess in enumerate(excesses)
    ]
    total = insert(graph, "Sum", f"{PREFIX}/total", sums) if len(sums) > 1 else sums[0]
    square = insert(graph, "Mul", f"{PREFIX}/square", [total, total])
    magnitude = insert(graph, "Abs", f"{PREFIX}/magnitude", [square])
    return insert(graph, "Sub", f"{PREFIX}/fault", [magnitude, square])


def _add(graph: gs.Graph, output: gs.Tensor, fault: gs.Tensor) -> None:
    """Put an addition of `fault` in front of a graph's output; other readers of it stay with what they read."""
    node = output.inputs[0]
    plain = gs.Variable(f"{PREFIX}/{output.name}", dtype=output.dtype, shape=output.shape)
    node.outputs[[tensor is output for tensor in node.outputs].index(True)] = plain
    for reader in list(output.outputs):
        reader.inputs = [plain if tensor is output else tensor for tensor in reader.inputs]
    graph.nodes.append(gs.Node("Add", f"{PREFIX}/to_{output.name}", inputs=[plain, fault], outputs=[output]))
