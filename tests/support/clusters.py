"""Real clusters of this machine, as others would start them: a scheduler and workers in processes of their own."""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.waiting import LONGEST_S, wait_until

TOKEN = secrets.token_hex(32)  # of this run's own clusters
RAY_S = 3 * LONGEST_S  # a dozen processes, on a machine with much else to do
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """Return one in which other processes find this checkout."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **ray}


@contextlib.contextmanager
def _ending(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _started(words: list[str], log: Path) -> "subprocess.Popen[str]":
    with log.open("w") as file:
        return subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=ROOT, start_new_session=True
        )


@contextlib.contextmanager
def dask_of_two(folder: Path, workers: int = 2) -> Iterator[str]:
    """Yield the address of a Dask scheduler with so many workers."""
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    words = [*module, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with _ending(_started(words, folder / "scheduler.log")):
        found: list[str] = []

        def address() -> bool:
            found[:] = re.findall(r"Scheduler at: +(tcp://127\.0\.0\.1:\d+)", (folder / "scheduler.log").read_text())
            return bool(found)

        wait_until(address, "no scheduler")
        with contextlib.ExitStack() as stack:
            for number in range(workers):
                module = [sys.executable, "-m", "distributed.cli.dask_worker", found[0]]
                words = [*module, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
                stack.enter_context(_ending(_started(words, folder / f"worker{number}.log")))
            if workers:
                from distributed import Client

                with Client(found[0], set_as_default=False) as client:
                    client.wait_for_workers(workers, timeout=LONGEST_S)
            yield found[0]


@contextlib.contextmanager
def ray_of(folder: Path, cpus: int) -> Iterator[str]:
    """Yield the address of a Ray head of so many CPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"]
    words += ["--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats"]
    log = folder / "ray.log"
    with _ending(_started(words, log)) as head:
        deadline = time.monotonic() + RAY_S
        while not (found := re.search(rf"ray start --address='(\S+:{port})'", log.read_text())):
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found[1]


def children_of(pid: int) -> list[int]:
    """Return all processes below a process."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def command_of(pid: int) -> str:
    """Return how a process was started, or what it calls itself; nothing for one that has gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
