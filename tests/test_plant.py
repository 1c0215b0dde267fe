"""A plant: the real Triton server, the lines that it judges for, and a pool that judges an archive beside them.

The server is killed once, and no verdict is wrong.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import runtime
from export import triton
from tests.support.paths import ROOT
from tests.support.plant import LineProcess, write_frames
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triton_server import Triton

FRAMES, SIZE = 3000, (96, 128)
BEFORE = 150  # frames that each line has told when the server is killed


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def right_verdicts(engine: Path, levels: dict[str, int]) -> dict[str, tuple[str, float]]:
    """Return what the engine's file says of each frame here: its verdict and its score."""
    with runtime.load(engine, threads=1, backend="onnxruntime") as local:
        by_level = {level: local(np.full((*SIZE, 3), level, np.uint8)) for level in set(levels.values())}
    return {name: (by_level[level].verdict, by_level[level].image_score) for name, level in levels.items()}


def check_line(lines: list[dict[str, Any]], right: dict[str, tuple[str, float]]) -> int:
    """Each frame must have been told once, in order, with its right verdict and score or none; return how many none."""
    assert [line["name"] for line in lines] == sorted(right)
    for line, name in zip(lines, sorted(right), strict=True):
        verdict, score = right[name]
        if line["verdict"] == "none":
            assert line["reason"] and line["score"] is None, line
        else:
            assert (line["verdict"], line["score"]) == (verdict, score), line
    return sum(line["verdict"] == "none" for line in lines)


def judge_archive(engine: Path, frames: Path, scores: Path) -> "subprocess.Popen[bytes]":
    """Begin to judge a folder by a pool of two."""
    words = ["--engine", str(engine), "--out", str(scores), "--workers", "2", "--backend", "onnxruntime"]
    return subprocess.Popen([sys.executable, "-m", "runtime.judge", str(frames), *words], cwd=ROOT)


def check_archive(scores: Path, right: dict[str, tuple[str, float]]) -> None:
    """Each image of an archive must have one row, with its right verdict and score."""
    from pyarrow import parquet

    rows = parquet.read_table(scores).to_pylist()
    assert {row["name"]: (row["verdict"], row["score"]) for row in rows} == right and len(rows) == len(right)


@pytest.mark.slow
def test_a_server_that_is_killed_once_leaves_each_frame_its_right_verdict_or_none(tmp_path: Path, stack: ExitStack):
    engine = write_tiny_engine(tmp_path, "cable", size=(64, 96))
    models = tmp_path / "models"
    triton.main([str(models), str(engine), "--backend", "python", "--instances", "2"])
    server = stack.enter_context(Triton(models, tmp_path).running())
    addresses = (f"grpc://127.0.0.1:{server.grpc}/cable", f"http://127.0.0.1:{server.http}/cable")
    levels = [write_frames(tmp_path / f"frames{place}", FRAMES, place, SIZE) for place in range(len(addresses))]
    right = [right_verdicts(engine, one) for one in levels]
    options = ["--server-deadline", "1000", "--server-wait", "120"]
    running = []
    for place, address in enumerate(addresses):
        running.append(LineProcess(address, tmp_path / f"frames{place}", tmp_path / f"line{place}.jsonl", *options))
        stack.callback(running[-1].kill)
    pool = judge_archive(engine, tmp_path / "frames0", tmp_path / "scores")
    stack.callback(pool.kill)
    for line in running:
        line.wait_for(BEFORE)
        assert line.process.poll() is None, line.end()
    server.kill()
    told = [len(line.lines()) for line in running]
    for line, number in zip(running, told, strict=True):
        line.wait_for(number + 4)  # beyond what was under way: at least one had no server
    server.start()
    for line, verdicts in zip(running, right, strict=True):
        status, lines, said = line.end()
        without = check_line(lines, verdicts)
        assert 0 < without < FRAMES // 2 and status == 1, (status, without, said)
        assert lines[-1]["verdict"] != "none" and "no verdicts:" in said and "judges again" in said
    assert pool.wait(600) == 0
    check_archive(next((tmp_path / "scores").glob("*.parquet")), right[0])
