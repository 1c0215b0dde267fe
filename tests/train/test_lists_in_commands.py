"""Every command that takes `--data` takes a list: train, evaluate, set a threshold, verify, train its classes."""

import json
import shutil
from pathlib import Path

import pytest

from export import verify
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import run_command
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_engine import write_tiny_engine
from train import evaluate, fit, fit_classes, set_threshold
from train.judging.class_table import read_results
from train.synthetic import write_dataset

OPTIONS = ["--encoder", "resnet18", "--taps", "layer1", "--blocks", "1", "--batch", "4", "--weights", "random"]
OPTIONS += ["--meta-epochs", "1", "--sub-epochs", "1", "--learning-rate", "1e-3", "--size", "64"]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a list of two objects whose images lie in folders that say nothing."""
    root = tmp_path_factory.mktemp("lists")
    rows = ["image,label,mask,split,product"]
    for seed, product in enumerate(("cable", "wire")):
        drawn = root / product
        write_dataset(drawn, train=4, test_good=2, per_defect=1, size=64, seed=seed)
        for path in sorted(drawn.rglob("*.png")):
            kind, defect = path.relative_to(drawn).parts[0], path.parent.name
            if kind == "ground_truth":
                continue
            mask = drawn / "ground_truth" / defect / f"{path.stem}_mask.png"
            stated = mask.relative_to(root).as_posix() if mask.is_file() else ""
            rows.append(f"{path.relative_to(root).as_posix()},{defect},{stated},{kind},{product}")
    (root / "parts.csv").write_text("\n".join(rows))
    return root / "parts.csv"


def run(main: object, *arguments: object) -> int:
    return run_command(main, [str(argument) for argument in arguments])  # type: ignore[arg-type]


def test_a_list_is_judged_as_its_folder_is(lists: Path, tmp_path: Path) -> None:
    engine = write_tiny_engine(tmp_path, size=(64, 64))
    for data, name in ((lists / "wire", "list.json"), (lists.parent / "wire", "folder.json")):
        assert run(evaluate.main, engine, "--data", data, "--json", tmp_path / name) == 0
        assert run(set_threshold.main, engine, "--data", data, "--name", name.removesuffix(".json")) == 0
    by_list, by_folder = (json.loads((tmp_path / name).read_text()) for name in ("list.json", "folder.json"))
    assert by_list == by_folder
    figures = by_list[str(engine)]
    assert all(0 <= figures[name] <= 1 for name in ("aupro_5", "aupimo", "seg_f1")) and figures["au_spro"] is None
    thresholds = json.loads(engine.with_suffix(".json").read_text())["thresholds"]
    assert thresholds["list"]["value"] == thresholds["folder"]["value"]


def test_a_list_is_trained_and_verified(lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fit_classes.main, "--data", lists, "--out-dir", tmp_path, "--accept-poor", *OPTIONS) == 0
    results = read_results(tmp_path / "classes.json")
    assert results.keys() == {"cable", "wire"} and not any(result.error for result in results.values())
    header = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("class"))
    assert all(name in header for name in ("AUPRO", "AUPRO-5", "SegF1", "AUPIMO")) and "AU-sPRO" not in header
    assert load_checkpoint(tmp_path / "wire.pt").data_origin == f"{lists.parent.name}/parts/wire"
    shutil.copy(lists, lists.with_name("all.csv"))
    whole = lists.with_name("all.csv")
    assert run(fit.main, "--data", whole, "--out", tmp_path / "all.pt", "--accept-poor", *OPTIONS) == 0
    assert load_checkpoint(tmp_path / "all.pt").data_origin == f"{lists.parent.name}/all"
    assert run(verify.main, tmp_path / "all.pt", "--data", whole) == 0
    assert "labelled images" in capsys.readouterr().out


def test_a_wrong_list_is_said_by_every_command(lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = write_tiny_engine(tmp_path, size=(64, 64))
    good = sorted((lists.parent / "wire/train/good").iterdir())
    checkpoint = write_tiny_checkpoint(tmp_path / "wire.pt", good, (64, 64))
    wrong = lists.with_name("wrong.csv")
    wrong.write_text("image,label,split\nnone.png,good,test\n")
    for main, arguments in (
        (evaluate.main, [engine, "--data", wrong]),
        (set_threshold.main, [engine, "--data", wrong]),
        (verify.main, [checkpoint, "--data", wrong]),
        (fit.main, ["--data", wrong, "--out", tmp_path / "x.pt"]),
    ):
        assert run(main, *arguments) == 2
        said = capsys.readouterr().err.splitlines()
        assert [line for line in said if line.startswith("error: ")] == [said[-1]]
        assert "line 2 of" in said[-1] and "must name a file that is there; found no" in said[-1]
