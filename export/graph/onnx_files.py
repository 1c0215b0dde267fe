"""ONNX files that say what they are: written whole, read with a clear refusal, with our facts in their metadata."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.passes.rewrite import ModelFacts
from runtime.common.errors import UserError
from runtime.common.files import whole_file
from runtime.engines.sidecar import Sidecar

INFO_KEY = "cflow-edge"


@dataclass(frozen=True)
class ExportInfo:
    """What an ONNX of ours carries beside its graph, so that it can be built on without its checkpoint."""

    sidecar: Sidecar
    blocks: int
    conditional: bool
    soft_permutation: bool
    data_origin: str = ""
    fused: bool = False
    precision: str = "fp32"

    @property
    def facts(self) -> ModelFacts:
        """What the rewrites should find in the unfused graph."""
        taps = len(self.sidecar.taps)
        maps = 2 if self.sidecar.score == "deviation" and taps > 1 else 1
        return ModelFacts(taps, self.blocks, self.conditional, self.soft_permutation, maps)


def set_info(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Put `info` into the model's metadata, in place of what was there."""
    kept = {prop.key: prop.value for prop in model.metadata_props if prop.key != INFO_KEY}
    onnx.helper.set_model_props(model, {**kept, INFO_KEY: json.dumps(asdict(info))})


def get_info(model: onnx.ModelProto, origin: str) -> ExportInfo:
    """Return the model's `ExportInfo`. Raises `UserError` if it is not an export of this project."""
    text = next((prop.value for prop in model.metadata_props if prop.key == INFO_KEY), None)
    if text is None:
        raise UserError(f"{origin} must be an ONNX written by export.to_onnx", "one without its facts")
    known = {field.name for field in fields(ExportInfo)}
    try:
        stored = json.loads(text)
        if "metadata" in stored:  # as files of 0.1 call it
            stored["sidecar"] = stored.pop("metadata")
        values: dict[str, Any] = {key: value for key, value in stored.items() if key in known}
        return ExportInfo(**{**values, "sidecar": Sidecar.from_json(values["sidecar"], origin)})
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{origin} must hold the whole facts of export.to_onnx", repr(error), "export it again"
        ) from None


def check_takes_input_size(info: ExportInfo, origin: str) -> None:
    """Raise `UserError` if the resize is inside already: fusing and typing come before it."""
    (height, width), frame_size = info.sidecar.input_size, info.sidecar.frame_size
    if frame_size is not None:
        raise UserError(
            f"{origin} must take frames of its input size {height}x{width}",
            f"the resize from {frame_size[0]}x{frame_size[1]} inside",
            "start from the .pt or .unfused.onnx",
        )


def load_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file. Raises `UserError` if it is missing or no ONNX."""
    try:
        model = onnx.load(str(path))
    except FileNotFoundError:
        raise UserError(f"an ONNX file must stand at {path}", "no such file") from None
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} must be an ONNX file", str(error)) from None
    if not model.graph.node:
        raise UserError(f"{path} must be an ONNX file", "a graph without nodes")
    return model


def cpu_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open `model` in ONNX Runtime on the CPU, to compare what it computes; only errors are printed."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_onnx_path(out: Path) -> None:
    """Raise `UserError` unless `out` ends as other commands know an ONNX file."""
    if out.suffix != ".onnx":
        raise UserError("--out must end in .onnx", str(out), "e.g. cable.onnx")


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Check `model` and write it whole or not at all."""
    onnx.checker.check_model(model)
    with whole_file(path) as temporary:
        onnx.save(model, str(temporary))
