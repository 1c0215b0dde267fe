"""Ray and Dask, real and of this machine: the very file of the pool, also where a worker is killed under way."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.archive.run import judge_shard
from tests.support.archives import run_of
from tests.support.clusters import children_of, command_of, dask_of_two, environment, ray_of
from tests.support.paths import ROOT
from tests.support.waiting import LONGEST_S

WHOLE = "000001-of-000001.parquet"
needs = {
    library: pytest.mark.skipif(not importlib.util.find_spec(module), reason=f"{module} (extra {library})")
    for library, module in (("ray", "ray"), ("dask", "distributed"))
}
BOTH = [pytest.param("ray", marks=needs["ray"]), pytest.param("dask", marks=needs["dask"])]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(engine: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return judge_shard(run_of(folder, engine, tmp_path_factory.mktemp("whole"))).file.read_bytes()


class Command:
    """`cflow judge`, running."""

    def __init__(self, folder: Path, engine: Path, out: Path, *more: str) -> None:
        words = [sys.executable, "-m", "runtime.judge", str(folder), "--engine", str(engine), "--out", str(out)]
        words += ["--part-size", "2", "--backend", "onnxruntime", *more]
        self.process = subprocess.Popen(
            words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ended(self) -> str:
        """Return what it said on stderr at its end, which is a good one."""
        _, errors = self.process.communicate(timeout=4 * LONGEST_S)
        assert self.process.returncode == 0, errors
        return errors


def _kill_one(command: Command, out: Path, wanted: Callable[[str], bool], killed: list[str]) -> threading.Thread:
    """Kill the first process below the command that is `wanted`, once a part is there."""

    def work() -> None:
        while command.process.poll() is None and not killed:
            if list(out.glob("parts/*/*.parquet")):
                for pid in children_of(command.process.pid):
                    if wanted(name := command_of(pid)):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                            killed.append(name)
                            return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("library", BOTH)
def test_a_cluster_of_this_machine_alone(engine: Path, folder: Path, tmp_path: Path, expected: bytes, library: str):
    told = Command(folder, engine, tmp_path, f"--{library}", "local", "--workers", "2").ended()
    assert (tmp_path / WHOLE).read_bytes() == expected
    assert "Traceback" not in told


@pytest.mark.parametrize("library", BOTH)
def test_an_engine_that_cannot_be_opened_there_is_one_line(
    engine: Path, folder: Path, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
):
    """The command's own process opens it, the workers' do not: another machine, without the file."""
    from runtime.archive import keeper
    from runtime.archive.setup import Identity
    from runtime.cluster.arguments import ClusterSpec
    from runtime.common.errors import UserError

    other = Identity.from_facts({"device": "of another machine"})
    monkeypatch.setattr(keeper.Keeper, "identity", lambda self: other)
    run = run_of(folder, engine, tmp_path, cluster=ClusterSpec(library, "local", 1))
    monkeypatch.setattr("runtime.archive.run.Shelf", _AnyShelf)
    with pytest.raises(UserError, match="every worker must judge alike"):
        judge_shard(run)


class _AnyShelf:
    """A shelf of a run that does not come to its first part."""

    def __init__(self, *_: object) -> None:
        from contextlib import nullcontext

        self.file, self.ours, self.begin = Path(), nullcontext, lambda: None

    def plan(self, items: list[object], size: int, again: bool) -> object:
        from runtime.archive.items import parts_of
        from runtime.archive.shelf import Plan

        return Plan(tuple(parts_of(items, size)), len(items), 0)  # type: ignore[arg-type]


KILLED = {
    "ray": [lambda name: "MapWorker" in name, lambda name: "runtime.archive.child" in name],
    "dask": [lambda name: "multiprocessing.spawn" in name, lambda name: "runtime.archive.child" in name],
}


@pytest.mark.parametrize("library", BOTH)
@pytest.mark.parametrize("which", [0, 1], ids=["the worker", "its process that judges"])
def test_a_worker_that_is_killed_loses_nothing(
    engine: Path, folder: Path, tmp_path: Path, expected: bytes, library: str, which: int
):
    command = Command(folder, engine, tmp_path, f"--{library}", "local", "--workers", "2", "--part-size", "1")
    killed: list[str] = []
    thread = _kill_one(command, tmp_path, KILLED[library][which], killed)
    command.ended()
    thread.join()
    assert killed, "none was found to kill"
    assert (tmp_path / WHOLE).read_bytes() == expected


@needs["dask"]
def test_a_dask_cluster_that_runs_already(engine: Path, folder: Path, tmp_path: Path, expected: bytes):
    with dask_of_two(tmp_path) as address:
        for out in ("one", "two"):  # and goes on running
            told = Command(folder, engine, tmp_path / out, "--dask", address, "--workers", "5").ended()
            assert (tmp_path / out / WHOLE).read_bytes() == expected
            assert "--workers 5 are more than the Dask cluster has: 2 it is" in told


@needs["dask"]
def test_a_dask_cluster_without_workers_is_refused(engine: Path, folder: Path, tmp_path: Path):
    with dask_of_two(tmp_path, workers=0) as address:
        command = Command(folder, engine, tmp_path / "scores", "--dask", address)
        _, errors = command.process.communicate(timeout=LONGEST_S)
    assert command.process.returncode == 2
    assert errors.splitlines()[-1].endswith("must have a worker; found none; dask worker begins one")


@needs["ray"]
def test_a_ray_cluster_that_runs_already_keeps_a_cpu_to_read_with(
    engine: Path, folder: Path, tmp_path: Path, expected: bytes
):
    with ray_of(tmp_path, 2) as address:
        told = Command(folder, engine, tmp_path / "scores", "--ray", address, "--workers", "2").ended()
    assert "--workers 2 would leave Ray no CPU to read with, of its 2: 1 it is" in told
    assert (tmp_path / "scores" / WHOLE).read_bytes() == expected


@needs["ray"]
def test_a_ray_cluster_of_one_cpu_is_refused(engine: Path, folder: Path, tmp_path: Path):
    with ray_of(tmp_path, 1) as address:
        command = Command(folder, engine, tmp_path / "scores", "--ray", address)
        _, errors = command.process.communicate(timeout=LONGEST_S)
    assert command.process.returncode == 2
    assert errors.splitlines()[-1] == "error: Ray needs 2 CPUs, 1 of them to read with; found 1; add a node"
