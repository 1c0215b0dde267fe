"""A decoder's fused graph in other forms than the one that the rewrites give, to be measured against it.

All forms compute the same values from the same seeded weights; what differs is the operators' layout and number.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.model.flow import CLAMP, CONDITION_DIMS

Array = NDArray[np.float32]
Tap = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Form:
    """The choices; the defaults are what `export.fuse` gives.

    `layout`: 1 x 1 convolutions on images, Gemm on (positions, channels), or MatMul on (B, h, w, channels).
    `halves`: of a subnet's result and of the permuted state, made apart or cut out of a whole.
    `state`: the permutation reads both halves concatenated, or has a product for each.
    `position`: the condition's bias as a table of rows and one of columns, or one of all positions.
    `joined`: the permutation and the next subnet's first layer are one product, on more inputs than that needs.
    `log_determinants`: summed over the blocks and reduced once, or reduced block by block.
    """

    layout: Literal["convolution", "gemm", "matmul"] = "convolution"
    halves: Literal["products", "split", "slices"] = "products"
    state: Literal["concatenated", "apart"] = "concatenated"
    position: Literal["two tables", "one table"] = "two tables"
    joined: bool = False
    log_determinants: Literal["once", "each"] = "once"


@dataclass(frozen=True)
class BlockWeights:
    """One coupling block: subnet (2i, D/2) and (D, 2i), position tables (h, 2i) and (w, 2i), permutation (D, D)."""

    first: Array
    row: Array
    col: Array
    last: Array
    last_bias: Array
    permutation: Array
    permutation_bias: Array


def random_blocks(tap: Tap, count: int, seed: int = 0) -> list[BlockWeights]:
    """Draw blocks whose state keeps its size from block to block."""
    channels, height, width = tap
    hidden = 2 * (channels // 2 + CONDITION_DIMS)
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 1.0) -> Array:
        values: Array = (scale * rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        return values

    return [
        BlockWeights(
            first=draw(hidden, channels // 2),
            row=draw(height, hidden),
            col=draw(width, hidden),
            last=draw(channels, hidden, scale=0.2),
            last_bias=draw(1, channels)[0],
            permutation=draw(channels, channels),
            permutation_bias=draw(1, channels)[0],
        )
        for _ in range(count)
    ]


@dataclass
class _Graph:
    form: Form
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        return self.ops(kind, inputs, 1, **attrs)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attrs: Any) -> list[str]:
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{len(self.nodes)}", **attrs))
        return names

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return 3 if self.form.layout == "matmul" else 1

    def product(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """x·weightᵀ + bias in the form's layout; `weight` (out, in)."""
        extra = [] if bias is None else [bias]
        if self.form.layout == "convolution":
            names = [self.constant(value) for value in (weight[:, :, None, None], *extra)]
            return self.op("Conv", x, *names, kernel_shape=[1, 1])
        if self.form.layout == "gemm":
            return self.op("Gemm", x, *(self.constant(value) for value in (weight, *extra)), transB=1)
        y = self.op("MatMul", x, self.constant(weight.T))
        return self.op("Add", y, self.constant(bias)) if bias is not None else y

    def cut(self, x: str, sizes: Sequence[int]) -> list[str]:
        """Cut `x` along the channels."""
        if self.form.halves != "slices":
            return self.ops("Split", [x, self.constant(np.array(sizes))], len(sizes), axis=self.axis)
        ends = np.cumsum([0, *sizes])
        bounds = [[self.constant(np.array([v])) for v in (*pair, self.axis)] for pair in itertools.pairwise(ends)]
        return [self.op("Slice", x, *bound) for bound in bounds]

    def in_halves(self, make: Any, weight: Array, bias: Array) -> list[str]:
        """Return both halves of `make(weight, bias)`, made apart or cut."""
        half = len(weight) // 2
        if self.form.halves == "products":
            return [make(weight[part], bias[part]) for part in (slice(None, half), slice(half, None))]
        return self.cut(make(weight, bias), [half, half])

    def positioned(self, x: str, block: BlockWeights) -> str:
        """Add a block's position tables to the first layer's result."""
        (height, hidden), width = block.row.shape, len(block.col)
        tables = [block.row[:, None], block.col[None]]
        if self.form.position == "one table":
            tables = [tables[0] + tables[1]]
        if self.form.layout == "gemm":
            x = self.op("Reshape", x, self.constant(np.array([-1, height, width, hidden])))
        if self.form.layout == "convolution":
            tables = [np.moveaxis(table, -1, 0) for table in tables]
        x = self.op("Sum", x, *(self.constant(table[None]) for table in tables))
        return self.op("Reshape", x, self.constant(np.array([-1, hidden]))) if self.form.layout == "gemm" else x


def _decoder(graph: _Graph, tap: str, shape: Tap, blocks: Sequence[BlockWeights]) -> str:
    """Add one tap's decoder and return (B, h, w), Σ log-scales - Σ u²."""
    form, (channels, height, width) = graph.form, shape
    if form.layout != "convolution":
        tap = graph.op("Transpose", tap, perm=[0, 2, 3, 1])
    if form.layout == "gemm":
        tap = graph.op("Reshape", tap, graph.constant(np.array([-1, channels])))
    passive, active = graph.cut(tap, [channels // 2] * 2)
    hidden, scales = None, []
    for index, block in enumerate(blocks):
        first = graph.product(passive, block.first) if hidden is None else hidden
        rectified = graph.op("Relu", graph.positioned(first, block))
        scale, shift = graph.in_halves(lambda w, b, x=rectified: graph.product(x, w, b), block.last, block.last_bias)
        scale = graph.op("Mul", graph.op("Tanh", scale), graph.constant(np.float32(CLAMP)))
        scales.append(scale)
        active = graph.op("Add", graph.op("Mul", active, graph.op("Exp", scale)), shift)
        if index + 1 < len(blocks):
            passive, active, hidden = _permuted(graph, passive, active, block, blocks[index + 1])
    return _likelihood(graph, passive, active, scales, (height, width))


def _permuted(
    graph: _Graph, passive: str, active: str, block: BlockWeights, following: BlockWeights
) -> tuple[str, str, str | None]:
    """Return the permuted halves, and with a joined product the next first layer's result."""
    weight, bias = block.permutation, block.permutation_bias
    half = len(weight) // 2
    if graph.form.state == "apart":
        halves = graph.in_halves(
            lambda w, b: graph.op("Add", graph.product(passive, w[:, :half], b), graph.product(active, w[:, half:])),
            weight,
            bias,
        )
        return halves[0], halves[1], None
    state = graph.op("Concat", passive, active, axis=graph.axis)
    if not graph.form.joined:
        halves = graph.in_halves(lambda w, b: graph.product(state, w, b), weight, bias)
        return halves[0], halves[1], None
    first = following.first
    whole = graph.product(
        state, np.concatenate([weight, first @ weight[:half]]), np.concatenate([bias, first @ bias[:half]])
    )
    new_passive, new_active, hidden = graph.cut(whole, [half, half, len(first)])
    return new_passive, new_active, hidden


def _likelihood(graph: _Graph, passive: str, active: str, scales: list[str], size: tuple[int, int]) -> str:
    axis = graph.constant(np.array([graph.axis]))
    if graph.form.log_determinants == "once":
        log_det = graph.op("ReduceSum", graph.op("Sum", *scales), axis, keepdims=0)
    else:
        log_det = graph.op("Sum", *(graph.op("ReduceSum", scale, axis, keepdims=0) for scale in scales))
    state = graph.op("Concat", passive, active, axis=graph.axis)
    result = graph.op("Sub", log_det, graph.op("ReduceSumSquare", state, axes=[graph.axis], keepdims=0))
    if graph.form.layout == "gemm":
        result = graph.op("Reshape", result, graph.constant(np.array([-1, *size])))
    return result


def decoders(form: Form, taps: Sequence[Tap], blocks: int) -> onnx.ModelProto:
    """Return a graph of all decoders: `x` (B, Σ D·h·w), the taps one after another, to one (B, h, w) for each."""
    graph = _Graph(form)
    sizes = [int(np.prod(tap)) for tap in taps]
    parts = graph.ops("Split", ["x", graph.constant(np.array(sizes))], len(taps), axis=1)
    results = []
    for index, (part, tap) in enumerate(zip(parts, taps, strict=True)):
        image = graph.op("Reshape", part, graph.constant(np.array([-1, *tap])))
        results.append(_decoder(graph, image, tap, random_blocks(tap, blocks, seed=index)))
    tensor, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    outputs = [tensor(name, kind, ["B", h, w]) for name, (_, h, w) in zip(results, taps, strict=True)]
    inputs = [tensor("x", kind, ["B", sum(sizes)])]
    made = helper.make_graph(graph.nodes, "decoders", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
