"""A real engine of the contract that is small enough for every test: brightness is the anomaly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from runtime.common.files import sha256_of
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Artefact, Sidecar, Threshold, write_sidecar

THRESHOLD = 1.0


def tiny_model(size: tuple[int, int], maximum: float) -> onnx.ModelProto:
    """anomaly_map = mean over RGB / 255 * maximum, image_score = its maximum; the batch is symbolic."""
    height, width = size
    float_ = TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["float"], to=float_),
        helper.make_node("ReduceMean", ["float"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Mul", ["grey", "scale"], [MAP_NAME]),
        helper.make_node("ReduceMax", [MAP_NAME], [SCORE_NAME], axes=[1, 2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info(MAP_NAME, float_, ["batch", height, width]),
            helper.make_tensor_value_info(SCORE_NAME, float_, ["batch"]),
        ],
        [helper.make_tensor("scale", float_, [], [maximum / 255])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def tiny_sidecar(onnx_path: Path, size: tuple[int, int], taps: Sequence[str], threshold: float = THRESHOLD) -> Sidecar:
    return Sidecar(
        name=onnx_path.stem,
        input_size=size,
        batch=1,
        encoder="resnet18",
        encoder_weights="seeded",
        taps=tuple(taps),
        clamp="tanh(a)",
        default_threshold="good_quantile",
        thresholds={
            "good_quantile": Threshold(threshold if threshold < len(taps) else len(taps) / 2, "set by hand for tests")
        },
        artefacts=(Artefact("onnx", "fp32", sha256_of(onnx_path)),),
    )


def write_wide_engine(folder: Path, name: str, size: tuple[int, int], factor: int) -> Path:
    """Write an engine with a resize inside: frames are `factor` times its `size`, of which it takes every n-th pixel.

    A frame of grey level v has the map value v / 255 * 3 everywhere.
    """
    path, frame_size = Path(folder) / f"{name}.onnx", (factor * size[0], factor * size[1])
    nodes = [
        helper.make_node("Slice", [INPUT_NAME, "begin", "end", "axes", "steps"], ["small"]),
        helper.make_node("Cast", ["small"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Mul", ["grey", "scale"], [MAP_NAME]),
        helper.make_node("ReduceMax", [MAP_NAME], [SCORE_NAME], axes=[1, 2], keepdims=0),
    ]
    tensor, float_ = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "wide",
        [tensor(INPUT_NAME, TensorProto.UINT8, ["batch", *frame_size, 3])],
        [tensor(MAP_NAME, float_, ["batch", *size]), tensor(SCORE_NAME, float_, ["batch"])],
        [
            helper.make_tensor("scale", float_, [], [3 / 255]),
            *(
                helper.make_tensor(name, TensorProto.INT64, [2], values)
                for name, values in (("begin", (0, 0)), ("end", frame_size), ("axes", (1, 2)), ("steps", [factor] * 2))
            ),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_sidecar(path, replace(tiny_sidecar(path, size, ("layer2", "layer3", "layer4")), frame_size=frame_size))
    return path


def write_tiny_engine(
    folder: Path,
    name: str = "tiny",
    size: tuple[int, int] = (32, 48),
    taps: Sequence[str] = ("layer2", "layer3", "layer4"),
    threshold: float = THRESHOLD,
) -> Path:
    """Write `<name>.onnx` and `<name>.json` into `folder` and return the ONNX file's path.

    A frame of grey level v has the map value v / 255 * len(taps) everywhere.
    """
    path = Path(folder) / f"{name}.onnx"
    onnx.save(tiny_model(size, float(len(taps))), path)
    write_sidecar(path, tiny_sidecar(path, size, taps, threshold))
    return path
