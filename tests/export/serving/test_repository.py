"""A model repository: its text by Triton's own schema, its versions, whole or not at all."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export import triton
from export.serving import repository as writing
from export.serving.check import check_config
from export.serving.config import BACKENDS
from export.serving.text_format import Word, text_of
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, read_sidecar, sidecar_path, write_sidecar
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine

text_format = pytest.importorskip("google.protobuf.text_format")
schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny_engine(tmp_path, "cable")


def plan_of(engine: Path, **known: Any) -> Path:
    """Write a file that the sidecar describes as a plan; nothing here opens it."""
    plan = engine.with_suffix(".plan")
    plan.write_bytes(b"a plan" + json.dumps(known).encode())
    sidecar = read_sidecar(engine)
    artefact = Artefact("plan", "fp16", sha256_of(plan), **{"library": "tensorrt", "version": "10.0", **known})
    write_sidecar(engine, replace(sidecar, batch=8, artefacts=(*sidecar.artefacts[:1], artefact)))
    return plan


def written(folder: Path, *words: object) -> None:
    triton.main([str(word) for word in (folder, *words)])


def config_of(folder: Path, name: str = "cable") -> Any:
    return text_format.Parse((folder / name / "config.pbtxt").read_text(), schema.ModelConfig())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_configuration_is_what_the_schema_has_for_it(backend: str, tmp_path: Path, engine: Path):
    file = plan_of(engine) if backend == "tensorrt" else engine
    written(tmp_path / "m", file, "--backend", backend, "--batch", 6, "--delay-us", 200, "--instances", 2)
    config, sidecar = config_of(tmp_path / "m"), sidecar_path(engine).read_text()
    assert (config.name, config.backend, config.max_batch_size) == ("cable", backend, 6)
    [frames] = config.input
    assert (frames.name, frames.data_type, list(frames.dims)) == ("frames", schema.TYPE_UINT8, [32, 48, 3])
    a_map, score = config.output
    assert (a_map.name, a_map.data_type, list(a_map.dims)) == ("anomaly_map", schema.TYPE_FP32, [32, 48])
    assert (score.name, score.data_type, list(score.dims)) == ("image_score", schema.TYPE_FP32, [1])
    assert score.HasField("reshape") and not score.reshape.shape and not a_map.HasField("reshape")
    assert config.dynamic_batching.max_queue_delay_microseconds == 200
    [group] = config.instance_group
    kinds = {"tensorrt": "KIND_GPU", "onnxruntime": "KIND_AUTO", "openvino": "KIND_CPU", "python": "KIND_CPU"}
    assert group.count == 2 and group.kind == schema.ModelInstanceGroup.Kind.Value(kinds[backend])
    [warmup] = config.model_warmup
    assert warmup.batch_size == 1 and list(warmup.inputs["frames"].dims) == [32, 48, 3]
    assert warmup.inputs["frames"].zero_data and warmup.inputs["frames"].data_type == schema.TYPE_UINT8
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["sidecar_1"] == sidecar
    assert parameters["sidecar_sha256_1"] == hashlib.sha256(sidecar.encode()).hexdigest()
    assert parameters["engine_sha256_1"] == sha256_of(file)
    assert ("checks_engine" in parameters) is (backend == "python")
    suffix = ".plan" if backend == "tensorrt" else ".onnx"
    names = {f"model{suffix}", "model.json"} | ({"model.py"} if backend == "python" else set())
    assert {path.name for path in (tmp_path / "m" / "cable" / "1").iterdir()} == names
    if backend != "python":
        assert config.default_model_filename == f"model{suffix}"


def test_the_default_backend_is_that_of_the_file_and_batching_that_of_the_engine(tmp_path: Path, engine: Path):
    written(tmp_path / "m", engine)
    config = config_of(tmp_path / "m")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 1) and not config.HasField("dynamic_batching")
    written(tmp_path / "p", plan_of(engine))
    config = config_of(tmp_path / "p")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 8) and config.HasField("dynamic_batching")


def test_a_plan_of_one_batch_has_it_in_its_shapes(tmp_path: Path, engine: Path):
    written(tmp_path / "m", plan_of(engine, dla_core=0))
    config = config_of(tmp_path / "m")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert [list(one.dims) for one in (*config.input, *config.output)] == [[8, 32, 48, 3], [8, 32, 48], [8]]
    assert config.model_warmup[0].batch_size == 0
    assert list(config.model_warmup[0].inputs["frames"].dims) == [8, 32, 48, 3]


def test_versions_stay_and_their_sidecars_with_them(tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str]):
    models = tmp_path / "m"
    written(models, engine)
    first = tree(models / "cable" / "1")
    written(models, engine)
    assert "version 1 was there" in capsys.readouterr().out and not (models / "cable" / "2").exists()
    texts = [sidecar_path(engine).read_text()]
    for threshold, words in ((0.5, ()), (0.4, ("--version", 7))):
        sidecar = read_sidecar(engine)
        chosen = {sidecar.default_threshold: replace(sidecar.threshold, value=threshold)}
        write_sidecar(engine, replace(sidecar, thresholds=chosen))
        texts.append(sidecar_path(engine).read_text())
        written(models, engine, *words, "--loaded", 3)
    parameters = {key: value.string_value for key, value in config_of(models).parameters.items()}
    assert [parameters[f"sidecar_{number}"] for number in (1, 2, 7)] == texts
    assert tree(models / "cable" / "1") == first and config_of(models).version_policy.latest.num_versions == 3
    with pytest.raises(UserError, match="version 2 of cable must stay what it is"):
        written(models, engine, "--version", 2)
    before = tree(models)
    with pytest.raises(UserError, match="all versions of cable must take frames of 40x48; found 32x48 in version 1"):
        written(models, write_tiny_engine(tmp_path, "cable", size=(40, 48)))
    assert tree(models) == before
    written(models, engine, "--name", "cable_large")
    assert config_of(models, "cable_large").name == "cable_large"


def test_several_engines_are_all_written_or_none(tmp_path: Path, engine: Path):
    models = tmp_path / "m"
    plug = write_tiny_engine(tmp_path, "plug", size=(16, 16))
    written(models, engine, plug)
    assert [config_of(models, name).name for name in ("cable", "plug")] == ["cable", "plug"]
    before = tree(models)
    write_sidecar(engine, replace(read_sidecar(engine), encoder="another"))
    plug.write_bytes(plug.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"plug.onnx must be one of the files"):
        written(models, engine, plug)
    assert tree(models) == before and not list(tmp_path.glob(".m.part-*"))


def test_a_killed_write_leaves_nothing_that_a_server_sees(tmp_path: Path, engine: Path):
    models = tmp_path / "m"
    code = (
        "import os, signal, sys\n"
        "from export import triton\n"
        "from export.serving import repository\n"
        "repository._put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "triton.main(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, str(models), str(engine)]
    assert subprocess.run(words, cwd=ROOT, timeout=120).returncode == -signal.SIGKILL
    assert list(models.iterdir()) == []
    written(models, engine)
    assert set(tree(models)) == {"cable/config.pbtxt", "cable/1/model.onnx", "cable/1/model.json"}
    assert not list(tmp_path.glob(".m.part-*"))  # what the killed one left is swept


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    models = tmp_path / "m"
    written(models, engine)
    before = tree(models)
    write_sidecar(engine, replace(read_sidecar(engine), encoder="another"))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28), "model.onnx")

    monkeypatch.setattr(writing.shutil, "copyfile", full)
    assert run_command(triton.main, [str(models), str(engine)]) == 2
    assert "the disk is full" in capsys.readouterr().err and tree(models) == before


@pytest.mark.parametrize(
    ("known", "words", "said"),
    [
        (None, ["--backend", "tensorrt"], "needs a .plan"),
        (None, ["--batch", "33"], "must be at most 32"),
        (None, ["--name", "a/b"], "must be letters"),
        (None, ["--python-path", "x"], "are for --backend python"),
        (None, ["--backend", "python", "--python-path", "a:b"], "must be one folder"),
        ({}, ["--backend", "openvino"], "needs an .onnx"),
        ({}, ["--batch", "9"], "must be at most 8"),
        ({"library": "tensorrt_rtx"}, [], "one of TensorRT-RTX"),
        ({"weights_sha256": "0" * 64}, [], "one without"),
    ],
)
def test_what_no_server_could_run_is_refused(
    tmp_path: Path, engine: Path, known: dict[str, Any] | None, words: list[str], said: str
):
    file = engine if known is None else plan_of(engine, **known)
    with pytest.raises(UserError) as refused:
        written(tmp_path / "m", file, *words)
    assert said in str(refused.value) and not (tmp_path / "m").exists()


def test_names_must_differ_and_files_be_there(tmp_path: Path, engine: Path):
    with pytest.raises(UserError, match="'cable' twice"):
        written(tmp_path / "m", engine, plan_of(engine))
    with pytest.raises(UserError, match="no such file"):
        written(tmp_path / "m", tmp_path / "none.onnx")
    with pytest.raises(UserError, match="--name is for one engine"):
        written(tmp_path / "m", engine, engine, "--name", "x")
    (tmp_path / "m" / "cable").mkdir(parents=True)
    with pytest.raises(UserError, match="must hold versions of a detector"):
        written(tmp_path / "m", engine)


def test_a_text_that_is_no_configuration_is_refused():
    assert check_config('name: "x"\n')
    with pytest.raises(UserError, match="must be a ModelConfig"):
        check_config("nam: 1\n")


def test_any_text_comes_back_from_the_text_format():
    value = 'a "quoted" \\ back\nslash\t\x7f\x01 é 漢 \U0001f600 \ufeff \u2028'
    text = text_of([("name", value), ("max_batch_size", 3), ("model_warmup", [("name", "w")])])
    parsed = text_format.Parse(text, schema.ModelConfig())
    assert (parsed.name, parsed.max_batch_size, parsed.model_warmup[0].name) == (value, 3, "w")
    assert text_of([("a", True), ("b", Word("KIND"))]) == "a: true\nb: KIND\n"
