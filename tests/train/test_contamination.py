"""Bad images among the good ones: mixed in by the seed, taken out of both test sets, found, and cheap."""

from pathlib import Path

import pytest

from runtime.common.errors import UserError, run_command
from train import benchmark
from train.comparing.contamination import mix
from train.data.open import open_dataset, split_held_out
from train.synthetic import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed") / "cables"
    write_dataset(root, train=40, test_good=6, per_defect=2, size=64)
    return root


def test_bad_images_take_the_place_of_good_ones_and_are_in_no_test_set(data: Path) -> None:
    dataset = open_dataset(data)
    mixed = mix(dataset, 0.05, 3)
    assert len(mixed.bad) == 2 and all("good" not in path.parts for path in mixed.bad)
    assert mixed.clean.train == dataset.train
    assert set(mixed.contaminated.train) - set(dataset.train) == set(mixed.bad)
    assert len(mixed.contaminated.train) == len(dataset.train)
    assert mixed.clean.test == mixed.contaminated.test
    assert {image.path for image in dataset.test} - {image.path for image in mixed.clean.test} == set(mixed.bad)
    assert mix(dataset, 0.05, 3) == mixed != mix(dataset, 0.05, 4)
    splits = [split_held_out(each.train, 0.1, 3)[1] for each in (mixed.clean, mixed.contaminated)]
    assert [a for a, b in zip(*splits, strict=True) if a == b] == [a for a in splits[0] if a in splits[1]]


@pytest.mark.parametrize("share", [0.0, 1.0, 0.9])
def test_what_cannot_be_mixed_is_refused(data: Path, share: float) -> None:
    with pytest.raises(UserError):
        mix(open_dataset(data), share, 0)


def test_the_command_prints_both_rows_and_what_was_lost(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bad", "0.05", "--taps", "layer1,layer2", "--size", "64", "--fast-meta-epochs", "1"]
    status = run_command(benchmark.main, ["robust", "--data", str(data), *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 of 40 training images are bad; fast"
    clean, contaminated = (line.split() for line in lines[2:4])
    assert (clean[0], contaminated[0]) == ("clean", "contaminated")
    assert clean[5] == "0"  # no image that is shown is bad
    lost = float(clean[1]) - float(contaminated[1])
    assert lines[4] == f"image AUROC lost: {lost:.2f} points" or abs(lost - float(lines[4].split()[3])) < 0.02
    assert status == int(lost > 1)
