"""How many operations a second this CPU can do: what large matrix products reach in the libraries that are here."""

from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.bench.cpu_engines import Array, Run, measure_in_turn, with_onnxruntime, with_openvino, with_torch

SIDE = 1024  # products of 2 GFLOP whose three matrices (12 MB) fit into a large cache
FLOPS = 2 * SIDE**3
ROUNDS = 30
PRODUCTS = ("float32", "bfloat16", "int8")


def possible_gflops(threads: int, bfloat16: bool) -> dict[str, float]:
    """Return the most GFLOP/s that a SIDE x SIDE product reached, by type of operand; the best of several rounds.

    No one library will do: some do not use all that a CPU has (MKL on one of another make, for example),
    so every type is tried in each library that has it. `bfloat16` says whether OpenVINO lists that type here.
    """
    batch = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
    plain, quantised = product(), product(quantised=True)
    runs: list[tuple[str, Run]] = [
        ("float32", with_onnxruntime(plain, threads)),
        ("float32", with_openvino(plain, threads, "float32", batch.shape)),
        ("float32", with_torch(_Product(torch.float32), threads)),
        ("int8", with_openvino(quantised, threads, "float32", batch.shape)),
    ]
    if bfloat16:
        runs.append(("bfloat16", with_openvino(plain, threads, "bfloat16", batch.shape)))
        runs.append(("bfloat16", with_torch(_Product(torch.bfloat16), threads)))
    best_ms = measure_in_turn([_bind(run, batch) for _, run in runs], ROUNDS).min(axis=0)
    gflops = 1e-6 * FLOPS / best_ms
    return {
        kind: float(max(rate for (other, _), rate in zip(runs, gflops, strict=True) if other == kind))
        for kind in PRODUCTS
        if any(other == kind for other, _ in runs)
    }


def _bind(run: Run, batch: Array) -> Callable[[], list[Array]]:
    return lambda: run(batch)


class _Product(torch.nn.Module):
    """A product whose operands already have their type, so that only the product is timed."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)

    def forward(self, _: torch.Tensor) -> list[torch.Tensor]:
        product = self.weight @ self.weight
        return [product[:1, :1].float()]  # NumPy has no bfloat16; one element is as good as all


def product(quantised: bool = False) -> onnx.ModelProto:
    """Return a graph of one SIDE x SIDE product with a constant weight, its operands INT8 where `quantised`."""
    weight = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "weight")]
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    if quantised:
        constants = [
            numpy_helper.from_array(np.clip(np.rint(25 * weight), -127, 127).astype(np.int8), "narrow"),
            numpy_helper.from_array(np.float32(0.04), "scale"),
            numpy_helper.from_array(np.int8(0), "zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
            helper.make_node("DequantizeLinear", ["narrow", "scale", "zero"], ["weight"]),
            helper.make_node("MatMul", ["dq", "weight"], ["y"]),
        ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "product",
        [tensor("x", TensorProto.FLOAT, [SIDE, SIDE])],
        [tensor("y", TensorProto.FLOAT, [SIDE, SIDE])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
