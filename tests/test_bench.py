"""The bench runs: each case, in this checkout beside itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from export import build_engine
from tests.bench.cases import CASES, labelled
from tests.support.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    labelled(folder)
    good = sorted((folder / "test" / "good").iterdir())
    checkpoint = write_tiny_checkpoint(folder / "cable.pt", good, (96, 96))
    build_engine.main([str(checkpoint), "--no-plan"])
    return checkpoint.with_suffix(".onnx")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_case_runs_in_both_checkouts(case: str, engine: Path) -> None:
    with_engine = [f"--engine={engine}"] if CASES[case].engine else []
    command = [sys.executable, "-m", "tests.bench", case, f"--against={ROOT}", "--rounds=1", *with_engine]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines() if line.split()[:1] == [case]]
    assert rows and all(float(word) > 0 for row in rows for word in row[-3:]), run.stdout
