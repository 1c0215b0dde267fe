"""What is read of foreign checkpoints apart from whole imports: configurations, file names, likelier variants."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.model.cflow import ModelConfig
from export.model.tensor_files import StandIn, read_with_stand_ins
from runtime.common.errors import UserError
from train.foreign.ambiguities import choose, variants_of
from train.foreign.anomalib import plain
from train.foreign.reference import stated_by_name


class DictConfig:
    """In the shape of OmegaConf's: the containers that earlier releases keep their hyper-parameters in."""

    def __init__(self, content: object) -> None:
        self.__dict__.update({"_metadata": None, "_parent": None, "_content": content})


class AnyNode:
    def __init__(self, value: object) -> None:
        self.__dict__.update({"_metadata": None, "_parent": None, "_val": value})


def test_configurations_that_were_pickled_as_objects_are_read_without_their_classes(tmp_path: Path) -> None:
    sizes = DictConfig([AnyNode(128), AnyNode(256)])
    torch.save({"model": DictConfig({"backbone": AnyNode("resnet18"), "input_size": sizes})}, tmp_path / "x.ckpt")
    content, names = read_with_stand_ins(tmp_path / "x.ckpt", "a checkpoint")
    assert plain(content) == {"model": {"backbone": "resnet18", "input_size": [128, 256]}}
    assert names == [f"{__name__}.AnyNode", f"{__name__}.DictConfig"]
    assert isinstance(content["model"], StandIn)
    assert not isinstance(content["model"], DictConfig)


def test_variants_that_are_alike_are_not_guessed() -> None:
    first, later = (ModelConfig("resnet18_reflect", ("layer1",), clamp=clamp) for clamp in ("tanh(a)", "tanh(a/c)"))
    zeros = ModelConfig("resnet18", ("layer1",))
    with pytest.raises(UserError, match=r"1\.000 nats per dimension with tanh\(a\), 0\.990 .*--clamp"):
        choose({first: 1.0, later: 0.99})
    assert {variant.clamp for variant in variants_of(first, "tanh(a/c)")} == {"tanh(a/c)"}  # what the user says holds
    assert variants_of(zeros, None) == [zeros, replace(zeros, clamp="tanh(a/c)")]
    assert choose({first: 1.0, later: 0.5}) == first
    assert choose({first: 0.5, later: 1.0}) == later
    assert choose({first: 1.0, zeros: 1.01}) == first  # the reference's own, unless another is clearly likelier
    assert choose({first: 1.0, zeros: 2.0}) == zeros


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("mvtec_wide_resnet50_2_freia-cflow_pl3_cb8_inp256_run0_metal_nut_2021-10-01-12:30:00.pt", "metal_nut"),
        ("mvtec_wide_resnet50_2_freia-cflow_pl3_cb8_inp256_run0_metal_nut_2021-10-01-12_30_00.pt", "metal_nut"),
        ("mvtec_wide_resnet50_2_freia-cflow_pl3_cb8_inp256_run0_metal_nut.pt", "metal_nut"),
    ],
)
def test_file_names_of_the_reference(name: str, class_name: str) -> None:
    stated = stated_by_name(name)
    assert (stated.encoder, stated.class_name) == ("wide_resnet50_2", class_name)
    assert (stated.taps, stated.coupling_blocks, stated.input_size, stated.conditional) == (3, 8, (256, 256), True)
    assert stated_by_name("cable.pt").encoder is None
