"""The page's own process: it may die or hang and the inspection goes on, and it never outlives the inspection."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.serve.address import Address
from runtime.serve.server import ServeOptions, Server
from tests.support.paths import ROOT
from tests.support.serve_rig import TOKEN, Rig, plain, serving, until
from tests.support.tiny_engine import write_tiny_engine


def _health(rig: Rig) -> int:
    try:
        return rig.ask("/health").status
    except OSError:
        return 0


def test_a_page_that_dies_is_started_again_and_knows_everything(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with serving(tmp_path, TOKEN) as rig:
        known = {"Authorization": f"Bearer {TOKEN}"}
        judged = [rig.judge(level) for level in (30, 60)]
        before = rig.state(**known)
        first = rig.server.process
        first.kill()
        judged.append(rig.judge(200))  # the inspection does not notice
        until(lambda: rig.server.process is not first and _health(rig) == 200, 30)
        after = rig.state(**known)
        assert after["run"] == before["run"] and len(before["points"]) == 2
        assert [row[3] for row in after["points"]] == [j.result.image_score for j in judged]
        assert b'cflow_page_errors_total{kind="process"} 1.0' in rig.ask("/metrics", **known).body
    assert "the page's process ended with status -9, and is started again" in capfd.readouterr().err


def test_an_inspection_that_hangs_is_told_to_the_watchdog(tmp_path: Path):
    with serving(tmp_path, health_after_s=1000.0) as rig:
        rig.judge(30)
        until(lambda: _health(rig) == 200)
        with rig.server._sending:  # no answer leaves the inspection any more
            answer = rig.ask("/health")
            assert answer.status == 503 and answer.json()["reason"] == "the inspection does not answer"
            assert rig.ask("/api/state").status == 503 and rig.ask("/page.css").status == 200
        until(lambda: _health(rig) == 200)


def test_the_page_gives_way_and_holds_no_lock_of_the_inspection(tmp_path: Path):
    with serving(tmp_path) as rig:
        page = rig.server.process.pid
        assert os.getpriority(os.PRIO_PROCESS, page) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
        assert os.getsid(page) == os.getsid(0)  # or the kernel would weigh it like the inspection
        os.kill(page, signal.SIGSTOP)  # a page that does nothing at all
        try:
            for level in range(50):
                rig.judge(level)
            assert rig.server.history.counts()["good"] == 50
        finally:
            os.kill(page, signal.SIGCONT)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_page_ends_with_the_inspection(tmp_path: Path, end: signal.Signals):
    engine = write_tiny_engine(tmp_path)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((32, 48, 3), 30, np.uint8)).save(tmp_path / "in" / "a.png")
    command = [sys.executable, "-m", "runtime.infer", "--engine", engine, "--source", f"watch:{tmp_path / 'in'}"]
    process = subprocess.Popen(
        [*map(str, command), "--serve", "0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    until(lambda: re.match("page: ", process.stderr.readline()), 30)
    page = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    time.sleep(0.5)
    if end == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, end)  # as a terminal and systemd do: to all of them
    said = process.stderr.read()
    assert process.wait(120) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[end]
    until(lambda: not Path(f"/proc/{page}").exists() or "\nState:\tZ" in Path(f"/proc/{page}/status").read_text())
    assert "Traceback" not in said and said.count("interrupted") <= 1 and "page's process" not in said


def test_a_port_that_is_let_go_in_a_moment_is_waited_for(tmp_path: Path):
    """As that of a run that was killed, whose page has not ended yet."""
    held = socket.create_server(("127.0.0.1", 0))
    address = Address("127.0.0.1", held.getsockname()[1])
    threading.Timer(0.5, held.close).start()
    engine = write_tiny_engine(tmp_path)
    with runtime.load(engine) as detector, Server(ServeOptions(address), plain(detector, engine)) as server:
        assert server.address == address
