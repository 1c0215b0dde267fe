"""What the console does to an inspection when nobody takes its lines: nothing."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.sinks.console import ConsoleSink
from runtime.sinks.delivery import Delivery
from tests.support.judgements import judgement
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

FRAMES = 600  # their lines are more than a pipe of a page and the console's queue hold
IMPATIENT = (
    "import sys; from runtime import infer, line; from runtime.common.errors import run_command;"
    "line.PATIENCE_S = 0.1; sys.exit(run_command(infer.main))"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (24, 36, 3), np.uint8)).save(folder / "0000.png")
    for i in range(1, FRAMES):
        os.link(folder / "0000.png", folder / f"{i:04d}.png")
    return folder


Program = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def infer(engine: Path, images: Path) -> Program:
    def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", IMPATIENT, "--engine", engine, "--source", images, *arguments]
        return subprocess.Popen([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]

    return start


@contextlib.contextmanager
def _pipe(read: bool) -> Iterator[int]:
    """The end to write to of a pipe of one page whose reader has gone or, with `read`, stands still."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    if not read:
        os.close(reader)
    yield writer
    os.close(writer)
    if read:
        os.close(reader)


def _lines(folder: Path) -> int:
    path = folder / "frames.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_full_disk_behind_stdout_does_not_end_the_inspection(infer: Program, tmp_path: Path):
    with Path("/dev/full").open("wb") as full:
        child = infer("--output", tmp_path / "out", "--no-overlays", stdout=full, stderr=subprocess.PIPE)
        _, error = child.communicate(timeout=120)
    assert child.returncode == 1 and _lines(tmp_path / "out") == FRAMES
    assert b"console: cannot deliver: No space left on device (stdout) (counted, the inspection goes on)\n" in error
    assert f"console: 0 delivered, 0 lost, {FRAMES} failed".encode() in error


def test_a_reader_of_stdout_that_has_gone_does_not_end_what_has_other_outputs(infer: Program, tmp_path: Path):
    with _pipe(read=False) as gone:
        child = infer("--output", tmp_path / "out", "--no-overlays", stdout=gone, stderr=subprocess.PIPE)
        _, error = child.communicate(timeout=120)
    assert child.returncode == 1 and _lines(tmp_path / "out") == FRAMES
    assert b"console: 0 delivered, 0 lost, 600 failed (Broken pipe)" in error


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_without_other_outputs_it_ends_as_any_program_does_whose_reader_has_gone(infer: Program, options: list[str]):
    child = infer(*options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    assert b"0000.png" in child.stdout.readline()
    child.stdout.close()  # as `| head -1` does
    assert child.stderr.read() == b"" and child.wait(120) == 141
    child.stderr.close()


def test_readers_that_stand_still_do_not_stop_the_inspection(infer: Program, tmp_path: Path):
    with _pipe(read=True) as out, _pipe(read=True) as error:
        # a sink that cannot deliver, so that there is something to say on stderr
        child = infer("--output", tmp_path / "out", "--no-overlays", "--webhook", "http://127.0.0.1:9/",
                      "--webhook-all", stdout=out, stderr=error)  # fmt: skip
        wait_until(lambda: _lines(tmp_path / "out") == FRAMES, "the console held the inspection up")
        child.kill()
        child.wait(120)


def test_a_log_that_has_gone_ends_nothing(infer: Program, tmp_path: Path):
    with _pipe(read=False) as gone:
        child = infer("--output", tmp_path, "--no-overlays", "--json-file", "/dev/full", stdout=subprocess.PIPE,
                      stderr=gone)  # fmt: skip
        out, _ = child.communicate(timeout=120)
    assert child.returncode == 1 and _lines(tmp_path) == FRAMES and b"600 frames: " in out


def test_a_program_started_without_stderr_writes_nothing_of_it_elsewhere(infer: Program):
    child = infer("--json", stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0 and [json.loads(line)["frame"] for line in out.splitlines()] == list(range(FRAMES))


def test_a_failing_log_ends_neither_offers_nor_the_thread_of_a_sink(tmp_path: Path):
    class Failing(ConsoleSink):
        trouble = True

        def write(self, judgement: object) -> None:
            if self.trouble:
                raise OSError("no")

    def say(line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    sink = Failing()
    delivery = Delivery(sink, say=say)
    delivery.offer(judgement())
    wait_until(lambda: delivery.counts().failed == 1)
    sink.trouble = False
    delivery.offer(judgement())
    wait_until(lambda: delivery.counts().delivered == 1)
    delivery.close()
    delivery.offer(judgement())  # lost, and what cannot be said is not said
    assert delivery.counts().lost == 1
