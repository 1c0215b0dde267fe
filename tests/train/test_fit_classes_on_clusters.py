"""Classes as tasks of a cluster: the checkpoints of one machine, kept, gone on with, and no end of the others."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from export.model.checkpoint import load_checkpoint
from runtime.common.errors import run_command
from tests.support.clusters import children_of, command_of, environment
from tests.support.paths import ROOT
from tests.support.waiting import LONGEST_S
from train import fit_classes
from train.judging.class_table import read_results
from train.loop.training import resume_path
from train.synthetic import write_dataset

needs = {
    library: pytest.mark.skipif(not importlib.util.find_spec(module), reason=f"{module} (extra {library})")
    for library, module in (("ray", "ray"), ("dask", "distributed"))
}
BOTH = [pytest.param("ray", marks=needs["ray"]), pytest.param("dask", marks=needs["dask"])]
OPTIONS = ["--encoder", "resnet18", "--taps", "layer1", "--blocks", "1", "--batch", "4", "--weights", "random"]
OPTIONS += ["--sub-epochs", "1", "--learning-rate", "1e-3", "--accept-poor", "--size", "64"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small classes and one whose image is none."""
    root = tmp_path_factory.mktemp("classes")
    for name, seed in (("cable", 0), ("wire", 1)):
        write_dataset(root / name, train=6, test_good=2, per_defect=1, size=64, seed=seed)
    (root / "broken" / "train" / "good").mkdir(parents=True)
    (root / "broken" / "train" / "good" / "a.png").write_bytes(b"nothing")
    return root


def _command(root: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "train.fit_classes", "--data", str(root), "--out-dir", str(out), *OPTIONS, *more]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _ended(command: "subprocess.Popen[str]") -> tuple[int, str, str]:
    said, errors = command.communicate(timeout=5 * LONGEST_S)
    return command.returncode, said, errors


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same classes, trained one after another by one thread, as a task has."""
    out = tmp_path_factory.mktemp("alone")
    status, _, errors = _ended(_command(root, out, "--meta-epochs", "2"))
    assert status == 2 and "found 1 failed: broken" in errors
    return out


@pytest.mark.slow
@pytest.mark.parametrize("library", BOTH)
def test_a_cluster_trains_what_one_machine_does(root: Path, alone: Path, tmp_path: Path, library: str):
    words = ["--meta-epochs", "2", f"--{library}", "local", "--workers", "2"]
    status, said, errors = _ended(_command(root, tmp_path, *words))
    assert status == 2 and errors.strip().splitlines()[-1].endswith("found 1 failed: broken; run it again when mended")
    here, there = read_results(alone / "classes.json"), read_results(tmp_path / "classes.json")
    assert set(here) == set(there) == {"broken", "cable", "wire"}
    assert here["broken"].error == there["broken"].error != ""
    for name in ("cable", "wire"):
        assert (there[name].error, there[name].input_size) == ("", (64, 64))
        weights = [load_checkpoint(out / f"{name}.pt").model.state_dict() for out in (alone, tmp_path)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        assert there[name].figures == here[name].figures and there[name].minutes is not None
        assert f"\n{name} " in said
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")}
    status, *_ = _ended(_command(root, tmp_path, *words, "--classes", "cable,wire"))
    assert status == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")} == before  # kept
    assert read_results(tmp_path / "classes.json")["cable"] == there["cable"]


WORKERS = {"ray": "ray::cflow_task", "dask": "multiprocessing.spawn"}


@pytest.mark.slow
@pytest.mark.parametrize("library", BOTH)
def test_a_class_whose_worker_is_killed_goes_on_with_another(root: Path, tmp_path: Path, library: str):
    words = ["--meta-epochs", "40", f"--{library}", "local", "--workers", "1", "--classes", "cable"]
    command = _command(root, tmp_path / "killed", *words)
    killed: list[str] = []

    def kill() -> None:
        while command.poll() is None and not killed:
            if resume_path(tmp_path / "killed" / "cable.pt").is_file():
                for pid in children_of(command.pid):
                    name = command_of(pid)
                    if WORKERS[library] in name:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            killed.append(name)
                            return

    thread = threading.Thread(target=kill)
    thread.start()
    status, _, errors = _ended(command)
    thread.join()
    assert status == 0, errors
    assert killed, "none was found to kill"
    assert _ended(_command(root, tmp_path / "whole", "--meta-epochs", "40", "--classes", "cable"))[0] == 0
    killed_run, whole = (load_checkpoint(tmp_path / out / "cable.pt") for out in ("killed", "whole"))
    assert killed_run.history == whole.history


def test_what_does_not_go_together_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def told(*words: str) -> str:
        assert run_command(fit_classes.main, ["--data", str(root), "--out-dir", str(tmp_path), *OPTIONS, *words]) == 2
        return capsys.readouterr().err.strip()

    assert told("--workers", "2").startswith("error: --workers and --class-cpus are a cluster's")
    assert told("--class-cpus", "2").startswith("error: --workers and --class-cpus are a cluster's")
    assert "--dask 127.0.0.1:1 must answer" in told("--dask", "127.0.0.1:1")
    assert told("--dask", "127.0.0.1:1", "--size", "16").startswith("error: --size must be")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "a class on several GPUs is torchrun's" in told("--dask", "local")
    assert not list(tmp_path.iterdir())
