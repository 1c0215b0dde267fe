"""Encoders against hooks on torchvision's whole networks, and their weights' every source."""

import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from export.model.cflow import ModelConfig
from export.model.encoder import (
    ENCODERS,
    REFLECT,
    build_encoder,
    calibrate_batch_norm,
    check_size,
    check_taps,
    load_encoder_state,
    load_encoder_weights,
)
from runtime.common.errors import UserError, run_command
from tests.support.foreign_checkpoints import good_images, network
from tests.support.paths import SHARED
from train import fit

SHARED_WEIGHTS = SHARED / "weights/resnet18_in1k_conv1-layer3_bnfolded.pth"
MODULES = {
    "mobilenet_v3_small": {
        "features3": "features.3.block.2.0",  # no squeeze-and-excitation in this block
        "features8": "features.8.block.3.0",
        "features11": "features.11.block.3.0",
    },
    "mobilenet_v3_large": {
        "features6": "features.6.block.3.0",
        "features12": "features.12.block.3.0",
        "features15": "features.15.block.3.0",
    },
    "efficientnet_b5": {
        "features3": "features.3.4.block.3.1",
        "features5": "features.5.6.block.3.1",
        "features6": "features.6.8.block.3.1",
    },
}


WIDE = ("resnext50_32x4d", "wide_resnet50_2")  # built as resnet50 is; drawing their weights takes seconds
ZERO_PADDED = [name for name in ENCODERS if not name.endswith(REFLECT)]
OF_TORCHVISION = [name for name in ZERO_PADDED if "lite" not in name]  # the others: test_efficientnet_lite.py


def whole_network(name: str, *, reflection: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        whole = network(ENCODERS[name].build, reflection=reflection)
        for module in whole.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return whole


def empty_encoder(name: str, taps: tuple[str, ...]) -> nn.Module:
    """Build an encoder without drawing weights, which takes longer than running it."""
    with torch.device("meta"):
        encoder = build_encoder(name, taps)
    return encoder.to_empty(device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in OF_TORCHVISION if name not in WIDE),
        "resnet18_reflect",
        *(pytest.param(name, marks=pytest.mark.slow) for name in WIDE),
    ],
)
def test_taps_equal_hooks_on_the_whole_network(name: str) -> None:
    whole = whole_network(name.removesuffix(REFLECT), reflection=name.endswith(REFLECT))
    taps = check_taps(name, ())
    encoder = empty_encoder(name, taps)
    load_encoder_state(encoder, whole.state_dict(), name)
    seen: dict[str, torch.Tensor] = {}
    for tap in taps:
        module = whole.get_submodule(MODULES.get(name, {}).get(tap, tap))
        module.register_forward_hook(lambda _m, _i, output, tap=tap: seen.__setitem__(tap, output.clone()))
    for size in ((64, 96), (33, 50)):  # the second is no multiple of any stride
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            whole(images)
            outputs = encoder(images)
        assert all(torch.equal(output, seen[tap]) for tap, output in zip(taps, outputs, strict=True))
        assert [tuple(output.shape[1:]) for output in outputs] == ModelConfig(name, taps, size).tap_sizes


def test_nothing_past_the_last_tap_is_kept() -> None:
    keys = empty_encoder("resnet18", ("layer1", "layer2")).state_dict()
    assert any(key.startswith("layer2") for key in keys)
    assert not any(key.startswith(("layer3", "layer4", "fc")) for key in keys)
    mobile = empty_encoder("mobilenet_v3_large", check_taps("mobilenet_v3_large", ())).state_dict()
    assert not any(key.startswith("features.16") for key in mobile)


def test_a_state_dict_must_reach_the_last_tap(tmp_path: Path) -> None:
    state = {k: v for k, v in whole_network("resnet18").state_dict().items() if not k.startswith("layer4")}
    torch.save(state, tmp_path / "cut.pth")
    load_encoder_weights(empty_encoder("resnet18", ("layer3",)), "resnet18", str(tmp_path / "cut.pth"))
    with pytest.raises(UserError, match="up to the last tap"):
        load_encoder_weights(empty_encoder("resnet18", ("layer4",)), "resnet18", str(tmp_path / "cut.pth"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if content is not None else torch.save([1, 2], path)
    with pytest.raises(UserError, match="state dict"):
        load_encoder_weights(empty_encoder("resnet18", ("layer1",)), "resnet18", str(path))
    with pytest.raises(UserError, match="no file"):
        load_encoder_weights(empty_encoder("resnet18", ("layer1",)), "resnet18", str(tmp_path / "none.pth"))


def test_an_impossible_download_names_the_other_two_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(UserError, match=r"no route to host.*--weights FILE.*--weights random"):
        load_encoder_weights(empty_encoder("resnet18", ("layer1",)), "resnet18", "imagenet")


def test_random_weights_are_seeded_and_calibrated() -> None:
    first, again, other = (build_encoder("resnet18", ("layer2",)) for _ in range(3))
    for encoder, seed in ((first, 0), (again, 0), (other, 1)):
        load_encoder_weights(encoder, "resnet18", "random", seed)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    calibrate_batch_norm(first, iter([images]))
    assert not first.training
    with torch.no_grad():
        normed = first.bn1(first.conv1(images))
    # unbiased against biased variance over 8·32·32 values
    torch.testing.assert_close(normed.mean((0, 2, 3)), torch.zeros(64), rtol=0, atol=1e-3)
    torch.testing.assert_close(normed.var((0, 2, 3)), torch.ones(64), rtol=0, atol=1e-3)


def test_unknown_taps_and_encoders_are_refused() -> None:
    with pytest.raises(UserError, match="layer9"):
        check_taps("resnet18", ("layer9",))
    with pytest.raises(UserError, match="vgg"):
        check_taps("vgg", ())
    assert check_taps("resnet18", ("layer3", "layer1")) == ("layer1", "layer3")


@pytest.mark.skipif(not SHARED_WEIGHTS.is_file(), reason="needs the ResNet-18 weights beside the checkout")
def test_real_weights_load_up_to_layer3() -> None:
    encoder = build_encoder("resnet18", ("layer1", "layer2", "layer3"))
    assert "sha256" in load_encoder_weights(encoder, "resnet18", str(SHARED_WEIGHTS))
    with torch.no_grad():
        assert all(torch.isfinite(tap).all() for tap in encoder(torch.zeros(1, 3, 64, 64)))


@pytest.mark.parametrize("name", ZERO_PADDED)
def test_sizes_of_all_taps_are_what_comes_out(name: str) -> None:
    taps, size = tuple(ENCODERS[name].taps), (33, 257)  # every stride-2 layer has to round
    with torch.device("meta"):  # shapes alone: no weights, no arithmetic
        outputs = build_encoder(name, taps)(torch.empty(1, 3, *size))
    assert [tuple(output.shape[1:]) for output in outputs] == ModelConfig(name, taps, size).tap_sizes


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_every_subset_of_taps_ends_at_its_last_one(name: str) -> None:
    """Two taps of the paper are the coarser ones, but any subset is to be had."""
    every = tuple(ENCODERS[name].taps)
    with torch.device("meta"):
        outputs = dict(zip(every, build_encoder(name, every)(torch.empty(1, 3, 64, 64)), strict=True))
        for taps in (every[1:], every[:1], (every[0], every[2])):
            encoder = build_encoder(name, taps)
            found = encoder(torch.empty(1, 3, 64, 64))
            assert [tap.shape for tap in found] == [outputs[tap].shape for tap in taps]
            last = list(encoder.state_dict())[-1]
            assert last.startswith(taps[-1].replace("features", "features."))


def test_a_single_position_cannot_calibrate() -> None:
    encoder = build_encoder("resnet18", ("layer4",))
    with pytest.raises(UserError, match="more good images or a larger --size"):
        calibrate_batch_norm(encoder, iter([torch.zeros(1, 3, 32, 32)]))


def test_one_position_cannot_be_padded_by_reflection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = build_encoder("resnet18_reflect", ("layer4",))
    assert encoder(torch.zeros(1, 3, 33, 64))[0].shape == (1, 512, 2, 2)
    refusal = "resnet18_reflect pads by reflection and needs sides above 32 pixels to tap layer4; found "
    with pytest.raises(UserError, match=refusal + "64x32"):
        encoder(torch.zeros(1, 3, 64, 32))
    check_size("resnet18", ("layer4",), (32, 32))  # padded with zeros
    good_images(tmp_path / "good")
    options = ["--encoder", "resnet18_reflect", "--taps", "layer4", "--size", "32", "--weights", "random"]
    options += ["--data", str(tmp_path / "good"), "--out", str(tmp_path / "cable.pt"), "--blocks", "1"]
    assert run_command(fit.main, options) == 2
    assert capsys.readouterr().err.endswith(f"\nerror: {refusal}32x32; take a larger --size or finer --taps\n")


WRAPPED = {
    "plain": lambda state: state,
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "of DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "both": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_weights_are_found_however_a_training_script_saved_them(wrap: Callable[..., object], tmp_path: Path) -> None:
    source, loaded = build_encoder("resnet18", ("layer1",)), build_encoder("resnet18", ("layer1",))
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pth")
    load_encoder_weights(loaded, "resnet18", str(tmp_path / "weights.pth"))
    expected = source.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    encoder = build_encoder("resnet18", ("layer1",))
    path = tmp_path / "weights.pth"
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(UserError, match=r"finite weights; found NaN or infinity in conv1\.weight, 1 weights in all"):
        load_encoder_weights(encoder, "resnet18", str(path))
    torch.save({"epoch": 3, "ema": {}}, path)
    with pytest.raises(UserError, match=r"plain or under state_dict .* found one of epoch, ema"):
        load_encoder_weights(encoder, "resnet18", str(path))
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"must be a state dict .* found list"):
        load_encoder_weights(encoder, "resnet18", str(path))
