"""The report's side of its workers: a process each (see `runtime.report.worker`), asked one at a time."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.report.models import ModelEntry, ModelFile
from runtime.report.worker import StageMs, Subject

ROOT = Path(__file__).resolve().parents[2]
OWN_MODULE = "runtime.report.worker"
# a torch model is opened by the package that has torch, which this one starts but never imports
MODULES = {"torch": "export.bench.torch_worker"}
# a worker that waits for its turn must not keep a core busy
IDLE_THREADS_SLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
END_S = 10.0


def project_environment() -> dict[str, str]:
    """Return this process's environment with the project's root first among what another Python imports from."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": paths}


class Worker:
    """A process with one model open. Raises `UserError` where the model cannot be opened here.

    `torch_python` is the interpreter for what needs torch, None for this one's own.
    """

    def __init__(self, subject: Subject, module: str | None = None, torch_python: Path | None = None) -> None:
        self.subject = subject
        python = str(torch_python) if torch_python and subject.runner == "torch" else sys.executable
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        self._process = subprocess.Popen(
            [python, "-m", module or MODULES.get(subject.runner, OWN_MODULE), subject.to_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**project_environment(), **IDLE_THREADS_SLEEP},
        )
        try:
            ready = self._receive()
        except BaseException:
            self.close()
            raise
        self.device: str = ready["device"]
        self.engine: str = ready["engine"]
        self.max_batch: int = ready["max_batch"]
        self.paths: list[str] = ready["paths"]
        self.first_verdict_s: float = ready["first_verdict_s"]
        self.memory_mb: float | None = ready["memory_mb"]
        self.device_memory_mb: float | None = ready["device_memory_mb"]
        self.kernels: int | None = ready["kernels"]

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def run(self, path: str, batch: int = 1, warm: int = 1, count: int = 1) -> list[StageMs]:
        """Run `count` times on `batch` frames after `warm` runs that do not count; the milliseconds of each."""
        assert self._process.stdin is not None
        request = {"path": path, "batch": batch, "warm": warm, "count": count}
        with suppress(BrokenPipeError):  # what ended it is told by what it left
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        runs: list[StageMs] = self._receive()["runs"]
        return runs

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            what = ", ".join(Path(path).name for path in self.subject.paths.values()) or self.subject.what
            raise UserError(f"{what} must run", self._last_words() or f"its process ended with {status}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the process; a second call does nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def subjects_of(entry: ModelEntry, base: Subject) -> list[Subject]:
    """Return what must be opened for `entry`, `base` filled in: a subject for each file, torch modules in one."""
    named = {name: file for name, file in (("network", entry.network), ("verdict", entry.verdict)) if file is not None}
    if len({(file.runner, file.path, file.cuda_graph) for file in named.values()}) == 1:
        file = next(iter(named.values()))
        return [_subject(base, entry, file, list(named))]
    return [_subject(base, entry, file, [name]) for name, file in named.items()]


def _subject(base: Subject, entry: ModelEntry, file: ModelFile, timed: list[str]) -> Subject:
    return replace(
        base,
        runner=file.runner,
        paths=dict.fromkeys(timed, str(file.path)),
        input_size=entry.input_size,
        what=file.what,
        features=None if file.features is None else str(file.features),
        input_shape=file.input_shape,
        cuda_graph=file.cuda_graph,
    )
