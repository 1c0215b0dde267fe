"""The training resize in front of a graph: `frames` of the camera's own size become the grey levels that it trained on.

    round(A_height round(A_width x)),    round(v) = floor(v + 1/2)

with the banded matrices of `resize_matrices`, width first and a whole grey level after each pass, as Pillow
does it (Pillow 13 takes the height of some portrait frames first: there 12 % of the values differ by one level). Both
matrices are almost empty (16 of 1920 entries a row for 1080p to 256), so neither pass is a dense product:

- Width: with g = gcd(inputs, outputs) a row's pattern repeats g times, so that one strided convolution over the
  interleaved colours makes `phases` outputs of all three at every step. It reads the frame as it lies in memory and
  writes planes. Beyond the edges it sees zeros; a constant factor for each column makes the weights sum to 1 again.
  Where a row hardly repeats (1366 to 256: twice), it is a product of a band of columns each instead.
- Height: what is left is as narrow as the target, and a product of a band of rows each costs little.

The weights stay FP32 whatever precision the rest has: in FP16 or TF32 a weight's 11 bits move a level by up to 0.12
before it is rounded, which costs the equality that FP32 has nearly everywhere, though not the bound of one level.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from export.passes.resize_matrices import repeated_rows, resize_matrix, split_into_bands
from export.passes.rewrite import has_other_readers

PREFIX = "resize/"  # of the names of all nodes of this pass
PLANAR = [0, 3, 1, 2]
CHANNELS = 3
MIN_CHANNELS = 24  # of the convolution: fewer would leave a matrix unit's tile empty, and cost as much
MAX_PHASES = 64  # more outputs a step, and most of the convolution's weights are zeros
BAND = 32  # rows of the result that one product makes
COLUMN_BAND = 16  # columns: narrower, since each colour's products with the others' values are zeros too

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Front:
    """The start of a graph: what widens `frames` to floats, and what makes planes of them."""

    cast: gs.Node
    transpose: gs.Node


def find_front(graph: gs.Graph) -> Front | str:
    """Return the nodes that this pass replaces, or why it refuses the graph."""
    if len(graph.inputs) != 1 or len(graph.inputs[0].outputs) != 1:
        return f"{len(graph.inputs)} inputs or several readers of the first"
    cast = graph.inputs[0].outputs[0]
    if cast.op != "Cast" or cast.attrs["to"] not in (onnx.TensorProto.FLOAT, np.float32):
        return f"{cast.name} ({cast.op}) is no Cast to FP32"
    if len(cast.outputs[0].outputs) != 1 or any(cast.outputs[0] is output for output in graph.outputs):
        return f"{cast.outputs[0].name} has several readers"
    transpose = cast.outputs[0].outputs[0]
    if transpose.op != "Transpose" or transpose.attrs["perm"] != PLANAR:
        return f"{transpose.name} ({transpose.op}) does not make planes [B, 3, H, W]"
    if has_other_readers(graph, cast.outputs[0], transpose):
        return f"{cast.outputs[0].name} has several readers"
    return Front(cast, transpose)


def put_in_front(graph: gs.Graph, front: Front, frame_size: Size, input_size: Size) -> None:
    """Let `graph`, whose frames were of `input_size`, take them of `frame_size`; the batch stays as it is."""
    frames, planes = graph.inputs[0], front.transpose.outputs[0]
    frames.shape = [frames.shape[0], *frame_size, CHANNELS]
    front.cast.outputs.clear()
    front.cast.inputs.clear()
    front.transpose.outputs.clear()
    build = _Builder(graph)
    x = build("Cast", frames, to=onnx.TensorProto.FLOAT)
    x = build("Reshape", x, build.shape(0, 1, frame_size[0], frame_size[1] * CHANNELS))
    phases = phases_of(frame_size[1], input_size[1])
    if phases <= MAX_PHASES:
        x = _width_by_convolution(build, x, frame_size[1], input_size[1], phases)
    else:
        phases = 1
        x = _width_by_bands(build, x, frame_size, input_size[1])
    x = _rounded(build, x)
    x = _resize_height(build, x, frame_size[0], input_size[0])
    # [B, 3 phases, H, steps] to [B, 3, H, steps phases]
    height, width = input_size
    x = build("Reshape", x, build.shape(0, CHANNELS, phases, height, width // phases))
    x = build("Transpose", x, perm=[0, 1, 3, 4, 2])
    build("Reshape", x, build.shape(0, CHANNELS, height, width), output=planes)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


class _Builder:
    """Appends nodes to a graph, named after their operator and number."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._made = 0

    def __call__(self, op: str, *inputs: gs.Tensor, output: gs.Tensor | None = None, **attrs: object) -> gs.Tensor:
        self._made += 1
        name = f"{PREFIX}{op}_{self._made}"
        output = gs.Variable(f"{name}/out", dtype=np.float32) if output is None else output
        self._graph.nodes.append(gs.Node(op, name, attrs=attrs, inputs=list(inputs), outputs=[output]))
        return output

    def constant(self, values: NDArray[np.float64]) -> gs.Constant:
        self._made += 1
        return gs.Constant(f"{PREFIX}constant_{self._made}", np.ascontiguousarray(values, np.float32))

    def shape(self, *values: int) -> gs.Constant:
        self._made += 1
        return gs.Constant(f"{PREFIX}integers_{self._made}", np.array(values, np.int64))


def _rounded(build: _Builder, x: gs.Tensor) -> gs.Tensor:
    """Round half up; no clip, since weights that sum to 1 leave nothing outside 0..255."""
    return build("Floor", build("Add", x, build.constant(np.array(0.5))))


def phases_of(inputs: int, outputs: int) -> int:
    """Return how many neighbouring outputs one step of the convolution makes; it divides `outputs`."""
    repeats = math.gcd(inputs, outputs)
    phases = outputs // repeats
    wanted = (k for k in range(1, repeats + 1) if repeats % k == 0 and CHANNELS * phases * k >= MIN_CHANNELS)
    return phases * next(wanted, repeats)


def _width_by_convolution(build: _Builder, x: gs.Tensor, columns: int, width: int, phases: int) -> gs.Tensor:
    """[B, 1, H, 3 W] to [B, 3 phases, H, steps], channel c * phases + p being output step * phases + p."""
    steps = width // phases
    stride = columns // steps
    kernel = repeated_rows(columns, width, phases)
    taps = kernel.weights.shape[1]
    weights = np.zeros((CHANNELS, phases, taps, CHANNELS))
    for channel in range(CHANNELS):
        weights[channel, :, :, channel] = kernel.weights
    x = build(
        "Conv",
        x,
        build.constant(weights.reshape(CHANNELS * phases, 1, 1, taps * CHANNELS)),
        kernel_shape=[1, taps * CHANNELS],
        strides=[1, stride * CHANNELS],
        pads=[0, CHANNELS * kernel.before, 0, CHANNELS * kernel.after],
    )
    inside = kernel.shares_inside.reshape(steps, phases).T  # (phases, steps)
    if (inside != 1).any():
        x = build("Mul", x, build.constant(np.tile(1 / inside, (CHANNELS, 1))[None, :, None, :]))
    return x


def _width_by_bands(build: _Builder, x: gs.Tensor, frame_size: Size, width: int) -> gs.Tensor:
    """[B, 1, H, 3 W] to [B, 3, H, width]."""
    parts = []
    for band in split_into_bands(resize_matrix(frame_size[1], width), math.ceil(width / COLUMN_BAND)):
        ends = (build.shape(CHANNELS * band.inputs.start), build.shape(CHANNELS * band.inputs.stop), build.shape(3))
        weights = np.kron(band.weights.T, np.eye(CHANNELS))
        parts.append(build("MatMul", build("Slice", x, *ends), build.constant(weights)))
    x = build("Concat", *parts, axis=3) if len(parts) > 1 else parts[0]
    x = build("Reshape", x, build.shape(0, frame_size[0], width, CHANNELS))
    return build("Transpose", x, perm=PLANAR)


def _resize_height(build: _Builder, x: gs.Tensor, rows: int, height: int) -> gs.Tensor:
    """[B, C, rows, N] to levels [B, C, height, N]."""
    if rows == height:
        return x
    parts = []
    for band in split_into_bands(resize_matrix(rows, height), math.ceil(height / BAND)):
        read = band.inputs
        ends = (build.shape(read.start), build.shape(read.stop), build.shape(2))
        parts.append(build("MatMul", build.constant(band.weights), build("Slice", x, *ends)))
    return _rounded(build, build("Concat", *parts, axis=2) if len(parts) > 1 else parts[0])
