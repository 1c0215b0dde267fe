"""Engines that take each other's places, in processes that end at every step of it, and at any moment."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runtime
from export.staging import staged_engine
from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold, read_sidecar, read_whole_sidecar
from runtime.engines.thresholds import store_in_sidecar
from tests.support.engine_sets import FILES, threshold_of, versions_in, write_version
from tests.support.paths import ROOT

STEPS = len(FILES) + 2  # the sidecar of both sets, every file, the sidecar of the new set
KILLS = 15
PATIENCE_S = 60
PROGRAM = [sys.executable, "-m", "tests.support.engine_sets"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_a_step_every_file_is_still_described_as_what_it_is(tmp_path: Path, step: int) -> None:
    write_version(tmp_path, 1)
    killed = subprocess.run([*PROGRAM, str(tmp_path), "2", str(step)], cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert killed.returncode == 9
    assert versions_in(tmp_path) == ({1} if step < 3 else {2} if step == STEPS else {1, 2})
    for name in ("cable.onnx", "cable.fp16.onnx"):
        with runtime.load(tmp_path / name, backend="onnxruntime") as detector:
            assert detector.threshold in (threshold_of(1), threshold_of(2))
    store_in_sidecar(tmp_path / "cable.onnx", "night", Threshold(0.5, "by hand"), default=False)
    assert versions_in(tmp_path)  # still
    write_version(tmp_path, 3)
    assert versions_in(tmp_path) == {3}
    assert names(tmp_path) == {*FILES, "cable.json"}  # and what the killed one left is gone
    assert read_whole_sidecar(tmp_path / "cable.onnx").replaced_by is None


def test_killed_build_after_killed_build(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    for version in range(2, 8):
        command = [*PROGRAM, str(tmp_path), str(version), str(2 + version % (STEPS - 2))]
        assert subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=False).returncode == 9
        assert versions_in(tmp_path)


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(0)
    write_version(tmp_path, 1)
    version = 1
    for _ in range(KILLS):
        with subprocess.Popen(
            [*PROGRAM, str(tmp_path), str(version + 1)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None and run.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.3))
            run.send_signal(signal.SIGKILL)
        found = versions_in(tmp_path)
        assert min(found) >= version
        version = max(found)
    assert version > 1  # some got through
    write_version(tmp_path, version + 1)
    assert names(tmp_path) == {*FILES, "cable.json"}


def test_what_fails_leaves_the_engine_as_it_was(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="no"), staged_engine(tmp_path / "cable.plan") as staged:
        staged.aside(tmp_path / "cable.onnx").write_bytes(b"half of it")
        raise UserError("no")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_build_of_an_engine_is_refused_and_one_of_another_is_not(tmp_path: Path) -> None:
    with staged_engine(tmp_path / "cable.plan"):
        with pytest.raises(UserError, match=r"engine cable must have one writer at a time; found process \d+"):
            write_version(tmp_path, 2)
        with pytest.raises(UserError, match="one writer"), staged_engine(tmp_path / "cable.int8.onnx"):
            pass  # of the same name
        with staged_engine(tmp_path / "screw.plan"):
            pass
    write_version(tmp_path, 3)
    assert read_sidecar(tmp_path / "cable.plan").threshold.value == threshold_of(3)


def test_a_threshold_can_be_set_while_an_engine_is_built(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with staged_engine(tmp_path / "cable.plan"):
        store_in_sidecar(tmp_path / "cable.onnx", "night", Threshold(0.5, "by hand"), default=True)
    assert read_sidecar(tmp_path / "cable.onnx").threshold.value == 0.5


def test_a_sidecar_that_cannot_be_read_is_kept_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the hand that edits it must not lose a threshold that was chosen with care."""
    write_version(tmp_path, 1)
    sidecar = tmp_path / "cable.json"
    damaged = sidecar.read_text().replace(":", "", 1)
    sidecar.write_text(damaged)
    write_version(tmp_path, 2)
    assert versions_in(tmp_path) == {2}
    assert (tmp_path / "cable.json.damaged").read_text() == damaged
    assert "not kept: the thresholds in a sidecar that cannot be read" in capsys.readouterr().err
