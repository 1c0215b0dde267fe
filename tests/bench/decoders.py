"""What a detector of `train.fit --schedule fast` costs as each checkout makes it by default, on random weights."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROWS = {"ResNet-18": ["resnet18", "layer1,layer2,layer3"], "EfficientNet-Lite0": ["efficientnet_lite0", ""]}
SIZE = (256, 256)


def write_graph(encoder: str, taps: str, folder: Path) -> Path:
    """Write the fused ONNX of a detector with this checkout's defaults into `folder`."""
    import torch

    from export import fuse, to_onnx
    from export.model.cflow import CFlow
    from export.model.checkpoint import Checkpoint, save_checkpoint
    from export.model.score import constant_rows
    from runtime.engines.sidecar import Threshold
    from train.data.dataset import Dataset
    from train.fit_options import add_training_arguments, config_from

    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    options = parser.parse_args(["--encoder", encoder, "--taps", taps, "--schedule", "fast"])
    config = config_from(options, Dataset(folder, (), ()), SIZE)
    constants = torch.ones(constant_rows(config.score), len(config.taps))
    threshold = Threshold(1.0, "by hand")
    checkpoint = Checkpoint(CFlow(config).eval(), constants, {"one": threshold}, "one", "random", "0" * 64)
    save_checkpoint(folder / f"{encoder}.pt", checkpoint)
    unfused, fused = (folder / f"{encoder}{ending}" for ending in (".unfused.onnx", ".onnx"))
    to_onnx.main([str(folder / f"{encoder}.pt"), "--out", str(unfused)])
    fuse.main([str(unfused), "--out", str(fused)])
    return fused


def runner(graph: Path) -> Callable[[], object]:
    """Return what runs `graph` once on one thread of OpenVINO, in FP32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(graph), "CPU", settings).create_infer_request()
    frame = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    return lambda: request.infer({"frames": frame})
