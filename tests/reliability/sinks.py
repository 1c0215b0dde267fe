"""Sinks that are dead, slow or hang: the inspection goes on, and the healthy sink beside them gets every verdict."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime import infer
from runtime.common.errors import run_command
from tests.reliability.forks import finish, last_line, open_streams, start
from tests.reliability.result import Result, Scale
from tests.reliability.surroundings import broker, forked_webhook, free_port
from tests.reliability.victims import pictures
from tests.support.tiny_engine import write_tiny_engine

FRAMES = 60
ENDED = {0, 1}  # all delivered, or said that it is not
Words = list[object]


@contextlib.contextmanager
def _gone(folder: Path) -> Iterator[Words]:
    yield ["--webhook", f"http://127.0.0.1:{free_port()}/x", "--webhook-all"]


def _webhook(after_s: float | None) -> Callable[[Path], contextlib.AbstractContextManager[Words]]:
    @contextlib.contextmanager
    def opened(folder: Path) -> Iterator[Words]:
        with forked_webhook(folder, after_s) as url:
            yield ["--webhook", url, "--webhook-all"]

    return opened


@contextlib.contextmanager
def _no_broker(folder: Path) -> Iterator[Words]:
    yield ["--mqtt", f"mqtt://127.0.0.1:{free_port()}/line1"]


@contextlib.contextmanager
def _stopped_broker(folder: Path) -> Iterator[Words]:
    with broker(folder) as found:
        if found is not None:
            os.kill(found[1].pid, signal.SIGSTOP)  # it listens, and says nothing
        yield ["--mqtt", found[0] if found else f"mqtt://127.0.0.1:{free_port()}/line1"]


@contextlib.contextmanager
def _unread_pipe(folder: Path) -> Iterator[Words]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 4096)
    os.set_blocking(writing, True)
    try:
        yield ["--json", writing]  # the number stands for what stdout becomes
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def _closed_pipe(folder: Path) -> Iterator[Words]:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield ["--json", writing]
    finally:
        os.close(writing)


SICK: dict[str, Callable[[Path], contextlib.AbstractContextManager[Words]]] = {
    "webhook: nobody listens": _gone,
    "webhook: never answers": _webhook(None),
    "webhook: answers after 0.3 s": _webhook(0.3),
    "MQTT: no broker": _no_broker,
    "MQTT: a broker that was stopped": _stopped_broker,
    "stdout: a pipe that nobody reads": _unread_pipe,
    "stdout: a pipe that was closed": _closed_pipe,
}


def _inspect(folder: Path, words: Words) -> int:
    """Start an inspection with a sick sink and return its process."""
    stdout = words.pop() if words[0] == "--json" else None
    engine, out = write_tiny_engine(folder), folder / "out"
    command = ["--engine", engine, "--source", pictures(folder / "line", FRAMES), "--threads", 1, "--output", out]

    def work() -> int:
        if stdout is not None:
            os.dup2(int(str(stdout)), 1)
            open_streams()
        return run_command(infer.main, [str(word) for word in [*command, *words]])

    return start(work, folder / "said")


def _missing(folder: Path) -> int:
    """Return how many frames the healthy sinks have not."""
    file = folder / "out" / "frames.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    drawn = list((folder / "out" / "overlays").glob("*.png"))
    return max(FRAMES - len({json.loads(line)["name"] for line in lines}), FRAMES - len(drawn))


def run(scale: Scale) -> list[Result]:
    """Run an inspection beside each sick sink, all at the same time."""
    results = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        running = {}
        for number, (name, sick) in enumerate(SICK.items()):
            folder = Path(temporary, str(number))
            folder.mkdir()
            running[name] = (folder, _inspect(folder, stack.enter_context(sick(folder))))
        for name, (folder, pid) in running.items():
            status = finish(pid)
            missing = _missing(folder)
            wrong = missing + (status not in ENDED)
            said = f"ended with {status}: {last_line(folder / 'said')}"
            details = f"all {FRAMES} verdicts on the healthy sinks; {said}" if not wrong else said
            results.append(Result("sinks", name, FRAMES, wrong, details[:160]))
    return results


if __name__ == "__main__":
    for result in run(Scale("short" in sys.argv, 0, 0, 0, 0)):
        print(result)
