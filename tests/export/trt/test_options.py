import argparse

import pytest

from export.trt.options import BuildOptions, add_plan_arguments, plan_options
from runtime.common.errors import UserError

EXCLUSIVE = [
    ({"strip_weights": True, "refittable": True}, "--strip-weights .*found --refittable"),
    ({"strip_weights": True, "version_compatible": True}, "--strip-weights .*found --version-compatible"),
    ({"refittable": True, "version_compatible": True}, "--refittable .*found --version-compatible"),
    ({"precision": "fp16", "strip_weights": True, "dla_core": 0}, "--strip-weights .*found --dla"),
    ({"precision": "fp16", "refittable": True, "dla_core": 0}, "--refittable .*found --dla"),
    ({"precision": "fp16", "hardware_compatible": True, "dla_core": 0}, "--dla .*found --hardware-compatible"),
    ({"dla_core": 0}, "--dla needs --fp16.*found --fp32"),
]


@pytest.mark.parametrize(("values", "message"), EXCLUSIVE)
def test_options_that_exclude_each_other(values, message):
    with pytest.raises(UserError, match=f"{message}.*; leave one of the two out"):
        BuildOptions(**values)


@pytest.mark.parametrize("values", [values for values, _ in EXCLUSIVE])
def test_each_of_two_exclusive_options_is_good_alone(values):
    for name, value in values.items():
        if name != "precision":
            precision = "fp16" if name == "dla_core" else "fp32"
            assert getattr(BuildOptions(**{"precision": precision, name: value}), name) == value
    assert BuildOptions(version_compatible=True, hardware_compatible=True, aux_streams=0)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_plan_arguments(parser)
    return parser, BuildOptions(precision="fp16", **plan_options(parser.parse_args(arguments)))


def test_the_command_sets_each_option_and_by_default_none():
    assert parsed()[1] == BuildOptions(precision="fp16")
    assert parsed("--aux-streams", "3", "--dla", "1")[1] == BuildOptions("fp16", aux_streams=3, dla_core=1)
    for option in ("version-compatible", "hardware-compatible", "strip-weights", "refittable"):
        expected = BuildOptions("fp16", **{option.replace("-", "_"): True})
        assert parsed(f"--{option}")[1] == expected != BuildOptions("fp16")


def test_each_option_is_described_in_one_line():
    parser, _ = parsed()
    described = {action.dest: action.help for action in parser._actions if action.dest != "help"}
    assert set(described) == set(plan_options(parser.parse_args([]))) - {"dla_core"} | {"dla"}
    assert all(20 < len(text) < 80 and "\n" not in text for text in described.values())
