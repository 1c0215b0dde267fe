"""What a detector of `train.fit --schedule fast` costs as each checkout makes it by default, on random weights.

With a checkout that had one kind of decoder only, that is the paper's.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# encoder, taps, and what is asked for of checkouts that know it: the default, or --decoder slimmest
ROWS = {
    "ResNet-18": ("resnet18", "layer1,layer2,layer3", ""),
    "ResNet-18, slimmest": ("resnet18", "layer1,layer2,layer3", "slimmest"),
    "MobileNetV3, slimmest": ("mobilenet_v3_large", "", "slimmest"),
}
COARSE = ("resnet18", "layer2,layer3,layer4", "slimmest")  # the paper's taps: for the file's size
SIZE = (256, 256)
CALIBRATION = 8  # images


def write_graph(encoder: str, taps: str, decoder: str, folder: Path, layout: str = "convolution") -> Path:
    """Write the fused ONNX of a detector with this checkout's defaults, or of its `decoder`, into `folder`."""
    import torch

    from export import fuse, to_onnx
    from export.model.checkpoint import Checkpoint, save_checkpoint
    from export.model.score import freeze_constants
    from runtime.engines.sidecar import Threshold

    model = _model(encoder, taps, decoder)
    likely = [torch.randn(9, height, width) for _, height, width in model.config.tap_sizes]
    threshold = Threshold(float(len(model.config.taps)), "by hand")  # the scale's end: no picture is beyond it
    constants = freeze_constants(likely, model.config.score)
    checkpoint, unfused, fused = (
        folder / f"{encoder}-{taps}-{decoder}-{layout}{end}" for end in (".pt", ".unfused.onnx", ".onnx")
    )
    save_checkpoint(checkpoint, Checkpoint(model, constants, {"one": threshold}, "one", "random", "0" * 64))
    to_onnx.main([str(checkpoint), "--out", str(unfused)])
    fuse.main([str(unfused), "--out", str(fused), "--layout", layout])
    return fused


def _model(encoder: str, taps: str, decoder: str = "") -> Any:
    from export.model.cflow import CFlow, ModelConfig
    from export.model.encoder import ENCODERS

    try:
        from train.data.dataset import Dataset
        from train.fit_options import add_training_arguments, config_from
    except ImportError:
        return CFlow(
            ModelConfig(encoder, tuple(taps.split(",")) if taps else tuple(ENCODERS[encoder].taps), SIZE)
        ).eval()
    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    known = "factored" in ModelConfig.__dataclass_fields__
    asked = ["--decoder", decoder] if decoder and known else []
    options = parser.parse_args(["--encoder", encoder, "--taps", taps, "--schedule", "fast", *asked])
    return CFlow(config_from(options, Dataset(Path(), (), ()), SIZE)).eval()


def write_int8(fused: Path, pictures: Callable[[int, int, int], np.ndarray]) -> Path:
    """Write the INT8 form of the graph `fused` beside it, with ranges from some `pictures` (height, width, seed)."""
    from export import precision

    good = fused.parent / "calibration"
    good.mkdir(exist_ok=True)
    for number in range(CALIBRATION):
        Image.fromarray(pictures(*SIZE, number)).save(good / f"{number}.png")
    precision.main([str(fused), "--int8", "--calibration-data", str(good)])
    return fused.with_suffix(".int8.onnx")


def write_encoder(encoder: str, taps: str, folder: Path) -> Path:
    """Write what a detector computes before its decoders, from uint8 frames to the taps, as an ONNX of its own."""
    import torch

    model = _model(encoder, taps)
    path = folder / f"{encoder}-encoder.onnx"
    frames = torch.zeros(1, *SIZE, 3, dtype=torch.uint8)

    class Encoder(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
            return list(model.encoder(model.normalise(frames)))

    torch.onnx.export(Encoder().eval(), (frames,), str(path), input_names=["frames"], dynamo=True)
    return path


def openvino_runner(graph: Path) -> Callable[[], object]:
    """Return what runs `graph` once on one thread of OpenVINO, what is not INT8 in FP32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(graph), "CPU", settings).create_infer_request()
    return lambda: request.infer({"frames": _frame()})


def onnxruntime_runner(graph: Path) -> Callable[[], object]:
    """Return what runs `graph` once on one thread of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"frames": _frame()})


def _frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
