"""Real processes that have a model open, and what becomes of those that cannot."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, write_sidecar
from runtime.engines.trt import cuda
from runtime.report.worker import Subject, frames_of, peak_memory_mb
from runtime.report.workers import Worker
from tests.support.tiny_engine import tiny_sidecar, write_tiny_engine


def _subject(path: Path, runner: str = "engine", **changes) -> Subject:
    name = "verdict" if runner == "engine" else "network"
    values = {"threads": 1, "backend": "onnxruntime", **changes}
    return Subject(runner, {name: str(path)}, (32, 48), **values)


def test_an_engine_is_run_as_often_as_asked_and_its_stages_lie_within_the_run(tmp_path: Path) -> None:
    with Worker(_subject(write_tiny_engine(tmp_path))) as worker:
        assert (worker.engine, worker.paths, worker.max_batch) == ("ONNX Runtime", ["verdict"], 32)
        assert "1 thread" in worker.device and worker.first_verdict_s > 0 and worker.memory_mb > 10
        runs = worker.run("verdict", batch=3, warm=0, count=4)
        assert len(runs) == 4
        for run in runs:
            assert 0 < run["execute"] <= run["total"] <= run["verdict"]
        assert worker.alive
    assert not worker.alive
    worker.close()  # a second time does nothing


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_is_run_on_frames_or_on_images_of_its_own_shape(tmp_path: Path, backend: str) -> None:
    path = write_tiny_engine(tmp_path)
    with Worker(_subject(path, "graph", backend=backend)) as worker:
        (run,) = worker.run("network")
        assert list(run) == ["network"] and run["network"] > 0


def test_what_does_not_open_is_one_line(tmp_path: Path) -> None:
    path = write_tiny_engine(tmp_path)
    path.write_bytes(b"no ONNX")
    with pytest.raises(UserError, match=r"must be one of the files that tiny\.json describes"):
        Worker(_subject(path))
    with pytest.raises(UserError, match="must run; found"):  # the library's own error, its last line
        Worker(_subject(path, "graph"))
    with pytest.raises(UserError, match="must run; found"):
        Worker(_subject(path, "graph"), module="runtime.report.no_such_worker")


def test_what_needs_torch_is_opened_by_the_python_that_has_it(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$2" >>"{tmp_path}/asked"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = write_tiny_engine(tmp_path)
    with pytest.raises(UserError, match="must be a file of format"):  # an engine is no checkpoint
        Worker(_subject(path, "torch", what="eager"), torch_python=python)
    Worker(_subject(path), torch_python=python).close()
    assert (tmp_path / "asked").read_text() == "export.bench.torch_worker\n"


def test_a_plan_that_no_device_runs_is_one_line(tmp_path: Path) -> None:
    if cuda.device_problem() is None:
        pytest.skip("a CUDA device is here")
    path = tmp_path / "part.plan"
    path.write_bytes(b"plan")
    sidecar = tiny_sidecar(path, (32, 48), ("layer2",))
    artefact = Artefact("plan", "fp16", sha256_of(path), "tensorrt", "8.6.0", "9.0")
    write_sidecar(path, replace(sidecar, artefacts=(artefact,)))
    both = Subject("graph", {"network": str(path), "verdict": str(path)}, (32, 48))
    for subject in (_subject(path), both, Subject("device", {"copy": "", "launch": ""}, (0, 0))):
        with pytest.raises(UserError, match=r"needs? a CUDA device; found"):
            Worker(subject)


def test_a_process_that_dies_under_way_is_told(tmp_path: Path) -> None:
    with Worker(_subject(write_tiny_engine(tmp_path))) as worker:
        worker.run("verdict")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"tiny\.onnx must run; found its process ended with -9"):
            worker.run("verdict")


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.py"
    noisy.write_text(
        "import os, sys\n"
        "from runtime.report.worker import open_subject, serve\n"
        "def loud(subject):\n"
        "    print('hello'); os.system('echo from a child')\n"
        "    return open_subject(subject)\n"
        "sys.exit(serve(sys.argv[1], loud))\n"
    )
    path = write_tiny_engine(tmp_path)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        with Worker(_subject(path), module="noisy") as worker:
            assert worker.run("verdict")[0]["verdict"] > 0
    finally:
        os.environ["PYTHONPATH"] = before


def test_frames_are_the_same_in_every_process_and_memory_is_the_systems(tmp_path: Path) -> None:
    assert (frames_of(3, (4, 6))[:2] == frames_of(2, (4, 6))).all() and frames_of(1, (4, 6)).std() > 10
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmPeak:\t  9000 kB\nVmHWM:\t  2000 kB\n")
    assert peak_memory_mb(status) == 2000 * 1024 / 1e6
    assert peak_memory_mb(tmp_path / "none") is None
