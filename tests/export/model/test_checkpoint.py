"""Checkpoints come back bit for bit, run no code, and are refused in one line when they are something else."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = CFlow(ModelConfig("resnet18", ("layer1",), (64, 96), coupling_blocks=1, clamp="tanh(a/c)"))
    thresholds = {"good_quantile": Threshold(0.5, "test")}
    history = [{"pass": 1.0, "loss": 0.5, "held_out_logp": -1.0}]
    checkpoint = Checkpoint(
        model, torch.tensor([[-1.25], [0.5]]), thresholds, "good_quantile", "random, seed 0", "ab", "here", history
    )
    save_checkpoint(tmp_path / "cable.pt", checkpoint)
    return tmp_path / "cable.pt"


def test_a_round_trip_rebuilds_everything(saved: Path) -> None:
    first, again = load_checkpoint(saved), load_checkpoint(saved)
    assert first.model.config == ModelConfig("resnet18", ("layer1",), (64, 96), coupling_blocks=1, clamp="tanh(a/c)")
    assert (first.thresholds, first.data_origin, first.history) == (again.thresholds, "here", again.history)
    assert first.constants.tolist() == [[-1.25], [0.5]]
    written = torch.load(saved, weights_only=True)["state"]
    assert all(torch.equal(value, written[key]) for key, value in first.model.state_dict().items())
    assert not any("w_perm_inv" in key for key in written)


def test_a_checkpoint_of_the_first_format_keeps_the_papers_score(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    del content["constants"], content["config"]["score"]
    torch.save({**content, "format": "cflow-edge/checkpoint/1", "maxima": torch.tensor([-1.25])}, saved)
    checkpoint = load_checkpoint(saved)
    assert checkpoint.model.config.score == "paper"
    assert checkpoint.constants.tolist() == [[-1.25], [1.0]]


class Harmful:
    def __reduce__(self):
        return os.mkdir, (str(Harmful.mark),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    Harmful.mark = tmp_path / "was_run"
    with (tmp_path / "cable.pt").open("wb") as file:
        pickle.dump({"format": "cflow-edge/checkpoint/2", "config": Harmful()}, file)
    with pytest.raises(UserError, match="must be a file of format"):
        load_checkpoint(tmp_path / "cable.pt")
    assert not Harmful.mark.exists()


def test_other_and_broken_files_are_refused(saved: Path) -> None:
    folder, content = saved.parent, torch.load(saved, weights_only=True)
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(folder / "none.pt")
    (folder / "cut.pt").write_bytes(saved.read_bytes()[:5000])
    torch.save({"state_dict": {}}, folder / "other.pt")
    torch.save([1], folder / "list.pt")
    for name in ("cut.pt", "other.pt", "list.pt"):
        with pytest.raises(UserError, match="cflow-edge/checkpoint/2"):
            load_checkpoint(folder / name)
    del content["state"]["decoders.0.blocks.0.w_perm"]
    torch.save(content, folder / "missing.pt")
    with pytest.raises(UserError, match="every part"):
        load_checkpoint(folder / "missing.pt")


@pytest.mark.parametrize(
    ("part", "value", "found"),
    [
        ("constants", torch.ones(2, 2), "constants must be 1 finite"),
        ("constants", torch.tensor([[float("nan")], [1.0]]), "constants must be 1 finite"),
        ("constants", torch.zeros(2, 1), "constants must be 1 finite"),  # a spread of 0
        ("constants", None, "NoneType"),
        ("default_threshold", "best_f1", "no threshold 'best_f1'"),
        ("thresholds", [], "list"),
        ("thresholds", {"good_quantile": {"value": 1.0}}, "method"),
        ("state", {}, "Missing key"),
        ("config", {"encoder": "resnet18"}, "taps"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(saved: Path, part: str, value: object, found: str) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save({**content, part: value}, saved)
    with pytest.raises(UserError, match=f"every part of .*{found}") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("clamp", "tanh"), ("coupling_blocks", 0), ("taps", ["layer9"])])
def test_a_structure_that_cannot_be_built_is_refused(saved: Path, key: str, value: object) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"][key] = value
    torch.save(content, saved)
    with pytest.raises(UserError, match="must be"):
        load_checkpoint(saved)


def test_a_failed_save_leaves_the_earlier_file(saved: Path) -> None:
    before, checkpoint = saved.read_bytes(), load_checkpoint(saved)
    checkpoint.history.append({"unpicklable": lambda: None})  # type: ignore[dict-item]
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_checkpoint(saved, checkpoint)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
