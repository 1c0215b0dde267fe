"""Thresholds set on models that stand: in the sidecar of a real engine, and in a real checkpoint."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtime
from export.model.checkpoint import load_checkpoint, save_checkpoint
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, Sidecar, Threshold, read_sidecar, write_sidecar
from runtime.images.facts import ImageFacts
from runtime.images.folders import natural_key
from runtime.images.preprocess import read_image
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_engine import THRESHOLD, write_tiny_engine
from train import set_threshold
from train.data.dataset import Dataset

SIZE = (32, 48)  # of the engine that calls brightness an anomaly
TAPS = 3  # a frame of grey level v scores 3·v/255


def grey(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE[1], SIZE[0]), (level, level, level)).save(path)
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny_engine(tmp_path, size=SIZE)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """20 good images of grey levels 10, 20 ... 200, in no order."""
    for index, level in enumerate(np.random.default_rng(0).permutation(np.arange(10, 201, 10)).tolist()):
        grey(tmp_path / f"good/{index}.png", level)
    return tmp_path / "good"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for defect, level in (("good", 40), ("good", 80), ("cut", 100), ("cut", 220)):
        grey(tmp_path / f"labelled/test/{defect}/{level}.png", level)
    return tmp_path / "labelled"


def run(model: Path, *arguments: object) -> None:
    assert run_command(set_threshold.main, [str(model), *map(str, arguments)]) == 0


def test_good_images_choose_a_threshold_that_decides_from_then_on(
    engine: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, network = read_sidecar(engine), engine.read_bytes()
    frame = read_image(grey(engine.parent / "frame.png", 150))
    with runtime.load(engine) as detector:
        assert detector(frame).verdict == "anomalous"
    run(engine, "--good", good, "--false-alarm-rate", 0.1)
    after = read_sidecar(engine)
    # The ⌈21·0.9⌉ = 19th of 20 images has grey level 190; the engine computes in float32.
    assert after.threshold.value == pytest.approx(TAPS * 190 / 255, rel=1e-6)
    assert after.threshold.false_alarm_rate == pytest.approx(2 / 21)
    assert after.threshold.interval is not None and after.threshold.interval[0] < 0.1 < after.threshold.interval[1]
    assert after.threshold.method.endswith(", judged with tiny.onnx")
    assert after == replace(
        before, default_threshold="good_0.1", thresholds={**before.thresholds, "good_0.1": after.threshold}
    )
    assert engine.read_bytes() == network
    with runtime.load(engine) as detector:
        assert detector(frame).verdict == "good"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["set good_0.1", "default before", "default now"]
    assert "good_quantile: 1 (set by hand for tests)" in lines[1]
    assert "good_0.1: 2.23529 (false-alarm rate <= 9.52%" in lines[2] and "95% interval" in lines[2]


def test_labelled_images_choose_best_f1_which_decides_only_if_told(engine: Path, labelled: Path) -> None:
    run(engine, "--data", labelled)
    kept = read_sidecar(engine)
    assert kept.default_threshold == "good_quantile"
    # The cut between good and anomalous lies halfway between grey levels 80 and 100; float32.
    assert kept.thresholds["best_f1"].value == pytest.approx(TAPS * 90 / 255, rel=1e-6)
    assert kept.thresholds["best_f1"].method == "best F1 1.0000 on 4 labelled images, judged with tiny.onnx"
    run(engine, "--data", labelled, "--default")
    assert read_sidecar(engine) == replace(kept, default_threshold="best_f1")


def test_a_value_and_a_name_of_ones_own(engine: Path, good: Path) -> None:
    run(engine, "--value", 1.23)
    run(engine, "--value", 2, "--name", "night", "--default")
    run(engine, "--good", good, "--name", "shift", "--no-default")
    sidecar = read_sidecar(engine)
    assert list(sidecar.thresholds) == ["good_quantile", "manual", "night", "shift"]
    assert sidecar.thresholds["manual"] == Threshold(1.23, "set by hand")
    assert (sidecar.default_threshold, sidecar.threshold.value) == ("night", 2)
    run(engine, "--value", 2.9, "--name", "night")
    again = read_sidecar(engine)
    assert (len(again.thresholds), again.threshold.value, again.default_threshold) == (4, 2.9, "night")


def test_a_plan_is_not_opened_to_set_a_value(engine: Path) -> None:
    plan = engine.with_suffix(".plan")
    plan.write_bytes(b"compiled for another machine")
    sidecar = read_sidecar(engine)
    entry = Artefact("plan", "fp16", sha256_of(plan), "tensorrt", "10.3", "8.7")
    write_sidecar(plan, replace(sidecar, artefacts=(*sidecar.artefacts, entry)))
    run(plan, "--value", 1.5, "--default")
    assert read_sidecar(plan).threshold.value == 1.5
    assert read_sidecar(plan).artefacts == (*sidecar.artefacts, entry)


def test_a_checkpoint_keeps_its_network(good: Path, tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "cable.pt", sorted(good.iterdir())[:4], SIZE, "cables")
    before = load_checkpoint(path)
    run(path, "--good", good, "--false-alarm-rate", 0.05)
    run(path, "--value", 0.5)
    after = load_checkpoint(path)
    assert list(after.thresholds) == ["good_quantile", "good_0.05", "manual"]
    assert after.default_threshold == "good_0.05"
    assert after.thresholds["good_0.05"].interval is not None
    assert after.thresholds["good_quantile"] == before.thresholds["good_quantile"]
    state = after.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.model.state_dict().items())
    assert (after.model.config, after.data_origin) == (before.model.config, "cables")
    assert torch.equal(after.constants, before.constants)


def test_a_sidecar_from_before_intervals_reads(engine: Path) -> None:
    sidecar = engine.with_suffix(".json")
    value = json.loads(sidecar.read_text())
    value["thresholds"] = {"good_quantile": {"value": 1.5, "method": "of old"}}
    sidecar.write_text(json.dumps(value))
    assert read_sidecar(engine).threshold == Threshold(1.5, "of old")
    run(engine, "--value", 1)
    assert read_sidecar(engine).threshold == Threshold(1.5, "of old")


def test_a_threshold_with_its_interval_reads_back_equal(engine: Path) -> None:
    threshold = Threshold(1.5, "99 good images", 0.01, (0.0003, 0.037))
    write_sidecar(engine, replace(read_sidecar(engine), thresholds={"good_quantile": threshold}))
    assert read_sidecar(engine).threshold == threshold


@pytest.mark.parametrize(
    "change",
    [{"interval": [0.2, 0.1]}, {"interval": [0.1]}, {"interval": [0, 2]}, {"interval": "low"}, {"interval": 1},
     {"false_alarm_rate": 2}, {"false_alarm_rate": "rare"}],
)  # fmt: skip
def test_an_interval_or_rate_that_is_none_is_refused(engine: Path, change: dict[str, object]) -> None:
    value = read_sidecar(engine).to_json()
    value["thresholds"]["good_quantile"].update(change)
    with pytest.raises(UserError, match=rf"thresholds\.good_quantile\.{next(iter(change))}.* must be"):
        Sidecar.from_json(value)


def refusal(capsys: pytest.CaptureFixture[str], model: Path, *arguments: object) -> str:
    assert run_command(set_threshold.main, [str(model), *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in lines].count(True) == 1
    return lines[-1]


def test_bad_input_ends_in_one_line_and_changes_nothing(
    engine: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = engine.with_suffix(".json")
    before = sidecar.read_bytes()
    (tmp_path / "empty").mkdir()
    grey(tmp_path / "half/test/good/0.png", 1)
    assert "no folder" in refusal(capsys, engine, "--good", tmp_path / "none")
    assert "must hold good images; found none" in refusal(capsys, engine, "--good", tmp_path / "empty")
    assert "must lie between 0 and 1; found 1.0" in refusal(capsys, engine, "--good", good, "--false-alarm-rate", 1)
    for value in ("nan", "inf", "74", "-1"):
        message = "the threshold must be on the score's scale, from 0 to 3 (one per tap); found "
        assert f"{message}{value}" in refusal(capsys, engine, f"--value={value}")
    assert "found only good ones" in refusal(capsys, engine, "--data", tmp_path / "half")
    assert "found none" in refusal(capsys, engine, "--data", good)
    assert "no such file" in refusal(capsys, tmp_path / "none.pt", "--value", 1)
    assert "a model is a file with .pt, .onnx, .plan" in refusal(capsys, sidecar, "--value", 1)
    assert sidecar.read_bytes() == before


def test_a_sidecar_of_another_engine_is_refused(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine.write_bytes(engine.read_bytes() + b"\0")
    assert "must be one of the files that tiny.json describes" in refusal(capsys, engine, "--value", 1)
    assert asdict(read_sidecar(engine).threshold)["value"] == THRESHOLD


@pytest.mark.parametrize("arguments", [[], ["--value", "1", "--good", "."]])
def test_exactly_one_way_to_choose_is_asked_for(engine: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        set_threshold.main([str(engine), *arguments])
    assert ended.value.code == 2


@pytest.mark.parametrize("name", ["x" * 20_000, "a\nb", "\udcff", "\x1b[31m"])
@pytest.mark.parametrize("kind", ["engine", "checkpoint"])
def test_a_name_that_cannot_be_kept_leaves_the_model_as_it_is(
    kind: str, name: str, engine: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = engine
    if kind == "checkpoint":
        model = write_tiny_checkpoint(engine.with_name("own.pt"), sorted(good.iterdir()), SIZE)
    files = {path: path.read_bytes() for path in model.parent.iterdir() if path.is_file()}
    assert run_command(set_threshold.main, [str(model), "--value", "0.5", "--name", name]) == 2
    assert "a threshold's name must have 1 to 64 letters" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in model.parent.iterdir() if path.is_file()} == files


@pytest.mark.parametrize("value", [TAPS, TAPS * (1 + 1e-9)])
def test_a_threshold_at_the_end_of_the_scale_is_refused(
    value: float, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_sidecar(engine)
    assert run_command(set_threshold.main, [str(engine), "--value", str(value), "--default"]) == 2
    assert "must be below 3, the largest score there is; found 3, which nothing can be above" in capsys.readouterr().err
    assert read_sidecar(engine) == before
    with pytest.raises(UserError, match="which nothing can be above"):
        runtime.load(engine, threshold=value)


def test_good_images_at_the_end_of_the_scale_choose_no_threshold(
    engine: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey(good / "white.png", 255)
    before = read_sidecar(engine)
    assert run_command(set_threshold.main, [str(engine), "--good", str(good)]) == 2
    assert "white.png at it; remove it if it is not good" in capsys.readouterr().err
    assert read_sidecar(engine) == before


def test_copies_promise_nothing(engine: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(100):
        (good / f"copy{number}.png").write_bytes((good / "3.png").read_bytes())
    run(engine, "--good", good)
    assert "100 of 120 images are copies of others and are left out: copy0.png" in capsys.readouterr().err
    assert read_sidecar(engine).threshold.false_alarm_rate == pytest.approx(1 / 21)  # of 20, not of 120


@pytest.mark.parametrize("kind", ["engine", "checkpoint"])
@pytest.mark.parametrize("layout", [".", "train/good"])
def test_the_very_images_of_training_are_refused(
    layout: str, kind: str, engine: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model = engine.parent / "trained", engine
    (root / layout).mkdir(parents=True)
    paths = tuple(path.rename(root / layout / path.name) for path in sorted(good.iterdir(), key=natural_key))
    digest = Dataset(root, paths, ()).sha256()
    if kind == "engine":
        write_sidecar(engine, replace(read_sidecar(engine), training_data_sha256=digest))
    else:
        model = write_tiny_checkpoint(engine.with_name("own.pt"), paths, SIZE)
        save_checkpoint(model, replace(load_checkpoint(model), data_sha256=digest))
    assert run_command(set_threshold.main, [str(model), "--good", str(root / layout)]) == 2
    assert "--good must be images that the model was not trained on" in capsys.readouterr().err
    grey(root / layout / "other.png", 77)
    run(model, "--good", root / layout)  # another set


@pytest.mark.parametrize("kind", ["engine", "checkpoint"])
def test_an_image_that_the_line_would_not_judge_chooses_no_threshold(
    kind: str, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rng = tmp_path / "noise", np.random.default_rng(1)
    folder.mkdir()
    for number in range(12):
        noise = rng.integers(90, 150, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    facts = ImageFacts.of(read_image(path) for path in folder.iterdir())
    grey(folder / "black.png", 0), grey(folder / "white.png", 255)
    if kind == "engine":
        model = engine
        write_sidecar(engine, replace(read_sidecar(engine), image_facts=facts))
    else:
        model = write_tiny_checkpoint(engine.with_name("own.pt"), sorted(folder.glob("[0-9]*")), SIZE)
        save_checkpoint(model, replace(load_checkpoint(model), image_facts=facts))
    run(model, "--good", folder)
    said = capsys.readouterr()
    assert "2 of 14 images would have no verdict on the line" in said.err
    assert "from 12 held-out good images" in said.out
