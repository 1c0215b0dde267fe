"""Lines as processes of their own, and the frames that they are given."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.paths import ROOT
from tests.support.waiting import wait_until


def write_frames(folder: Path, number: int, seed: int, size: tuple[int, int]) -> dict[str, int]:
    """Write `number` pictures of one grey level each, and return the levels by the files' names."""
    folder.mkdir(parents=True)
    levels = np.random.default_rng(seed).integers(0, 256, number)
    names = [f"{place:05}.png" for place in range(number)]
    for name, level in zip(names, levels, strict=True):
        Image.fromarray(np.full((*size, 3), level, np.uint8)).save(folder / name)
    return dict(zip(names, map(int, levels), strict=True))


class LineProcess:
    """`runtime.infer` of a folder's frames, as a process; its JSON lines go into a file."""

    def __init__(self, engine: str, frames: Path, out: Path, *words: str) -> None:
        self._out, self._err = out, out.with_suffix(".err")
        command = [sys.executable, "-m", "runtime.infer", "--engine", engine, "--source", str(frames), "--json", *words]
        with out.open("wb") as stdout, self._err.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has said by now, a whole line each."""
        return [json.loads(line) for line in self._out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def wait_for(self, number: int) -> None:
        """Wait until so many frames were told."""
        wait_until(lambda: len(self.lines()) >= number or self.process.poll() is not None)

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Wait for its end; return its status, its lines and what it said beside."""
        status = self.process.wait(600)
        return status, self.lines(), self._err.read_text()

    def kill(self) -> None:
        """End it at once, where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
