"""Builds that meet another one's engine: thresholds that are kept, two at once, signals, kills. With real networks."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runtime
from export import build_engine
from runtime.common.errors import run_command
from runtime.engines.sidecar import Threshold, read_sidecar
from tests.support.paths import ROOT
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from train import set_threshold
from train.judging.model_file import store_threshold

GOOD = sorted((ROOT / "calibration_data").glob("*.jpg"))
KILLS = 5
PATIENCE_S = 120


def arguments(model: Path, precision: str = "--fp32") -> list[str]:
    return [str(model), precision, "--no-plan", "--calibration-data", str(model.parent / "none")]


def build(model: Path, precision: str = "--fp32") -> int:
    return run_command(build_engine.main, arguments(model, precision))


def process(model: Path, precision: str = "--fp32") -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "export.build_engine", *arguments(model, precision)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = write_tiny_checkpoint(tmp_path / "cable.pt", GOOD[:4], (32, 48))
    assert build(path) == 0
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_threshold_of_the_engine_outlives_one_that_is_saved_in_the_checkpoint(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`set_threshold ENGINE`, then `evaluate CKPT --save-best-f1`, then `build_engine`."""
    engine = checkpoint.with_suffix(".onnx")
    assert run_command(set_threshold.main, [str(engine), "--value", "0.75", "--default"]) == 0
    store_threshold(checkpoint, "best_f1", Threshold(0.5, "best F1"), default=False)
    capsys.readouterr()
    assert build(checkpoint) == 0
    sidecar = read_sidecar(engine)
    assert (sidecar.default_threshold, sidecar.threshold.value) == ("manual", 0.75)
    assert set(sidecar.thresholds) == {"good_quantile", "best_f1", "manual"}
    assert "kept, as set on the engine: manual 0.75" in capsys.readouterr().out
    write_tiny_checkpoint(checkpoint, GOOD[4:8], (32, 48))  # other constants: another network
    assert build(checkpoint) == 0
    assert set(read_sidecar(engine).thresholds) == {"good_quantile"}
    assert "dropped, as set on an engine of another network: manual; set them again" in capsys.readouterr().out


def test_two_builds_at_once(checkpoint: Path) -> None:
    first, second = process(checkpoint), process(checkpoint, "--fp16")
    ended = [(run.communicate(timeout=PATIENCE_S)[1], run.returncode) for run in (first, second)]
    assert sorted(status for _, status in ended) in ([0, 2], [0, 0])  # one after the other, if one was slow to start
    refused = [error for error, status in ended if status]
    assert all("engine cable must have one writer at a time" in e and e.count("\n") == 1 for e in refused)
    with runtime.load(checkpoint.with_suffix(".onnx")):
        pass


def test_sigterm_ends_a_build_as_ctrl_c_does(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()}
    for number, status, word in ((signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")):
        run = process(checkpoint, "--fp16")
        assert run.stdout is not None and run.stdout.readline()  # it has begun
        run.send_signal(number)
        error = run.communicate(timeout=PATIENCE_S)[1]
        assert (run.returncode, error.strip()) == (status, f"{word}; what was written before is whole")
        assert {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()} == before


def test_kill_9_at_random_moments_leaves_an_engine_that_opens(checkpoint: Path) -> None:
    rng = random.Random(0)
    engine = checkpoint.with_suffix(".onnx")
    for _ in range(KILLS):
        store_threshold(checkpoint, "night", Threshold(rng.random(), "by hand"), default=False)  # all is exported anew
        run = process(checkpoint, "--fp16")
        assert run.stdout is not None and run.stdout.readline()
        time.sleep(rng.uniform(0, 6))
        run.kill()
        run.communicate()
        for path in (engine, checkpoint.with_suffix(".unfused.onnx")):
            with runtime.load(path, backend="onnxruntime"):
                pass
    assert build(checkpoint, "--fp16") == 0
    expected = {"cable.pt", "cable.unfused.onnx", "cable.onnx", "cable.fp16.onnx", "cable.json"}
    assert names(checkpoint.parent) == expected  # nothing of the killed ones is left
