"""Where a plan opens: the rules of version and hardware compatibility, as NVIDIA's support matrix states them."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.engines.sidecar import Artefact
from runtime.engines.trt.plan import check_built_for, find_weights

ARTEFACT = Artefact("plan", "fp16", "0" * 64, "tensorrt", "10.3.0", "8.6+8.7")
PLAN = Path("cable.plan")


def test_a_plan_opens_only_where_it_was_built_for():
    check_built_for(PLAN, ARTEFACT, "10.3.0", "8.6")
    check_built_for(PLAN, ARTEFACT, "10.3.0", "8.7")
    for version, capability in (("10.3.1", "8.6"), ("10.3.0", "8.9"), ("10.3.0", "8")):
        with pytest.raises(UserError) as caught:
            check_built_for(PLAN, ARTEFACT, version, capability)
        line = str(caught.value)
        assert "tensorrt 10.3.0 for compute capability 8.6+8.7 and opens only there" in line
        assert f"found tensorrt {version} on compute capability {capability};" in line
        assert line.endswith("rebuild it here with: python -m export.build_engine cable.pt")


@pytest.mark.parametrize(
    ("built", "here", "opens"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.16.1.11", True),  # by number, not by letter
        ("10.3.0", "10.14.1.48.post1", True),
        ("10.3.0", "11.4.0.106", True),
        ("8.6.1", "10.3.0", True),
        ("8.6.1", "11.0.0.114", False),  # two major versions on
        ("10.13.3.9", "10.3.0", False),  # an older one
        ("11.0.0.114", "10.16.1.11", False),
        ("11.4.0.106", "12.0.0.1", False),  # not promised yet
    ],
)
def test_a_version_compatible_plan_opens_in_later_versions(built, here, opens):
    artefact = replace(ARTEFACT, version=built, version_compatible=True)
    if opens:
        return check_built_for(PLAN, artefact, here, "8.6")
    with pytest.raises(UserError, match=rf"opens only in {built} and later on 8\.6\+8\.7; found tensorrt {here}"):
        check_built_for(PLAN, artefact, here, "8.6")


def test_version_compatibility_is_of_versions_alone():
    with pytest.raises(UserError, match=r"found tensorrt 10\.3\.0 on compute capability 8\.9"):
        check_built_for(PLAN, replace(ARTEFACT, version_compatible=True), "10.3.0", "8.9")
    with pytest.raises(
        UserError, match=r"opens only in 10\.3\.0 on 8\.6\+8\.7 and others from 8\.0 on; found tensorrt 10\.4"
    ):
        check_built_for(PLAN, replace(ARTEFACT, hardware_compatible=True), "10.4.0", "8.6")


@pytest.mark.parametrize(
    ("capability", "runs"), [("7.5", False), ("8.0", True), ("8.9", True), ("9.0", True), ("12.0", True)]
)
def test_a_hardware_compatible_plan_runs_from_ampere_on(capability, runs):
    artefact = replace(ARTEFACT, hardware_compatible=True)
    if runs:
        return check_built_for(PLAN, artefact, "10.3.0", capability)
    with pytest.raises(UserError, match=rf"found tensorrt 10\.3\.0 on compute capability {capability}"):
        check_built_for(PLAN, artefact, "10.3.0", capability)


def test_the_weights_are_the_file_of_that_hash_whatever_its_name(tmp_path):
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    plan = tmp_path / "cable.plan"
    for precision, named in (("fp16", "cable.fp16.onnx"), ("fp32", "cable.onnx")):
        artefact = replace(ARTEFACT, precision=precision, weights_sha256=sha256)
        with pytest.raises(UserError, match=rf"no ONNX with sha256 2cf24dba5fb0 beside it; copy {named} from"):
            find_weights(plan, artefact)
    for name in ("cable.onnx", "cable.fp16.onnx", "a.onnx"):
        (tmp_path / name).write_bytes(b"hullo")
    (tmp_path / "z.onnx").write_bytes(b"hello")
    assert find_weights(plan, artefact) == tmp_path / "z.onnx"
    (tmp_path / "cable.fp16.onnx").write_bytes(b"hello")
    assert find_weights(plan, replace(artefact, precision="fp16")) == tmp_path / "cable.fp16.onnx"
