"""The list of a folder's models, and what becomes an entry."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import read_sidecar, write_sidecar
from runtime.report.models import ModelEntry, ModelFile, ModelList, entry_of, read_list, write_list
from runtime.report.schema import Work
from runtime.report.worker import Subject
from runtime.report.workers import subjects_of
from tests.support.tiny_engine import write_tiny_engine


def _list(folder: Path) -> ModelList:
    network = ModelFile("graph", folder / "a.network.onnx")
    whole = ModelFile("engine", folder / "a.onnx")
    eager = ModelFile("torch", folder / "a.pt", "eager")
    padim = ModelFile("torch", folder / "p.pt", "padim", folder / "p.features.onnx")
    product = ModelFile("graph", folder / "product.onnx", input_shape=(4, 4))
    return ModelList(
        "seeded",
        (
            ModelEntry("cflow", "resnet18", (64, 96), "int8", 5, network, whole, Work(1.0, 2.0, 3.0, "int8")),
            ModelEntry("eager", "resnet18", (64, 96), "fp32", 6, eager, eager),
            ModelEntry("padim", "resnet18", (64, 96), "fp32", 7, None, padim),
        ),
        (ModelEntry("product", "", (4, 4), "fp32", 8, product, None, Work(128.0, 64.0, 128.0)),),
    )


def test_a_list_comes_back_wherever_its_folder_is_moved(tmp_path: Path) -> None:
    here = tmp_path / "here"
    write_list(here, _list(here))
    assert read_list(here) == _list(here)
    assert str(tmp_path) not in (here / "models.json").read_text()
    there = here.rename(tmp_path / "there")
    assert read_list(there) == _list(there)


def test_a_file_is_opened_once_however_much_it_times(tmp_path: Path) -> None:
    cflow, eager, padim = _list(tmp_path).entries
    base = Subject("", {}, (0, 0), 3, "onnxruntime")
    network, whole = subjects_of(cflow, base)
    assert (network.runner, network.paths) == ("graph", {"network": str(tmp_path / "a.network.onnx")})
    assert (whole.runner, whole.paths) == ("engine", {"verdict": str(tmp_path / "a.onnx")})
    (both,) = subjects_of(eager, base)
    assert (both.what, list(both.paths)) == ("eager", ["network", "verdict"])
    (one,) = subjects_of(padim, base)
    assert (one.what, one.features, one.input_size) == ("padim", str(tmp_path / "p.features.onnx"), (64, 96))
    for subject in (network, whole, both, one):
        assert (subject.threads, subject.backend) == (3, "onnxruntime") and Subject.from_text(
            subject.to_text()
        ) == subject


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "must hold models to measure"),
        ("{", r"models\.json must be JSON"),
        ("[]", "must have schema"),
        (json.dumps({"schema": "other"}), "must have schema"),
        (json.dumps({"schema": "cflow-edge/report-models/1", "entries": [{}], "limits": []}), "must hold every field"),
    ],
)
def test_another_file_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "models.json").write_text(content)
    with pytest.raises(UserError, match=expected) as error:
        read_list(tmp_path)
    assert "python -m export.bench.models" in str(error.value)


def test_a_named_engine_is_what_its_sidecar_says(tmp_path: Path) -> None:
    path = write_tiny_engine(tmp_path)
    entry = entry_of(path)
    assert (entry.kind, entry.label, entry.precision, entry.input_size) == ("engine", "tiny.onnx", "fp32", (32, 48))
    assert entry.model_sha256 == sha256_of(path) and entry.size_bytes == path.stat().st_size
    with pytest.raises(UserError, match="must exist"):
        entry_of(tmp_path / "missing.onnx")
    with pytest.raises(UserError, match=r"a \.plan or \.onnx file"):
        entry_of(tmp_path / "tiny.json")
    write_sidecar(path, replace(read_sidecar(path), artefacts=()))
    with pytest.raises(UserError, match="must be one of the files"):
        entry_of(path)
