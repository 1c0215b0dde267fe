"""Checkpoints come back bit for bit, run no code, and are refused in one line when they are something else."""

import errno
import hashlib
import itertools
import json
import math
import os
import pickle
import zipfile
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pytest
import torch

from export.model import tensor_files
from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import Checkpoint, load_checkpoint, network_sha256, save_checkpoint
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import Threshold
from runtime.images.tiles import TileGrid
from tests.support.small_disk import small_disk


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


def test_no_field_of_the_configuration_falls_back_to_its_default(tmp_path: Path) -> None:
    config = ModelConfig(
        "resnet34",
        ("layer2",),
        (64, 96),
        coupling_blocks=1,
        conditional=False,
        soft_permutation=False,
        clamp="tanh(a/c)",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        seed=3,
        score="paper",
        white=4095,
        pooled=("layer2",),
        halved=("layer2",),
        hidden_units=(96,),
        factored=("layer2",),
        tiles=TileGrid((200, 300), (64, 96), 16),
    )
    for field in fields(ModelConfig):
        if field.default is not MISSING:
            assert getattr(config, field.name) != field.default, f"give {field.name} another value than its default"
    thresholds = {"good_quantile": Threshold(0.5, "test")}
    constants = torch.tensor([[-1.25], [0.5]])
    save_checkpoint(
        tmp_path / "cable.pt", Checkpoint(CFlow(config), constants, thresholds, "good_quantile", "", "", "")
    )
    assert load_checkpoint(tmp_path / "cable.pt").model.config == config


def test_a_checkpoint_of_the_first_format_keeps_the_papers_score(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    del content["constants"], content["config"]["score"]
    torch.save({**content, "format": "cflow-edge/checkpoint/1", "maxima": torch.tensor([-1.25])}, saved)
    checkpoint = load_checkpoint(saved)
    assert checkpoint.model.config.score == "paper"
    assert checkpoint.constants.tolist() == [[-1.25], [1.0]]


def test_a_checkpoint_without_the_newer_fields_is_the_detector_that_it_was(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    config = asdict(ModelConfig("resnet18", ("layer1",), (64, 96), coupling_blocks=1, clamp="tanh(a/c)"))
    assert not any(config.pop(name) for name in ("pooled", "halved", "hidden_units", "factored", "tiles"))
    assert config["score"] == "deviation"
    del content["config"]["pooled"]
    assert "halved" not in content["config"]  # so that a release without it reads the paper's form
    torch.save(content, saved)
    checkpoint = load_checkpoint(saved)
    found = checkpoint.model.config
    assert (found.pooled, found.halved, found.hidden_units, found.score) == ((), (), (), "deviation")
    # engines that were built then name their network by this hash, over the fields that there were
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in [*sorted(checkpoint.model.state_dict().items()), ("constants", checkpoint.constants)]:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    assert network_sha256(checkpoint) == digest.hexdigest()


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_a_score_by_tap_needs_its_weights(saved: Path, rows: int) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["score"] = "tap_deviation"
    for count in (rows, 5):
        torch.save({**content, "constants": torch.ones(count, 1)}, saved)
        if count == 5:
            assert load_checkpoint(saved).constants.shape == (5, 1)
        else:
            with pytest.raises(UserError, match="3 weights of each"):
                load_checkpoint(saved)


@pytest.mark.parametrize("places", [None, 0.1, math.nan])
def test_a_score_by_place_needs_the_levels_of_its_places(saved: Path, places: float | None) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["score"] = "place_deviation"
    content["constants"] = torch.ones(5, 2)
    _, height, width = load_checkpoint(saved).model.config.tap_sizes[0]
    content["state"]["place0"] = torch.full((height, width), -0.5)
    torch.save(content, saved)
    loaded = load_checkpoint(saved)
    assert torch.equal(loaded.model.places[0], content["state"]["place0"])
    before = network_sha256(loaded)
    content["state"]["place0"] = torch.full((height, width), -0.4)
    torch.save(content, saved)
    assert network_sha256(load_checkpoint(saved)) != before
    if places is None:
        del content["state"]["place0"]
    else:
        content["state"]["place0"][0, 0] = places
    torch.save(content, saved)
    with pytest.raises(UserError, match="place"):
        load_checkpoint(saved)


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


def test_hidden_units_that_the_state_has_not_are_refused_before_memory_is_taken(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"]["hidden_units"] = (1 << 14,)
    torch.save(content, saved)
    with pytest.raises(UserError, match=r"\[320\] hidden units in the state, not \[16384\]"):
        load_checkpoint(saved)


def test_a_failed_save_leaves_the_earlier_file(saved: Path) -> None:
    before, checkpoint = saved.read_bytes(), load_checkpoint(saved)
    checkpoint.constants = lambda: None  # type: ignore[assignment]
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_checkpoint(saved, checkpoint)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


HOSTILE = {
    "config": [None, [], {"encoder": [], "taps": 1}, {"encoder": "resnet18", "taps": ["layer1"] * 99}],
    "state": [None, [], {1: 2}, {"decoders.0.blocks.0.w_perm": "text"}],
    "constants": [torch.zeros(1).expand(2, 10**12), torch.zeros(0), "text", torch.zeros(2, 1, dtype=torch.complex64)],
    "thresholds": [{}, {"x": None}, {"good_quantile": {"value": 50.0, "method": "x"}}, {1: {"value": 1, "method": ""}}],
    "default_threshold": [None, ["a"], {}],
    "encoder_weights": [None, 1, ["a"], "\ud800"],
    "data_sha256": [None, b"bytes"],
    "data_origin": [None, {}],
    "history": [None, 1, [1], [{"loss": float("nan")}], "abc"],
    "versions": [None, {"torch": 2}, {1: "a"}],
    "format": [None, [], "cflow-edge/checkpoint/9"],
    "maxima": [],
}


@pytest.mark.parametrize("part", HOSTILE)
def test_whatever_a_part_holds_a_checkpoint_loads_or_is_refused(saved: Path, part: str) -> None:
    content = torch.load(saved, weights_only=True)
    for value in HOSTILE[part]:
        torch.save({**content, part: value}, saved)
        with pytest.raises(UserError, match=r"cable\.pt must"):
            load_checkpoint(saved)
    torch.save({key: value for key, value in content.items() if key != part}, saved)
    if part == "maxima":
        torch.save({**content, "format": "cflow-edge/checkpoint/1", part: torch.zeros(1).expand(10**14)}, saved)
    with pytest.raises(UserError, match=r"cable\.pt must"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [("coupling_blocks", 10**9), ("coupling_blocks", 500), ("input_size", (16000, 16000)), ("input_size", (10**9, 1)),
     ("mean", (1.0,)), ("mean", ("a", "b", "c")), ("seed", -1), ("seed", 2**70), ("conditional", "yes"),
     ("encoder", 3)],
)  # fmt: skip
def test_a_structure_that_would_exhaust_the_machine_is_refused_before_it_is_built(
    saved: Path, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(saved, weights_only=True)
    content["config"][key] = value
    torch.save(content, saved)
    monkeypatch.setattr("export.model.checkpoint.CFlow", lambda config: pytest.fail(f"built {config}"))
    with pytest.raises(UserError, match=r"cable\.pt must hold every part"):
        load_checkpoint(saved)


def test_an_archive_whose_parts_claim_more_than_it_holds_is_refused_before_it_is_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = saved.with_name("bomb.pt")
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        target.writestr("archive/data/9999", bytes(50_000_000))
    lying = saved.with_name("lying.pt")
    data = bytearray(saved.read_bytes())
    directory = data.rfind(b"PK\x01\x02")  # its last entry; bytes 24 to 28 are the size that it claims
    data[directory + 24 : directory + 28] = (2**32 - 2).to_bytes(4, "little")
    lying.write_bytes(data)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    for path in (bomb, lying):
        with pytest.raises(UserError, match=r"parts of \d+ bytes in a file of \d+"):
            load_checkpoint(path)


def test_a_full_disk_is_the_disks_error_and_leaves_the_earlier_file(saved: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved)
    with small_disk(tmp_path / "disk", "200k") as disk:
        (disk / "cable.pt").write_text("before")
        with pytest.raises(OSError) as caught:
            save_checkpoint(disk / "cable.pt", checkpoint)
        assert caught.value.errno == errno.ENOSPC
        assert [(path.name, path.read_text()) for path in disk.iterdir()] == [("cable.pt", "before")]


@pytest.mark.parametrize("status", [130, 143])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
def test_a_signal_while_the_file_is_written_ends_as_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch, at: int, status: int
) -> None:
    """Found by killing train.fit: torch.save hides what is raised while it writes behind a RuntimeError."""
    checkpoint, before = load_checkpoint(saved), saved.read_bytes()
    write, calls = tensor_files._Disk.write, itertools.count()

    def meet_a_signal(disk: tensor_files._Disk, data: object) -> int:
        if next(calls) == at:
            os.kill(os.getpid(), status - 128)
        return write(disk, data)

    monkeypatch.setattr(tensor_files._Disk, "write", meet_a_signal)
    assert run_command(lambda _: save_checkpoint(saved, checkpoint)) == status
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_networks_hash_is_that_of_what_judges(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    before = network_sha256(checkpoint)
    checkpoint.thresholds["night"] = Threshold(0.75, "by hand")
    checkpoint.history.append({"loss": 1.0})
    assert network_sha256(checkpoint) == before
    checkpoint.constants[0, 0] += 1e-6
    assert network_sha256(checkpoint) != before
    again = load_checkpoint(saved)
    with torch.no_grad():
        next(again.model.parameters()).view(-1)[0] += 1e-6
    assert network_sha256(again) != before
