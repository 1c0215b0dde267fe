"""Two real processes by torchrun, over gloo on the CPU: one model, trained together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.model.checkpoint import load_checkpoint
from train.processes import one_process
from train.synthetic import write_dataset

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TINY = [
    *("--encoder", "resnet18", "--weights", "random", "--taps", "layer1", "--size", "64", "--blocks", "1"),
    *("--schedule", "fast", "--batch", "4", "--meta-epochs", "2", "--held-out", "0.25"),
]
SCRIPT = """
import sys, torch
from pathlib import Path
from export.model.cflow import CFlow, ModelConfig
from train.flow_gradient import FlowGradient
from train.processes import processes

with processes() as group:
    model = CFlow(ModelConfig("resnet18", ("layer1",), (64, 64), coupling_blocks=2))
    flow = FlowGradient(model.decoders[0], 16, 16)
    flow.parameters += 0.1 * group.rank
    group.broadcast(flow.parameters)
    generator = torch.Generator().manual_seed(0)
    fibers, rows, columns = torch.randn(64, 64, generator=generator), *(torch.arange(64) % 16,) * 2
    def gradient(part):
        logp = flow.log_likelihood(fibers[part], rows[part], columns[part])
        flow.backward(torch.sigmoid(-logp) / -len(logp))
        return flow.gradient
    own = gradient(slice(32 * group.rank, 32 * group.rank + 32)).clone()
    group.average(own)
    torch.save({"averaged": own, "whole": gradient(slice(None)).clone()}, Path(sys.argv[1], f"{group.rank}.pt"))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_one_process_changes_nothing() -> None:
    alone, tensor = one_process(), torch.tensor([1.0, 2.0])
    alone.average(tensor)
    alone.broadcast(tensor)
    assert alone.first and tensor.tolist() == [1.0, 2.0]


def test_the_averaged_gradient_is_that_of_all_fibers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}")
    ended = run(script, tmp_path)
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["averaged"], second["averaged"])
    assert torch.equal(first["whole"], second["whole"])  # both have the first process's parameters
    # float32: the mean of two halves against the whole
    torch.testing.assert_close(first["averaged"], first["whole"], rtol=1e-4, atol=1e-7)


def test_two_processes_train_one_checkpoint(tmp_path: Path) -> None:
    write_dataset(tmp_path / "cables", train=12, test_good=1, per_defect=1, size=64)
    ended = run("-m", "train.fit", "--data", tmp_path / "cables", "--out", tmp_path / "cable.pt", *TINY)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("wrote") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cable.pt", "cables"]
    logps = [entry["held_out_logp"] for entry in load_checkpoint(tmp_path / "cable.pt").history]
    assert len(logps) == 2 and logps[1] > logps[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    count = str(torch.cuda.device_count() + 1)
    command = [*TORCHRUN[:-1], count, "-m", "train.fit", "--data", str(tmp_path), "--out", str(tmp_path / "x.pt")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0 and "GPU per process" in ended.stderr
