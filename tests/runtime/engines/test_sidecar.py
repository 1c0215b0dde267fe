import json
from dataclasses import replace
from pathlib import Path

import pytest

import runtime
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, Sidecar, Threshold, read_sidecar, sidecar_path, write_sidecar
from runtime.engines.thresholds import store_in_sidecar
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
        ('{"schema": "cflow-edge/sidecar/1"}', "batch must be there; found nothing"),
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
    with pytest.raises(UserError, match=f"the sidecar: {name} must be there; found nothing"):
        Sidecar.from_json(value)


def test_a_default_threshold_that_is_not_listed_is_refused(tmp_path: Path):
    value = json.loads((write_tiny_engine(tmp_path).with_suffix(".json")).read_text())
    value["default_threshold"] = "best_f1"
    with pytest.raises(UserError, match=r"good_quantile.*'best_f1'"):
        Sidecar.from_json(value)


def test_fields_of_a_later_release_do_no_harm(tmp_path: Path):
    sidecar = read_sidecar(write_tiny_engine(tmp_path))
    assert Sidecar.from_json({**sidecar.to_json(), "colour": "blue"}) == sidecar


WRONG = [
    None, True, False, -1, 0.5, 1e9, 10**30, 10**400, -1e9, float("nan"), float("inf"), "", "\ud800", "wrong",
    "x" * 20_000, "../../etc", [], [[]], [None], [1, 2], [1, 2, 3], [-1, -1], {}, {"": {}}, {"a": 1}, {"value": "1"},
    {"a": {"b": []}},
]  # fmt: skip


def full_sidecar(folder: Path) -> Sidecar:
    """Return one with every field that there is."""
    path = write_tiny_engine(folder)
    sidecar = tiny_sidecar(path, (32, 48), ("layer2", "layer3"))
    threshold = Threshold(0.5, "99 % of good", 0.01, (0.001, 0.1), 0.75)
    plan = Artefact("plan", "fp16", "0" * 64, "tensorrt", "10.3", "8.7", True, True, "1" * 64, 0)
    whole = replace(
        sidecar,
        thresholds={"good_quantile": threshold, "night": Threshold(2.0, "by hand")},
        frame_size=(64, 96),
        training_data_sha256="2" * 64,
        versions={"onnxruntime": "1.0"},
        parity={"fp16": {"score_max": 1e-3}},
        artefacts=(*sidecar.artefacts, plan),
    )
    return replace(whole, replaced_by=whole)


def places(value, path=()):
    """Yield the way to everything in a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def test_whatever_a_hand_writes_into_a_field_is_read_or_refused_in_one_line(tmp_path: Path):
    good = json.loads(json.dumps(full_sidecar(tmp_path).to_json()))
    tried, refused = 0, 0
    for place in places(good):
        for wrong in [*WRONG, "left out"]:
            value = json.loads(json.dumps(good))
            holder = value
            for key in place[:-1]:
                holder = holder[key]
            if wrong == "left out":
                del holder[place[-1]]
            else:
                holder[place[-1]] = wrong
            tried += 1
            try:
                (tmp_path / "tiny.json").write_text(json.dumps(value))
                found = read_sidecar(tmp_path / "tiny.onnx")
            except UserError as error:
                refused += 1
                assert "tiny.json" in str(error) and len(str(error)) < 600
                continue
            assert 0 <= found.threshold.value <= found.score_maximum
            assert all(isinstance(side, int) and side > 0 for side in found.engine_frame_size)
            json.dumps(found.to_json(), allow_nan=False)  # nothing in it that another reader chokes on
    assert tried > 2000 and refused > tried / 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("value", 50, r"thresholds\.good_quantile\.value must be on the score's scale, from 0 to 3 .*found 50"),
        ("value", -1, "from 0 to 3 .*found -1"),
        ("map_value", float("nan"), "map_value must be a finite number; found nan"),
        ("map_value", 1e9, "map_value must be on the score's scale, from 0 to 3"),
        ("value", "1.5", "value must be a finite number; found '1.5'"),
        ("interval", [0.2, 0.1], "interval must be two ascending shares"),
        ("false_alarm_rate", 2, "false_alarm_rate must be a number from 0 to 1; found 2"),
    ],
)
def test_a_threshold_that_no_score_reaches_is_refused(tmp_path: Path, field: str, value: object, message: str):
    sidecar = read_sidecar(write_tiny_engine(tmp_path)).to_json()
    sidecar["thresholds"]["good_quantile"][field] = value
    (tmp_path / "tiny.json").write_text(json.dumps(sidecar))
    with pytest.raises(UserError, match=message) as error:
        read_sidecar(tmp_path / "tiny.onnx")
    assert "mend this field" in str(error.value)


@pytest.mark.parametrize("threshold", [50, -1, 3.1, float("nan"), float("inf")])
def test_a_threshold_given_for_a_run_is_on_the_scale(tmp_path: Path, threshold: float):
    path = write_tiny_engine(tmp_path)
    with pytest.raises(UserError, match="the threshold must be on the score's scale, from 0 to 3"):
        runtime.load(path, threshold=threshold)
    with runtime.load(path, threshold=2.99) as detector:
        assert detector.threshold == 2.99


def test_a_name_that_stands_twice_is_refused(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    beside = sidecar_path(path)
    beside.write_text(beside.read_text().replace('"value": 1.0', '"value": 1.0, "value": 2.0'))
    with pytest.raises(UserError, match="'value' stands there twice"):
        read_sidecar(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    before = read_sidecar(path)
    sidecar_path(path).write_bytes(b"\xef\xbb\xbf" + sidecar_path(path).read_bytes())
    assert read_sidecar(path) == before


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "1" * 5000, '{"schema": ' + "9" * 5000 + "}"])
def test_deep_and_long_json_is_refused(tmp_path: Path, text: str):
    (tmp_path / "tiny.json").write_text(text)
    with pytest.raises(UserError, match=r"tiny\.json"):
        read_sidecar(tmp_path / "tiny.onnx")


def test_a_huge_sidecar_is_refused_without_reading_it(tmp_path: Path):
    with (tmp_path / "tiny.json").open("wb") as file:
        file.truncate(64 << 30)  # sparse: takes no space here, and no machine's memory could take it
    with pytest.raises(UserError, match="at most 4194304 bytes"):
        read_sidecar(tmp_path / "tiny.onnx")


def test_a_threshold_is_stored_for_either_side_of_an_unfinished_build(tmp_path: Path):
    old, new = write_tiny_engine(tmp_path, "old"), write_tiny_engine(tmp_path, "new", size=(16, 16))
    before, after = read_sidecar(old), read_sidecar(new)
    for path in (old, new):
        path.rename(tmp_path / f"cable.{'fp16.' if path is new else ''}onnx")
    old, new = tmp_path / "cable.onnx", tmp_path / "cable.fp16.onnx"
    write_sidecar(old, replace(before, replaced_by=after))
    assert (read_sidecar(old), read_sidecar(new)) == (before, after)
    store_in_sidecar(new, "night", Threshold(2.5, "by hand"), default=True)
    store_in_sidecar(old, "day", Threshold(0.5, "by hand"), default=True)
    assert (read_sidecar(old).threshold.value, read_sidecar(new).threshold.value) == (0.5, 2.5)
    assert set(read_sidecar(old).thresholds) == {"good_quantile", "day"}


@pytest.mark.parametrize("name", ["\udce9", "x" * 20_000])
def test_a_sidecar_that_could_not_be_read_again_is_not_written(tmp_path: Path, name: str):
    engine = write_tiny_engine(tmp_path)
    before = sidecar_path(engine).read_bytes()
    with pytest.raises(UserError, match=r"not written: name must be a text"):
        write_sidecar(engine, replace(read_sidecar(engine), name=name))
    assert sidecar_path(engine).read_bytes() == before
