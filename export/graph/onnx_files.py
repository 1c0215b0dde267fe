"""ONNX files that say what they are: written whole, read with a clear refusal, with our facts in their metadata."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.passes.rewrite import ModelFacts
from runtime.common.errors import UserError
from runtime.common.files import sha256_of, whole_file
from runtime.common.machine import available_cores
from runtime.engines.external_data import refuse_external_data
from runtime.engines.fields import items, one_of, record, text, whole, yes_or_no
from runtime.engines.sidecar import Sidecar, read_sidecar, sidecar_path

INFO_KEY = "cflow-edge"
LONGEST_REASON = 300  # characters of a library's error


@dataclass(frozen=True)
class ExportInfo:
    """What an ONNX of ours carries beside its graph, so that it can be built on without its checkpoint.

    `one_grid`: all taps are judged on one grid, so that none of their maps is brought to that of the finest.
    `blocks` are each decoder's; those of which half of the channels are factored out have so many `more_blocks`.
    """

    sidecar: Sidecar
    blocks: int
    conditional: bool
    soft_permutation: bool
    data_origin: str = ""
    fused: bool = False
    precision: str = "fp32"
    one_grid: bool = False
    more_blocks: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write."""
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "sidecar": self.sidecar.to_json()}

    @property
    def network_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what the network sees: a frame, or a tile of it."""
        tiles = self.sidecar.tiles
        return self.sidecar.input_size if tiles is None else tiles.tile

    @property
    def facts(self) -> ModelFacts:
        """What the rewrites should find in the unfused graph."""
        taps = len(self.sidecar.taps)
        on_finest = self.sidecar.score in ("place_deviation", "deviation") and not self.one_grid
        maps = 2 if on_finest and taps > 1 else 1
        blocks, stages = taps * self.blocks + sum(self.more_blocks), taps + len(self.more_blocks)
        return ModelFacts(taps, blocks, stages, self.conditional, self.soft_permutation, maps)


def set_info(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Put `info` into the model's metadata, in place of what was there."""
    kept = {prop.key: prop.value for prop in model.metadata_props if prop.key != INFO_KEY}
    onnx.helper.set_model_props(model, {**kept, INFO_KEY: json.dumps(info.to_json())})


def get_info(model: onnx.ModelProto, origin: str) -> ExportInfo:
    """Return the model's `ExportInfo`. Raises `UserError` if it is not an export of this project."""
    found = next((prop.value for prop in model.metadata_props if prop.key == INFO_KEY), None)
    if found is None:
        raise UserError(f"{origin} must be an ONNX written by export.to_onnx", "one without its facts")
    try:
        stored = json.loads(found)
        if isinstance(stored, dict) and "metadata" in stored:  # as files of 0.1 call it
            stored["sidecar"] = stored.pop("metadata")
        values = _facts(stored)
    except (ValueError, RecursionError) as error:
        cure = "export it again"
        raise UserError(f"{origin} must hold the whole facts of export.to_onnx", f"{error}", cure) from None
    return ExportInfo(**{**values, "sidecar": Sidecar.from_json(values["sidecar"], origin)})


_facts = record(
    {
        "sidecar": lambda value: value,
        "blocks": whole(1, 1024),
        "conditional": yes_or_no,
        "soft_permutation": yes_or_no,
        "data_origin": text,
        "fused": yes_or_no,
        "precision": one_of("fp32", "fp16", "int8"),
        "one_grid": yes_or_no,
        "more_blocks": items(whole(1, 1024), 0, 64),
    },
    {"sidecar", "blocks", "conditional", "soft_permutation"},
)


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
    """Read an ONNX file. Raises `UserError` if it is missing, no ONNX, or keeps weights in other files."""
    if not path.is_file():
        raise UserError(f"an ONNX file must stand at {path}", "no such file")
    refuse_external_data(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} must be an ONNX file", str(error)) from None
    if not model.graph.node:
        raise UserError(f"{path} must be an ONNX file", "a graph without nodes")
    return model


@contextmanager
def foreign_graph(path: Path) -> Iterator[None]:
    """Let what is done with the ONNX at `path` end in one line, whatever it holds.

    A file that says it is ours may hold any graph, and the libraries that read, rewrite and run graphs report what they
    do not like with exceptions of every kind. Of another file than an `.onnx`, a checkpoint say, nothing is caught: an
    error there is a defect of this program.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if path.suffix != ".onnx":
            raise
        found = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
        expected = f"{path.name} must hold a graph as export.to_onnx writes it"
        raise UserError(expected, found, "export it again from its checkpoint") from error


def cpu_session(model: onnx.ModelProto, threads: int | None = None) -> ort.InferenceSession:
    """Open `model` in ONNX Runtime on the CPU, to compare what it computes; only errors are printed.

    `threads` is how many compute one run, None: as many as there are cores. The last bits may depend on it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or available_cores()  # a container's, not the machine's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that waits leaves its core
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_onnx_path(out: Path) -> None:
    """Raise `UserError` unless `out` ends as other commands know an ONNX file."""
    if out.suffix != ".onnx":
        raise UserError("--out must end in .onnx", str(out), "e.g. cable.onnx")


def check_no_engines(out: Path) -> None:
    """Raise `UserError` where `out` may not be written as a file alone: it is an engine's, or of another suffix.

    The sidecar of an engine that stands knows its files by their hashes, so that it would not open again.
    """
    check_onnx_path(out)
    beside = sidecar_path(out)
    if not (out.is_file() and beside.is_file()):
        return
    digest = sha256_of(out)
    if any(artefact.sha256 == digest for artefact in read_sidecar(out).artefacts):
        cure = "write to another name, or let export.build_engine build the engine again"
        raise UserError(f"{out} must not be a file of an engine", f"{beside.name} describes it", cure)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Check `model` and write it whole or not at all."""
    onnx.checker.check_model(model)
    with whole_file(path) as temporary:
        onnx.save(model, str(temporary))
