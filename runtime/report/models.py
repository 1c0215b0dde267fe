"""What a report measures: files, what each is and how it is run; a folder of them has a list, `models.json`.

`export.bench.models` writes such folders. Files that a user names are entries of their own.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runtime.common.errors import UserError
from runtime.common.files import read_json, sha256_of, write_json
from runtime.engines.sidecar import read_sidecar
from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Work, parse

SCHEMA = "cflow-edge/report-models/1"
LIST_NAME = "models.json"
LARGEST_LIST = 16 << 20  # bytes; ours take some kilobytes
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
    """A file and what runs it."""

    runner: Runner
    path: Path
    what: str = ""  # which torch module it is
    features: Path | None = None  # a torch module's encoder as ONNX
    input_shape: tuple[int, ...] | None = None  # of a graph that takes images as float32; None: frames
    cuda_graph: bool = True  # False: a plan's kernels are launched one by one


@dataclass(frozen=True)
class ModelEntry:
    """One model, in one or more files."""

    kind: str
    encoder: str
    input_size: tuple[int, int]
    precision: str  # of the file: "fp32", "fp16", "int8"
    size_bytes: int
    network: ModelFile | None = None  # encoder and decoders alone
    verdict: ModelFile | None = None  # the whole way; that of an encoder alone ends with the taps on the device
    work: Work | None = None
    name: str = ""
    model_sha256: str = ""
    swept: ModelFile | None = None  # the whole way for other batches, where that is a file of its own

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
    """A folder's models and what their weights are."""

    weights: str
    entries: tuple[ModelEntry, ...] = ()
    limits: tuple[ModelEntry, ...] = ()  # products to measure the machine with
    left_out: tuple[str, ...] = ()  # what could not be made, each with its reason


def detector_stem(encoder: str, size: tuple[int, int]) -> str:
    """Return what the names of a detector's files begin with."""
    return f"{encoder}-{size[0]}"


def write_list(folder: Path, models: ModelList) -> None:
    """Write `models.json` into `folder`; paths in it are relative to that."""

    def plain(entry: ModelEntry) -> dict[str, Any]:
        value = asdict(entry)
        for file in (value[role] for role in ROLES if value[role] is not None):
            file.update({key: os.path.relpath(file[key], folder) for key in ("path", "features") if file[key]})
        return value

    lists = {part: list(map(plain, getattr(models, part))) for part in ("entries", "limits")}
    values = {"schema": SCHEMA, "weights": models.weights, **lists, "left_out": list(models.left_out)}
    write_json(folder / LIST_NAME, values)


def read_list(folder: Path) -> ModelList:
    """Read the list of `folder`. Raises `UserError` where there is none, or one of another schema."""
    path = folder / LIST_NAME
    cure = f"prepare them: python -m export.bench.models --out {folder}"
    if not path.is_file():
        raise UserError(f"{folder} must hold models to measure ({LIST_NAME})", "no such file", cure)
    value = read_json(path, LARGEST_LIST, cure)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{path} must have schema {SCHEMA}", "another", cure)
    try:
        models: ModelList = parse(ModelList, value)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} must hold every field of {SCHEMA}", repr(error), cure) from None
    entries, limits = (tuple(_within(folder, entry) for entry in part) for part in (models.entries, models.limits))
    return replace(models, entries=entries, limits=limits)


def _within(folder: Path, entry: ModelEntry) -> ModelEntry:
    """Return an entry whose paths, relative to `folder` in its list, are found from anywhere."""
    files = {role: file for role in ROLES if (file := getattr(entry, role)) is not None}
    moved: dict[str, Any] = {
        role: replace(file, path=folder / file.path, features=None if file.features is None else folder / file.features)
        for role, file in files.items()
    }
    return replace(entry, **moved)


def entry_of(path: Path) -> ModelEntry:
    """Return the entry of an engine that a user names. Raises `UserError` as `runtime.load` does for its file."""
    if path.suffix not in SUFFIXES:
        raise UserError("an engine is a .plan or .onnx file", str(path), "build one with export.build_engine")
    if not path.is_file():
        raise UserError(f"{path} must exist", "no such file", "build it with export.build_engine")
    sidecar = read_sidecar(path)
    precision, size_bytes = sidecar.artefact_of(path).precision, path.stat().st_size
    entry = ModelEntry("engine", sidecar.encoder, sidecar.input_size, precision, size_bytes, name=path.name)
    return replace(entry, verdict=ModelFile("engine", path), model_sha256=sha256_of(path))
