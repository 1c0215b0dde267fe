"""The table of seeds runs for real on a tiny set; the memory bank's maps against a plain search."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.common.errors import run_command
from train import benchmark
from train.comparing.memory_bank import MemoryBank, bank_maps
from train.comparing.seeds import SeedRow, format_seeds
from train.data.open import ImageCache, open_dataset
from train.synthetic import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets") / "cable"
    write_dataset(root, train=8, test_good=2, per_defect=1, size=32)
    return root


def test_every_seed_is_trained_judged_and_averaged(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(data), "--taps", "layer1", "--size", "32", "--fast-meta-epochs", "1", "--seeds", "3,5"]
    assert benchmark.main(["seeds", *options]) == 0
    out = capsys.readouterr().out
    assert "resnet18, taps layer1, 32x32, score place_deviation, 1 passes" in out
    table = out[out.index("image AUROC %") :].splitlines()
    names = [re.split(r"  +", line.strip())[0] for line in table[1:5]]
    assert names == ["seed 3", "seed 5", "mean ± deviation of 2", "memory bank (layer1)"]
    assert "CFLOW-AD" in out  # the paper's figures of the class that the folder is named after


@pytest.mark.parametrize("seeds", ["", "one", "1;2", "1,-1"])
def test_seeds_that_are_none_are_one_line(data: Path, seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["seeds", "--data", str(data), "--taps", "layer1", "--size", "32", "--seeds", seeds]
    assert run_command(benchmark.main, options) == 2
    assert "--seed" in capsys.readouterr().err


def test_mean_and_spread_are_those_of_the_rows() -> None:
    rows = [SeedRow(f"seed {i}", figure, None, 50 + figure / 10, 2.0) for i, figure in enumerate((90.0, 92.0, 97.0))]
    bank = SeedRow("memory bank (layer1)", 80.0, None, None, 0.5)
    line = format_seeds(rows, bank).splitlines()[4]
    assert re.split(r"  +", line) == ["mean ± deviation of 3", "93.00 ± 3.61", "-", "59.30 ± 0.36", "2.0"]


def test_a_banks_map_is_the_distance_to_its_nearest_member(data: Path) -> None:
    images = ImageCache([image.path for image in open_dataset(data).test][:2], (32, 32))
    bank = MemoryBank(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), [0.5])

    def encode(frames: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(frames.permute(0, 3, 1, 2).float() / 64, 4)]

    maps, scores = bank_maps(encode, bank, images)
    assert maps.shape == (2, 32, 32)
    for index in range(2):
        smooth = (
            torch.nn.functional.avg_pool2d(encode(torch.from_numpy(images.batch([index])))[0], 3, 1, 1)[0].numpy() / 2
        )
        nearest = [
            min(float(np.linalg.norm(smooth[:, i, j] - member)) for member in bank.members.numpy())
            for i, j in np.ndindex(8, 8)
        ]
        assert scores[index] == pytest.approx(max(nearest), rel=1e-3)
        assert maps[index].max() <= scores[index] * (1 + 1e-6)
