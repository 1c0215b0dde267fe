"""`cable.pt` to `cable.unfused.onnx`: the FrEIA model as torch exports it, under the engine's contract."""

import argparse
import ast
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from export.graph.onnx_files import ExportInfo, check_no_engines, save_model, set_info
from export.graph.tiled_frame import put_into_frame
from export.images.tile_images import PLACE_NAMES
from export.model.cflow import DetectorModule, ModelConfig
from export.model.checkpoint import Checkpoint, installed_versions, load_checkpoint, network_sha256
from export.model.flow import FACTORED_AFTER
from export.model.tiled import TileNetwork
from runtime.common.argument_types import output_file
from runtime.common.errors import run_command
from runtime.common.files import printable, sha256_of
from runtime.common.program import program_name
from runtime.engines.golden import Golden
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar

OPSET = 18
_PACKAGES = ("torch", "torchvision", "FrEIA", "onnx", "onnxscript", "onnx-graphsurgeon", "onnxruntime")


def export_detector(detector: DetectorModule) -> onnx.ModelProto:
    """Trace a detector to ONNX: `frames` uint8 [batch, H, W, 3] to `anomaly_map`, `image_score`; batch is symbolic.

    Of a tiled detector that is what a tile goes through, with its place as further inputs (`TileNetwork`).
    """
    config = detector.model.config
    example = torch.zeros(2, *config.input_size, 3, dtype=torch.uint8)  # a batch of 1 would be taken for a constant
    places = [torch.zeros(2, dtype=torch.int64) for _ in PLACE_NAMES]  # one tensor for both would be one input
    # Channels-last images, faster in training, would make every pooled mean a gather by computed indices.
    contiguous = detector.model.encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    outputs = [MAP_NAME, SCORE_NAME]
    with contiguous:
        if config.tiles is None:
            model = trace(detector, [example], [INPUT_NAME], outputs)
        else:
            model = trace(TileNetwork(detector), [example, *places], [INPUT_NAME, *PLACE_NAMES], outputs)
    name_nodes(model, config.taps)
    return model


def trace(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Trace a module to ONNX at opset `OPSET`, the first axis of the `examples` (their batch, 2 or more) open.

    An input that the module does not read stays one.
    """
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            tuple(examples),
            dynamo=True,
            verbose=False,
            optimize=True,  # folds constants and batch norms
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in examples),
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def name_nodes(model: onnx.ModelProto, taps: Sequence[str]) -> None:
    """Name every node after the module it comes from, `layer2/block3/subnet0`, so that a profile can be read."""
    used: Counter[str] = Counter()
    for node, module in zip(model.graph.node, _modules(model.graph), strict=True):
        name = f"{_readable(module, taps)}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        del node.metadata_props[:]
        node.ClearField("doc_string")


def _modules(graph: onnx.GraphProto) -> list[str]:
    """Return every node's module. One outside all modules belongs to what reads it first, or to the score."""
    found: list[str] = []
    readers: dict[str, str] = {}  # tensor: the first module that reads it
    for node in reversed(graph.node):
        reader = next((readers[output] for output in node.output if output in readers), "score")
        scopes = _scopes(node)
        if scopes is None:  # made by the exporter's optimiser
            module = reader
        elif not scopes:
            module = "normalise" if reader.startswith("model.encoder") else reader
        else:
            module = scopes[-1]
        readers |= dict.fromkeys(node.input, module)
        found.append(module)
    return found[::-1]


def _scopes(node: onnx.NodeProto) -> list[str] | None:
    """Return the modules around a node, the outermost first; None where the exporter does not say."""
    text = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), None)
    scopes = ast.literal_eval(text)[:-1] if text is not None else ["_"]
    return None if scopes and scopes[0].startswith("_") else [scope for scope in scopes if scope]


def _readable(module: str, taps: Sequence[str]) -> str:
    parts = module.removeprefix("model.").split(".")
    if parts[0] != "decoders":
        return "/".join(parts)
    parts = [taps[int(parts[1])], *parts[2:]]
    return "/".join(parts).replace("blocks/", "block").replace("subnet/", "subnet")


def golden_of(checkpoint: Checkpoint) -> Golden | None:
    """Return the golden frames of a checkpoint's image, without scores yet; of a tiled detector that is a tile."""
    if checkpoint.golden is None:
        return None
    return Golden.of(checkpoint.golden.numpy(), mirrored=checkpoint.model.config.tiles is not None)


def sidecar_of(checkpoint: Checkpoint, path: Path) -> Sidecar:
    """Return what a sidecar says of the checkpoint at `path`, before any engine is built from it."""
    config = checkpoint.model.config
    return Sidecar(
        name=printable(path.stem),
        input_size=config.judged_size,
        batch=1,
        encoder=config.encoder,
        encoder_weights=checkpoint.encoder_weights,
        taps=config.taps,
        clamp=config.clamp,
        default_threshold=checkpoint.default_threshold,
        thresholds=checkpoint.thresholds,
        score=config.score,
        white=config.white,
        training_data_sha256=checkpoint.data_sha256,
        checkpoint_sha256=sha256_of(path),
        image_facts=checkpoint.image_facts,
        population=checkpoint.population,
        golden=golden_of(checkpoint),
        network_sha256=network_sha256(checkpoint),
        tiles=config.tiles,
        versions={**checkpoint.versions, **installed_versions(*_PACKAGES)},
    )


def info_of(checkpoint: Checkpoint, path: Path) -> ExportInfo:
    """Return what the ONNX files of a checkpoint carry: the sidecar's content and what the rewrites should find."""
    config: ModelConfig = checkpoint.model.config
    return ExportInfo(
        sidecar=sidecar_of(checkpoint, path),
        blocks=config.coupling_blocks,
        conditional=config.conditional,
        soft_permutation=config.soft_permutation,
        data_origin=checkpoint.data_origin,
        one_grid=config.one_grid,
        more_blocks=(FACTORED_AFTER,) * len(config.factored),
    )


def export_checkpoint(checkpoint_path: Path, out: Path, name: str | None = None) -> Path:
    """Export `checkpoint_path` to the unfused ONNX at `out` and return it; `name` is the stem by default."""
    checkpoint = load_checkpoint(checkpoint_path)
    info = info_of(checkpoint, checkpoint_path)
    model = export_detector(DetectorModule(checkpoint.model, checkpoint.constants))
    set_info(model, replace(info, sidecar=replace(info.sidecar, name=name or info.sidecar.name)))
    save_model(put_into_frame(model), out)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Export a checkpoint from the command line."""
    parser = argparse.ArgumentParser(prog=program_name("python -m export.to_onnx"), description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint written by train.fit")
    parser.add_argument("--out", type=output_file, help="where the ONNX goes (default: CHECKPOINT with .unfused.onnx)")
    options = parser.parse_args(argv)
    out = options.out or options.checkpoint.with_suffix(".unfused.onnx")
    check_no_engines(out)
    export_checkpoint(options.checkpoint, out)
    print(f"wrote {out}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
