"""Checkpoints of other implementations: what comes out against FrEIA's own flows, and what is refused."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import run_command
from tests.support.foreign_checkpoints import (
    SIDE,
    Foreign,
    IndexedBlock,
    LaterBlock,
    change_reference,
    flow,
    good_images,
    halve,
    lightning_content,
    network,
    resnet,
    save_reference,
    wrap,
)
from train import import_checkpoint
from train.foreign.proof import largest_difference

NAME = f"mvtec_resnet18_freia-cflow_pl2_cb1_inp{SIDE}_run0_cable_2021-10-01-12:30:00.pt"
# float32 on both sides, through a residual network and then two blocks that multiply by up to e^1.9 each
ROUNDING = 1e-3


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    folder = tmp_path_factory.mktemp("images") / "good"
    return folder, good_images(folder)


@pytest.fixture(scope="module")
def trained(good: tuple[Path, Tensor]) -> Foreign:
    model = resnet()
    model.train(good[1])
    return model


@pytest.fixture
def file(trained: Foreign, tmp_path: Path) -> Path:
    return save_reference(trained, tmp_path / NAME)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Yield where to write; a refused import must leave nothing there."""
    yield tmp_path / "out" / "cable.pt"


def convert(file: Path, good: tuple[Path, Tensor], out: Path, *options: str) -> int:
    return run_command(import_checkpoint.main, [str(file), "--good", str(good[0]), "--out", str(out), *options])


def refused(file: Path, good: tuple[Path, Tensor], out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Import, and return the one line that says why not."""
    assert convert(file, good, out, *options) == 2
    assert not out.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def assert_same(out: Path, model: Foreign, images: Tensor) -> ModelConfig:
    """Compare the detector at `out` with the foreign model that it was made of."""
    checkpoint = load_checkpoint(out)
    frames = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    with torch.no_grad():
        maps = checkpoint.model.log_likelihoods(frames)
        expected = model.log_likelihoods(images)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours.flatten(), theirs, rtol=ROUNDING, atol=ROUNDING)
    maxima = torch.stack([theirs.max() for theirs in expected])
    constants = torch.stack([maxima, torch.ones_like(maxima)])  # the paper's score
    torch.testing.assert_close(checkpoint.constants, constants, rtol=ROUNDING, atol=ROUNDING)
    return checkpoint.model.config


def test_a_checkpoint_of_the_reference_gives_the_likelihoods_of_freia(
    trained: Foreign, good: tuple[Path, Tensor], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save_reference(trained, tmp_path / NAME, unread=())  # goes on to layer4
    assert convert(file, good, out) == 0
    assert assert_same(out, trained, good[1]) == ModelConfig(
        "resnet18_reflect", ("layer1", "layer2"), (SIDE, SIDE), coupling_blocks=1, score="paper"
    )
    checkpoint = load_checkpoint(out)
    assert checkpoint.data_origin == "cable"
    assert checkpoint.encoder_weights.startswith(f"reference implementation, {NAME} sha256 ")
    assert "log-likelihoods equal those of the source's weights" in capsys.readouterr().out


def test_a_fork_that_pads_with_zeros_is_told_by_the_likelihood(good: tuple[Path, Tensor], out: Path) -> None:
    model = resnet(reflection=False)
    model.train(good[1])
    assert convert(save_reference(model, out.parent.parent / NAME), good, out) == 0
    assert assert_same(out, model, good[1]).encoder == "resnet18"


def test_the_clamp_of_later_sources_is_told_by_the_likelihood(good: tuple[Path, Tensor], out: Path) -> None:
    model = resnet(block=LaterBlock)
    model.train(good[1])
    file = save_reference(model, out.parent.parent / NAME)
    assert convert(file, good, out) == 0
    assert assert_same(out, model, good[1]).clamp == "tanh(a/c)"


@pytest.mark.parametrize("change", ["DataParallel", "float16"])
def test_other_ways_to_save_the_same_weights(good: tuple[Path, Tensor], out: Path, change: str) -> None:
    model = resnet()
    model.train(good[1])
    file = save_reference(model, out.parent.parent / NAME)
    if change == "DataParallel":
        wrap(file)
    else:
        halve(file, model)
    assert convert(file, good, out) == 0
    assert assert_same(out, model, good[1]).soft_permutation
    assert {value.dtype for value in load_checkpoint(out).model.state_dict().values()} == {torch.float32, torch.int64}


def test_the_hard_permutations_of_later_sources_are_indices(good: tuple[Path, Tensor], out: Path) -> None:
    model = resnet(block=IndexedBlock, soft=False)
    model.train(good[1])
    file = save_reference(model, out.parent.parent / NAME)
    assert torch.load(file)["decoder_state_dict"][0]["module_list.0.w_perm"].dtype == torch.int64
    assert convert(file, good, out) == 0
    config = assert_same(out, model, good[1])
    assert (config.soft_permutation, config.clamp) == (False, "tanh(a/c)")


def test_an_unconditional_flow_on_bare_features_of_stc(good: tuple[Path, Tensor], out: Path) -> None:
    torch.manual_seed(4)
    flows = [flow(channels, conditional=False) for channels in (24, 48, 96)]
    encoder = network(torchvision.models.mobilenet_v3_small, reflection=False)
    taps = ["features.3.block.2.0", "features.8.block.3.0", "features.11.block.3.0"]
    model = Foreign(encoder, taps, flows, conditional=False, norm=((0.5,) * 3, (0.225,) * 3))
    model.train(good[1])
    name = f"stc_mobilenet_v3_small_freia-flow_pl3_cb2_inp{SIDE}_run1_01_2022-01-31-00:00:00.pt"
    assert convert(save_reference(model, out.parent.parent / name), good, out) == 0
    config = assert_same(out, model, good[1])
    assert config == ModelConfig(
        "mobilenet_v3_small",
        ("features3", "features8", "features11"),
        (SIDE, SIDE),
        coupling_blocks=2,
        conditional=False,
        mean=(0.5, 0.5, 0.5),
        std=(0.225, 0.225, 0.225),
        score="paper",
    )


@pytest.fixture(scope="module")
def lightning(good: tuple[Path, Tensor]) -> tuple[Foreign, dict[str, object]]:
    torch.manual_seed(6)
    encoder = network(torchvision.models.resnet18, reflection=False)
    model = Foreign(encoder, ["layer1", "layer2"], [flow(64, soft=False), flow(128, soft=False)])
    model.train(good[1], steps=5)
    content = copy.deepcopy(lightning_content(model))
    steps = content["anomalib_pre_processor_config"]["transform"]["init_args"]["transforms"]
    steps[0]["init_args"]["size"] = [SIDE, SIDE]
    return model, content


def test_a_checkpoint_of_anomalib_gives_the_likelihoods_of_its_flow(
    lightning: tuple[Foreign, dict[str, object]], good: tuple[Path, Tensor], tmp_path: Path, out: Path
) -> None:
    model, content = lightning
    torch.save(content, tmp_path / "model.ckpt")
    assert convert(tmp_path / "model.ckpt", good, out) == 0
    assert assert_same(out, model, good[1]) == ModelConfig(
        "resnet18", ("layer1", "layer2"), (SIDE, SIDE), coupling_blocks=2, soft_permutation=False, score="paper"
    )


def test_anomalibs_clamp_is_known(
    lightning: tuple[Foreign, dict[str, object]],
    good: tuple[Path, Tensor],
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(lightning[1], tmp_path / "model.ckpt")
    error = refused(tmp_path / "model.ckpt", good, out, capsys, "--clamp", "tanh(a/c)")
    assert "tanh(a/c) in the option but tanh(a) in the file" in error


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"clamp_alpha": 2.0}, "clamp_alpha must be 1.9"),
        ({"layers": ["layer1"]}, "the number of taps must be one thing; found 2 in the weights but 1 in the file"),
        ({"backbone": "resnet34"}, "the encoder must be one thing; found resnet18 in the weights but resnet34"),
        ({"coupling_blocks": 8}, "coupling blocks must be one thing; found 2 in the weights but 8 in the file"),
    ],
)
def test_hyper_parameters_that_contradict_the_weights_are_refused(
    changes: dict[str, object],
    complaint: str,
    lightning: tuple[Foreign, dict[str, object]],
    good: tuple[Path, Tensor],
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = dict(lightning[1])
    content["hyper_parameters"] = {**content["hyper_parameters"], **changes}
    torch.save(content, tmp_path / "model.ckpt")
    assert complaint in refused(tmp_path / "model.ckpt", good, out, capsys)


def test_a_cropping_pre_processor_is_refused(
    lightning: tuple[Foreign, dict[str, object]],
    good: tuple[Path, Tensor],
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = copy.deepcopy(lightning[1])
    steps = content["anomalib_pre_processor_config"]["transform"]["init_args"]["transforms"]
    steps.append({"class_path": "torchvision.transforms.v2.CenterCrop", "init_args": {"size": [32, 32]}})
    torch.save(content, tmp_path / "model.ckpt")
    assert "resized and normalised only, as ours are; found CenterCrop" in refused(
        tmp_path / "model.ckpt", good, out, capsys
    )


def test_other_lightning_models_are_refused(
    good: tuple[Path, Tensor], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {"model.memory_bank": torch.zeros(3)}}, tmp_path / "model.ckpt")
    error = refused(tmp_path / "model.ckpt", good, out, capsys)
    assert "as anomalib's Cflow has them; found model.memory_bank" in error


class Malicious:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def test_code_in_a_file_does_not_run(
    file: Path, good: tuple[Path, Tensor], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "it_ran"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "extra": Malicious(eval, f"open({str(mark)!r}, 'w')")}, file)
    assert convert(file, good, out) == 0
    assert "not loaded, not called: builtins.eval" in capsys.readouterr().out
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()  # and would have run


def test_what_is_of_the_operating_system_is_refused(
    file: Path, good: tuple[Path, Tensor], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "it_ran"
    torch.save({"extra": Malicious(os.system, f"touch {mark}")}, file)
    assert "posix.system whose module posix is blocked" in refused(file, good, out, capsys)
    assert not mark.exists()


@pytest.mark.parametrize("content", ["half", "ours", "list", None])
def test_other_files_are_refused(
    content: str | None,
    file: Path,
    good: tuple[Path, Tensor],
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = "must be a checkpoint of the reference implementation or of anomalib's Cflow; found "
    found = {"half": "", "ours": "a file with format, config", "list": "a list", None: "no such file"}[content]
    if content == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif content is None:
        file.unlink()
    else:
        torch.save([1] if content == "list" else {"format": "cflow-edge/checkpoint/1", "config": {}}, file)
    assert expected + found in refused(file, good, out, capsys)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("a decoder less", "the number of taps must be one thing; found 1 in the weights but 2 in the file"),
        ("a weight less", "coupling block 0 must hold 7 weights; found no subnet.2.bias"),
        ("a narrower subnet", "the condition vector must have 128 dimensions or none; found 68"),
        ("a learned permutation", "coupling block 0 must hold 7 weights; found also vk_householder"),
        ("no rotation", "w_perm must be an orthogonal matrix"),
        ("a gap", "coupling blocks must be numbered from 0; found [1]"),
        ("a cut encoder", "whole up to its last tap; found resnet18 with decoders of 64, 128 channels"),
        ("a deeper encoder", "whole up to its last tap; found resnet18 with decoders of 64, 128 channels"),
        ("an index twice", "w_perm must hold every channel's index once"),
        ("a huge stride", "must be matrices of an encoder's channels"),
        ("indices without end", "w_perm must hold every channel's index once"),
        ("not a number", "own weights within 1e-04; found a relative difference of nan"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: str,
    complaint: str,
    file: Path,
    good: tuple[Path, Tensor],
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_reference(file, change)
    assert complaint in refused(file, good, out, capsys, "--clamp", "tanh(a)")


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (NAME, ["--size", "128"], "the input size must be one thing; found (128, 128) in the option but (40, 40)"),
        ("cable.pt", [], "the input size must be known, and this file does not tell; give it by --size"),
        (NAME.replace(f"inp{SIDE}", "inp8"), [], "needs sides above 8 pixels to tap layer2; found 8x8"),
        (NAME.replace("cb1", "cb8"), [], "coupling blocks must be one thing; found 1 in the weights but 8 in the file"),
        (NAME.replace("cflow", "flow"), [], "conditional must be one thing; found True in the weights but False"),
        (NAME.replace("resnet18", "resnet34"), [], "the encoder must be one thing; found resnet18 in the weights"),
    ],
)
def test_contradictions_are_refused(
    name: str,
    options: list[str],
    complaint: str,
    file: Path,
    good: tuple[Path, Tensor],
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert complaint in refused(file.rename(file.with_name(name)), good, out, capsys, *options)


def test_no_good_images_no_constants(file: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "must hold good images" in refused(file, (tmp_path / "empty", torch.empty(0)), out, capsys)


def test_the_proof_sees_one_changed_weight(file: Path, good: tuple[Path, Tensor]) -> None:
    source, _ = import_checkpoint.read_source(file)
    imported = import_checkpoint.import_checkpoint(file, good[0], import_checkpoint.ImportOptions())
    model = imported.checkpoint.model
    frames = (good[1] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert largest_difference(model, source.decoders, frames) < 1e-5
    model.decoders[1].blocks[0].global_offset.data[0, 3] += 0.5
    assert largest_difference(model, source.decoders, frames) > import_checkpoint.TOLERANCE
