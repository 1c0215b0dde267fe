"""`cable.unfused.onnx` to `cable.onnx`: the exact rewrites, counted, and compared with the graph they started from."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from export.graph.onnx_files import (
    ExportInfo,
    check_no_engines,
    check_takes_input_size,
    cpu_session,
    foreign_graph,
    get_info,
    load_model,
    save_model,
    set_info,
)
from export.graph.tiled_frame import put_into_frame, tile_network
from export.images.tile_images import Feed, Place, feed
from export.passes import LAYOUTS, Layout, carry_non_finite, opset17, rewrites, unread_initializers
from export.passes.rewrite import RewriteCount, run
from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.engines.sidecar import sidecar_path

TILES_AT_ONCE_HELP = "tiles that go through a tiled detector's network together (default: 1)"
LAYOUT_HELP = "the decoders' products: 1 x 1 convolutions on images, or matrix products on (positions, channels)"
TOLERANCE = 1e-4  # what float32 rounding leaves, with room for a trained model's less well-conditioned flows


@dataclass(frozen=True)
class Agreement:
    """The differences between two graphs of one model on the same frames.

    On frames unlike anything it was trained on, a flow multiplies rounding without bound at a few positions
    (log-likelihoods of -1e10 in the third digit), where the score is saturated anyway. A wrong rewrite moves
    most positions, so the 90th percentile tells the two apart, and a saturated score does not hide it.
    """

    anomaly_map: float  # largest, absolute, in score units
    image_score: float  # largest, absolute, in score units
    log_likelihood: float  # 90th percentile over positions of |d| / (1 + |logp - m|), the worst tap's

    @property
    def exact(self) -> bool:
        """Whether the differences are float32 rounding."""
        return max(self.anomaly_map, self.image_score, self.log_likelihood) <= TOLERANCE


def fuse(
    model: onnx.ModelProto, info: ExportInfo, layout: Layout = "convolution"
) -> tuple[onnx.ModelProto, list[RewriteCount]]:
    """Apply every rewrite, lower the result to opset 17, and return it with the counts.

    A rewrite that matches another number of times than the model's structure says is a `UserError`: a
    changed exporter must not quietly cost the fusion. On a fused model nothing matches, which is right.
    """
    original, model = model, onnx.ModelProto()
    model.CopyFrom(original)
    counts = [unread_initializers.run(model)]
    graph = gs.import_onnx(model)
    for rewrite in rewrites(layout):
        count = run(graph, rewrite)
        expected = 0 if info.fused else rewrite.expected(info.facts)
        if expected is not None and count.matches != expected:
            why = "; ".join(count.refusals[:3]) or "the pattern does not stand in the graph"
            raise UserError(f"rewrite '{rewrite.name}' must match {expected} times", f"{count.matches} ({why})")
        counts.append(count)
    counts.append(carry_non_finite.run(graph))
    opset17.lower_to_opset17(graph)
    fused = gs.export_onnx(graph)
    fused.ir_version = opset17.IR_VERSION
    fused.graph.doc_string = ""
    del fused.graph.value_info[:]  # shapes of tensors that are gone
    fused = onnx.shape_inference.infer_shapes(fused, strict_mode=True, data_prop=True)
    set_info(fused, replace(info, fused=True))
    return fused, counts


def probe_frames(info: ExportInfo, count: int = 2, seed: int = 0) -> NDArray[np.uint8]:
    """Return seeded frames (count + 1, H, W, 3), or tiles, to compare graphs on: smooth random ones, one flat grey."""
    height, width = info.network_size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, -(-height // 16), -(-width // 16), 3))
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    noise = rng.integers(-8, 9, smooth.shape)
    frames = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return np.concatenate([frames, np.full((1, height, width, 3), 128, np.uint8)])


def probe_places(info: ExportInfo, count: int = 3) -> list[Place]:
    """Return places for as many tiles, of other rows and columns each where there are others; none without tiles."""
    grid = info.sidecar.tiles
    if grid is None:
        return []
    return [(number % len(grid.tops), (number + 1) % len(grid.lefts)) for number in range(count)]


def _with_log_likelihoods(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that also gives logp - m of every tap, which a saturated score would hide."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    makers = {output for node in copy.graph.node for output in node.output}
    limits = (node for node in copy.graph.node if node.op_type == "Min")
    for node in sorted(limits, key=lambda node: node.name):  # the rewrites may change the order of the taps
        tensor = next(name for name in node.input if name in makers)
        copy.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return copy


def _outputs(model: onnx.ModelProto, inputs: Feed) -> list[NDArray[np.float32]]:
    return cpu_session(_with_log_likelihoods(model)).run(None, inputs)  # type: ignore[no-any-return]


def compare(
    reference: onnx.ModelProto, other: onnx.ModelProto, frames: NDArray[np.uint8], places: Sequence[Place] = ()
) -> Agreement:
    """Run both on `frames`, or tiles of some `places`, with ONNX Runtime and return their differences."""
    left, right = (_outputs(model, feed(frames, places)) for model in (reference, other))
    errors = [np.abs(a - b) for a, b in zip(left, right, strict=True)]
    relative = [np.quantile(error / (1 + np.abs(a)), 0.9) for error, a in zip(errors[2:], left[2:], strict=True)]
    return Agreement(float(errors[0].max()), float(errors[1].max()), float(max(relative)))


def fusion_table(counts: Sequence[RewriteCount], agreement: Agreement) -> str:
    """Return the table that a person reads: matches and nodes per rewrite, and the error of it all."""
    width = max(len(count.name) for count in counts)
    lines = [f"{'rewrite':<{width}}  matches  nodes before  after"]
    lines += [f"{c.name:<{width}}  {c.matches:>7}  {c.nodes_before:>12}  {c.nodes_after:>5}" for c in counts]
    lines.append(f"{'all':<{width}}  {'':>7}  {counts[0].nodes_before:>12}  {counts[-1].nodes_after:>5}")
    lines.append(
        f"error against the unfused graph: anomaly map {agreement.anomaly_map:.1e}, "
        f"image score {agreement.image_score:.1e}, "
        f"log-likelihood {agreement.log_likelihood:.1e} (relative, 90 % of positions)"
    )
    return "\n".join(lines)


def fuse_file(unfused: Path, out: Path, layout: Layout = "convolution", tiles_at_once: int = 1) -> str:
    """Fuse the ONNX at `unfused` into `out` and return the fusion table. Raises `UserError` if they disagree.

    Of a tiled detector's frame `tiles_at_once` tiles go through the network together.
    """
    model = tile_network(load_model(unfused))
    info = get_info(model, unfused.name)
    check_takes_input_size(info, unfused.name)
    check_no_engines(out)
    fused, counts = fuse(model, info, layout)
    agreement = compare(model, fused, probe_frames(info), probe_places(info))
    table = fusion_table(counts, agreement)
    if not agreement.exact:
        raise UserError(f"the fused graph must agree with the unfused one within {TOLERANCE}", str(agreement))
    save_model(put_into_frame(fused, tiles_at_once), out)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Fuse an ONNX file from the command line."""
    parser = argparse.ArgumentParser(prog=program_name("python -m export.fuse"), description=__doc__)
    parser.add_argument("onnx", type=Path, help="an ONNX written by export.to_onnx")
    parser.add_argument(
        "--out", type=output_file, help="where the fused ONNX goes (default: cable.unfused.onnx to cable.onnx)"
    )
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help=LAYOUT_HELP)
    options = parser.parse_args(argv)
    out = options.out or sidecar_path(options.onnx).with_suffix(".onnx")
    with foreign_graph(options.onnx):
        print(fuse_file(options.onnx, out, options.layout))
        print(f"wrote {out}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
