"""What a report measures: files, what each is and how it is run; a folder of them has a list, `models.json`.

`export.bench.models` writes such folders. Files that a user names are entries of their own.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from runtime.common.errors import UserError
from runtime.common.files import sha256_of, write_json
from runtime.engines.sidecar import Artefact, Sidecar, read_sidecar
from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Work, parse

SCHEMA = "cflow-edge/report-models/1"
LIST_NAME = "models.json"
PLANS_FOLDER = "plans"  # within a folder of models: what export.bench.plans made of them
OPERANDS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}  # of most products, by a file's precision
SUFFIXES = (".onnx", ".plan")
BASELINE_KINDS = ("padim", "spade")
FORM_KINDS = ("gemm", "camera", "one-stream", "launches")  # CFLOW-AD otherwise than the kit builds or runs it
ROLES = ("network", "verdict", "swept")
# "engine": an engine with its sidecar; "graph": any ONNX of one input, or a plan of such a part of an engine;
# "torch": a module of the package `export`
Runner = Literal["engine", "graph", "torch"]
LABELS = {  # of a row, by its kind
    "encoder": "{} encoder only",
    "cflow": "CFLOW-AD-{}",
    "unfused": "CFLOW-AD-{}, unfused",
    "eager": "CFLOW-AD-{}, eager PyTorch",
    "gemm": "CFLOW-AD-{}, matrix products",  # in place of 1 x 1 convolutions
    "camera": "CFLOW-AD-{}, camera frames",  # resized in the engine
    "one-stream": "CFLOW-AD-{}, one stream",
    "launches": "CFLOW-AD-{}, no CUDA graph",
    "padim": "PaDiM-{}",
    "spade": "SPADE-{}",
    "anomalib-cflow": "anomalib Cflow-{}",
    "anomalib-efficientad": "anomalib EfficientAD",  # with an encoder of its own
}


@dataclass(frozen=True)
class ModelFile:
    """A file and what runs it; `what` tells a torch module which one it is, `features` its encoder's ONNX.

    `input_shape` is that of a graph which takes images as float32, None where it takes frames. With `cuda_graph`
    False a plan's kernels are launched one by one.
    """

    runner: Runner
    path: Path
    what: str = ""
    features: Path | None = None
    input_shape: tuple[int, ...] | None = None
    cuda_graph: bool = True


@dataclass(frozen=True)
class ModelEntry:
    """One model: `network` is encoder and decoders alone, `verdict` the whole way; either may be missing.

    `swept` is the whole way for other batches, where that is a file of its own. The whole way of an encoder alone,
    where it has one, ends with the taps on the device.
    """

    kind: str
    encoder: str
    input_size: tuple[int, int]
    precision: str  # of the file: "fp32", "fp16", "int8"
    size_bytes: int
    network: ModelFile | None = None
    verdict: ModelFile | None = None
    work: Work | None = None
    name: str = ""
    model_sha256: str = ""
    swept: ModelFile | None = None

    @property
    def label(self) -> str:
        """The row's name: the paper's where its table has one."""
        return self.name or LABELS[self.kind].format(PAPER_NAMES.get(self.encoder, self.encoder))

    @property
    def compiled(self) -> bool:
        """Whether it is a plan, which has a library of its own, on a GPU."""
        return any(file.path.suffix == ".plan" for file in self.files)

    @property
    def files(self) -> list[ModelFile]:
        """All of them that there are."""
        return [file for file in (self.network, self.verdict, self.swept) if file is not None]


@dataclass(frozen=True)
class ModelList:
    """A folder's models and what their weights are.

    `limits` are products to measure the machine with; `left_out` says what could not be made, each with its reason.
    """

    weights: str
    entries: tuple[ModelEntry, ...] = ()
    limits: tuple[ModelEntry, ...] = ()
    left_out: tuple[str, ...] = ()


def detector_stem(encoder: str, size: tuple[int, int]) -> str:
    """Return what the names of a detector's files begin with."""
    return f"{encoder}-{size[0]}"


def write_list(folder: Path, models: ModelList) -> None:
    """Write `models.json` into `folder`; paths in it are relative to that."""

    def plain(entry: ModelEntry) -> dict[str, Any]:
        value = asdict(entry)
        for file in (value[role] for role in ROLES):
            if file is not None:
                file["path"] = _relative(file["path"], folder)
                file["features"] = None if file["features"] is None else _relative(file["features"], folder)
        return value

    entries, limits = ([plain(entry) for entry in part] for part in (models.entries, models.limits))
    write_json(
        folder / LIST_NAME,
        {
            "schema": SCHEMA,
            "weights": models.weights,
            "entries": entries,
            "limits": limits,
            "left_out": list(models.left_out),
        },
    )


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder)


def read_list(folder: Path) -> ModelList:
    """Read the list of `folder`. Raises `UserError` where there is none, or one of another schema."""
    path = folder / LIST_NAME
    cure = f"prepare them: python -m export.bench.models --out {folder}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} must hold models to measure ({LIST_NAME})", str(error), cure) from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{path} must have schema {SCHEMA}", "another", cure)
    try:
        entries, limits = (tuple(_entry(item, folder) for item in value[part]) for part in ("entries", "limits"))
        return ModelList(str(value["weights"]), entries, limits, tuple(map(str, value.get("left_out", ()))))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} must hold every field of {SCHEMA}", repr(error), cure) from None


def _entry(item: dict[str, Any], folder: Path) -> ModelEntry:
    known = {f.name for f in fields(ModelEntry)}
    values = {key: part for key, part in item.items() if key in known}
    values["input_size"] = tuple(int(side) for side in values["input_size"])
    values["work"] = None if values["work"] is None else parse(Work, values["work"])
    for role in ROLES:
        values[role] = None if values.get(role) is None else _file(values[role], folder)
    return ModelEntry(**values)


def _file(item: dict[str, Any], folder: Path) -> ModelFile:
    features = None if item["features"] is None else folder / item["features"]
    shape = None if item["input_shape"] is None else tuple(int(side) for side in item["input_shape"])
    return ModelFile(item["runner"], folder / item["path"], item["what"], features, shape, item.get("cuda_graph", True))


def entry_of(path: Path) -> ModelEntry:
    """Return the entry of an engine that a user names. Raises `UserError` as `runtime.load` does for its file."""
    if path.suffix not in SUFFIXES:
        raise UserError("an engine is a .plan or .onnx file", str(path), "build one with export.build_engine")
    if not path.is_file():
        raise UserError(f"{path} must exist", "no such file", "build it with export.build_engine")
    sidecar: Sidecar = read_sidecar(path)
    artefact: Artefact = sidecar.artefact_of(path)
    return ModelEntry(
        "engine",
        sidecar.encoder,
        sidecar.input_size,
        artefact.precision,
        path.stat().st_size,
        verdict=ModelFile("engine", path),
        name=path.name,
        model_sha256=sha256_of(path),
    )
