"""Two real processes by torchrun, over gloo on the CPU: one model, trained together."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from export.model.checkpoint import load_checkpoint
from runtime.common.files import sha256_of
from tests.support.paths import ROOT
from train.data.open import open_dataset
from train.judging.class_table import read_results
from train.loop.processes import one_process
from train.synthetic import write_dataset

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TINY = ["--encoder", "resnet18", "--weights", "random", "--taps", "layer1", "--size", "64", "--blocks", "1"]
TINY += ["--schedule", "fast", "--batch", "4", "--meta-epochs", "2", "--held-out", "0.25"]
ACCEPT = "--accept-poor"  # for what so few passes make
# train.fit as it is, but that every process also tells what it makes of a gradient and what its own model became.
SCRIPT = """
import sys, torch
from pathlib import Path
from export.model.cflow import CFlow, ModelConfig
from train import fit
from train.loop.flow_gradient import FlowGradient

def gradients(group):
    model = CFlow(ModelConfig("resnet18", ("layer1",), (64, 64), coupling_blocks=2))
    flow = FlowGradient(model.decoders[0], 16, 16)
    flow.parameters += 0.1 * group.rank
    group.broadcast(flow.parameters)
    generator = torch.Generator().manual_seed(0)
    fibers, rows, columns = torch.randn(64, 64, generator=generator), *(torch.arange(64) % 16,) * 2
    def gradient(part):
        logp = flow.log_likelihood(fibers[part], rows[part], columns[part])
        flow.backward(torch.sigmoid(-logp) / -len(logp))
        return flow.gradient.clone()
    own = gradient(slice(32 * group.rank, 32 * group.rank + 32))
    group.average(own)
    return {"averaged": own, "whole": gradient(slice(None)), "agreed": group.agree(lambda: [group.rank, None])}

def fit_and_tell(*arguments, group, **options):
    checkpoint = train(*arguments, group=group, **options)
    content = {**gradients(group), "trained": checkpoint.model.state_dict()}
    torch.save(content, Path(sys.argv[1], f"{group.rank}.pt"))
    return checkpoint

train, fit.fit = fit.fit, fit_and_tell
sys.exit(fit.run_command(fit.main, sys.argv[2:]))
"""


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run two processes to their end."""
    return subprocess.run([*TORCHRUN, "2", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where two processes trained one model."""
    folder = tmp_path_factory.mktemp("processes")
    write_dataset(folder / "data/wire", train=12, test_good=2, per_defect=1, size=64)
    script = folder / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}")
    ended = torchrun(script, folder, "--data", folder / "data/wire", "--out", folder / "one/wire.pt", *TINY, ACCEPT)
    assert ended.returncode == 0, ended.stderr
    (folder / "out.txt").write_text(ended.stdout)
    return folder


def found(folder: Path) -> list[dict[str, Any]]:
    """Return what each process found."""
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_one_process_changes_nothing() -> None:
    alone, tensor = one_process(), torch.tensor([1.0, 2.0])
    alone.average(tensor)
    alone.broadcast(tensor)
    assert alone.first and tensor.tolist() == [1.0, 2.0]
    assert alone.agree(lambda: "a value") == "a value"


@pytest.mark.slow
def test_the_averaged_gradient_is_that_of_all_fibers(folder: Path) -> None:
    first, second = found(folder)
    assert first["agreed"] == second["agreed"] == [0, None]
    assert torch.equal(first["averaged"], second["averaged"])
    assert torch.equal(first["whole"], second["whole"])  # both have the first process's parameters
    # float32: the mean of two halves against the whole
    torch.testing.assert_close(first["averaged"], first["whole"], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_two_processes_train_one_checkpoint(folder: Path) -> None:
    first, second = (process["trained"] for process in found(folder))
    assert sorted(path.name for path in (folder / "one").iterdir()) == ["wire.pt", "wire.suspects.jpg"]
    checkpoint = load_checkpoint(folder / "one/wire.pt")
    written = checkpoint.model.state_dict()
    for name, value in written.items():
        assert torch.equal(first[name], value) and torch.equal(second[name], value), name
    logps = [entry["held_out_logp"] for entry in checkpoint.history]
    assert len(logps) == 2 and logps[1] > logps[0]
    assert (folder / "out.txt").read_text().count("wrote") == 1


@pytest.mark.slow
def test_two_processes_go_back_together_from_a_pass_that_went_wrong(folder: Path, tmp_path: Path) -> None:
    more = ["--learning-rate", "3", "--meta-epochs", "6"]
    ended = torchrun(
        folder / "script.py",
        tmp_path,
        "--data",
        folder / "data/wire",
        "--out",
        tmp_path / "wire.pt",
        *TINY,
        *more,
        ACCEPT,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("pass 1 went wrong: layer1 fell from") == 1
    first, second = (process["trained"] for process in found(tmp_path))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_two_processes_train_class_after_class(folder: Path, tmp_path: Path) -> None:
    """What is wrong before training is told once, and the next class is trained and evaluated."""
    broken = folder / "data/broken/train/good/0.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    torch.save({"format": "another"}, tmp_path / "broken.pt")
    ended = torchrun("-m", "train.fit_classes", "--data", folder / "data", "--out-dir", tmp_path, *TINY)
    assert ended.returncode != 0  # as without torchrun if a class failed
    assert ended.stderr.count("broken: ") == ended.stderr.count("error: every class must train") == 1
    results = read_results(tmp_path / "classes.json")
    assert "must be a file of format" in results["broken"].error
    assert not results["wire"].error
    assert results["wire"].figures["images"] == len(open_dataset(folder / "data/wire").test)
    assert results["wire"].checkpoint_sha256 == sha256_of(tmp_path / "wire.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.pt",
        "classes.json",
        "wire.pt",
        "wire.suspects.jpg",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    count = str(torch.cuda.device_count() + 1)
    command = [*TORCHRUN, count, "-m", "train.fit", "--data", str(tmp_path), "--out", str(tmp_path / "x.pt")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0 and "GPU per process" in ended.stderr
