import json
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, Sidecar, Threshold, read_sidecar, sidecar_path, write_sidecar
from tests.support.tiny_engine import tiny_sidecar, write_tiny_engine


def test_a_sidecar_reads_back_equal(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    sidecar = replace(
        tiny_sidecar(path, (32, 48), ("layer2", "layer3", "layer4")),
        thresholds={"good_quantile": Threshold(0.5, "99 % of good"), "best_f1": Threshold(0.75, "labelled")},
        default_threshold="best_f1",
        versions={"onnxruntime": "1.0"},
        parity={"fp16": {"score_max": 1e-3}},
        artefacts=(Artefact("plan", "fp16", "0" * 64, "tensorrt", "10.3", "8.7"),),
    )
    assert write_sidecar(path, sidecar) == tmp_path / "tiny.json"
    assert read_sidecar(path) == sidecar
    assert sidecar.threshold.value == 0.75 and sidecar.score_maximum == 3.0


@pytest.mark.parametrize(
    "name", ["cable.plan", "cable.onnx", "cable.fp16.onnx", "cable.int8.plan", "cable.unfused.onnx"]
)
def test_variants_share_one_sidecar(name: str):
    assert sidecar_path(Path("somewhere") / name) == Path("somewhere/cable.json")


def test_a_dot_in_a_name_is_kept():
    assert sidecar_path("line2.left.plan").name == "line2.left.json"


def test_an_engine_is_known_by_its_bytes(tmp_path: Path):
    onnx_path = write_tiny_engine(tmp_path)
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"a plan")
    entry = Artefact("plan", "fp16", sha256_of(plan), "tensorrt", "10.3", "8.7")
    sidecar = tiny_sidecar(onnx_path, (32, 48), ("a", "b"))
    sidecar = replace(sidecar, artefacts=(*sidecar.artefacts, entry))
    assert sidecar.artefact_of(plan) == entry
    assert sidecar.artefact_of(onnx_path).kind == "onnx"

    plan.write_bytes(b"A plan")  # one bit
    with pytest.raises(UserError, match=f"{sha256_of(plan)[:12]}.*build_engine") as error:
        sidecar.artefact_of(plan)
    assert entry.sha256[:12] in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        ("[]", "found list"),
        ('"cflow"', "found str"),
        ("{}", "no schema"),
        ('{"schema": "cflow-edge/sidecar/999"}', "sidecar/999"),
        ('{"schema": "cflow-edge/sidecar/1"}', "every field"),
    ],
)
def test_foreign_json_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "tiny.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_sidecar(tmp_path / "tiny.onnx")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "tiny.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="must be JSON"):
        read_sidecar(tmp_path / "tiny.plan")


def test_a_missing_sidecar_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"cable\.plan needs cable\.json"):
        read_sidecar(tmp_path / "cable.plan")


@pytest.mark.parametrize("name", ["input_size", "taps", "thresholds", "default_threshold", "clamp"])
def test_a_missing_field_is_refused(tmp_path: Path, name: str):
    value = read_sidecar(write_tiny_engine(tmp_path)).to_json()
    del value[name]
    with pytest.raises(UserError, match="every field"):
        Sidecar.from_json(value)


def test_a_default_threshold_that_is_not_listed_is_refused(tmp_path: Path):
    value = json.loads((write_tiny_engine(tmp_path).with_suffix(".json")).read_text())
    value["default_threshold"] = "best_f1"
    with pytest.raises(UserError, match=r"good_quantile.*'best_f1'"):
        Sidecar.from_json(value)


def test_fields_of_a_later_release_do_no_harm(tmp_path: Path):
    sidecar = read_sidecar(write_tiny_engine(tmp_path))
    assert Sidecar.from_json({**sidecar.to_json(), "colour": "blue"}) == sidecar
