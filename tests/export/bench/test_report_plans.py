"""The report's graphs as plans, compiled for real by TensorRT-RTX, up to where a device is needed."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.bench import plans as report_plans
from export.bench import products
from export.bench.models import Wanted, prepare
from export.bench.plans import Compiler, compile_models, plan_entry
from export.graph.flops import count_flops, weight_bytes
from export.trt.compat import find_backend
from export.trt.options import BuildOptions
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import INPUT_NAME, read_sidecar
from runtime.engines.trt import cuda
from runtime.report.groups import GroupVariant, measure_group
from runtime.report.models import ModelEntry, ModelFile, ModelList, read_list
from runtime.report.worker import Subject, frames_of
from runtime.report.workers import subjects_of
from tests.support.export_fixtures import run_model
from tests.support.paths import ROOT

SIDE = 64
FOR_A_3080 = BuildOptions(compute_capabilities=("8.6",))
BASE = Subject("", {}, (0, 0), 1, "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    prepare(folder, Wanted(("resnet18",), (SIDE,), ("fp32",), forms=True), lambda _: None)
    return folder


@pytest.fixture(scope="module")
def small_products() -> None:
    """Products that are compiled in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            report_plans, "product_of_frames", lambda precision: products.product_of_frames(precision, 64, 16)
        )
        yield


def compiler_into(folder: Path, say: Callable[[str], None]) -> Compiler:
    return Compiler(folder / "plans", find_backend("tensorrt_rtx"), say, forms=True, build=FOR_A_3080)


@pytest.fixture(scope="module")
def compiled(folder: Path, small_products: None) -> tuple[ModelList, list[str]]:
    pytest.importorskip("tensorrt_rtx")
    said: list[str] = []
    return compile_models(read_list(folder), compiler_into(folder, said.append)), said


def test_every_graph_of_ours_becomes_a_plan_of_its_precision(compiled: tuple[ModelList, list[str]]) -> None:
    models, said = compiled
    assert not [line for line in said if line.startswith("left out")]
    entries = {entry.kind: entry for entry in models.entries}
    kinds = ["unfused", "eager", "encoder", "cflow", "launches", "one-stream", "gemm", "camera"]
    assert [entry.kind for entry in models.entries] == kinds
    assert entries["eager"].verdict.path.suffix == ".pt" and entries["eager"].verdict.path.is_file()
    for kind, roles in {
        "cflow": ("network", "verdict", "swept"),
        "encoder": ("network",),
        "camera": ("verdict",),
    }.items():
        for role in roles:
            path = getattr(entries[kind], role).path
            artefact = read_sidecar(path).artefact_of(path)
            assert (artefact.kind, artefact.precision, artefact.library) == ("plan", "fp32", "tensorrt_rtx")
    assert read_sidecar(entries["cflow"].swept.path).batch == 32
    assert read_sidecar(entries["cflow"].verdict.path).batch == 1
    assert read_sidecar(entries["camera"].verdict.path).engine_frame_size == (1080, 1920)
    # the same plan, its kernels launched one by one; and one that another build made
    assert entries["launches"].verdict == replace(entries["cflow"].verdict, cuda_graph=False)
    assert entries["one-stream"].verdict.path != entries["cflow"].verdict.path
    assert [entry.work.operands for entry in models.limits] == ["float32"]
    table = entries["cflow"].verdict.path.with_suffix(".txt").read_text()
    assert "convolution" in table and "plan" in table.splitlines()[-1]


def test_an_encoder_is_timed_on_the_device_and_from_the_host_in_one_process(
    compiled: tuple[ModelList, list[str]],
) -> None:
    encoder, launches = (next(e for e in compiled[0].entries if e.kind == kind) for kind in ("encoder", "launches"))
    (subject,) = subjects_of(encoder, BASE)
    assert set(subject.paths) == {"network", "verdict"} and subject.cuda_graph
    (subject,) = subjects_of(launches, BASE)
    assert not subject.cuda_graph and Subject.from_text(subject.to_text()) == subject


def test_what_stands_is_kept_and_what_changed_is_built_again(
    folder: Path, compiled: tuple[ModelList, list[str]], small_products: None
) -> None:
    said: list[str] = []
    compiler = compiler_into(folder, said.append)
    again = compile_models(read_list(folder), compiler)
    assert said == [] and again == compiled[0]
    encoder, cflow = (
        next(entry for entry in read_list(folder).entries if entry.kind == kind) for kind in ("encoder", "cflow")
    )
    os.utime(encoder.network.path)  # the graph was made anew
    plan_entry(encoder, compiler)
    plan_entry(encoder, compiler)
    assert said == [f"building resnet18-{SIDE}-encoder-fp32.plan"]
    said.clear()
    plan_entry(encoder, replace(compiler, build=BuildOptions(compute_capabilities=("8.9",))))  # for another GPU
    assert said == [f"building resnet18-{SIDE}-encoder-fp32.plan"]
    other = replace(compiler, backend=replace(compiler.backend, version="0.1"))
    asked: dict[str, BuildOptions] = {}

    def refuses(path: Path, options: BuildOptions, _: object) -> None:
        asked[f"{path.name} {options.max_batch} {options.aux_streams}"] = options
        raise UserError("it must build", "0.1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plans, "build_plan", refuses)
        left = compile_models(read_list(folder), replace(other, folder=folder / "other"))
        with pytest.raises(UserError):  # what a detector's own plans were asked for before
            other.file(cflow.verdict, cflow, "batch32", max_batch=32)
    assert {f"resnet18-{SIDE}.onnx 1 0", f"resnet18-{SIDE}.onnx 32 None"} <= set(asked)
    assert [entry.kind for entry in left.entries] == ["eager"] and len(left.left_out) == 8
    assert f"CFLOW-AD-R18 {SIDE}x{SIDE} fp32 in one stream: it must build; found 0.1" in left.left_out


@pytest.mark.skipif(cuda.device_problem() is None, reason="a CUDA device is here")
def test_without_a_device_each_row_tells_so(compiled: tuple[ModelList, list[str]]) -> None:
    cflow = next(entry for entry in compiled[0].entries if entry.kind == "cflow")
    outcome = measure_group([GroupVariant(cflow, "fp32")], BASE, 1.0, 2)
    assert not outcome.rows and "needs a CUDA device" in outcome.left_out[0]


def test_a_graph_that_takes_no_frames_is_not_measured_beside_plans(
    compiled: tuple[ModelList, list[str]], tmp_path: Path
) -> None:
    foreign = ModelEntry(
        "anomalib-cflow",
        "resnet18",
        (SIDE, SIDE),
        "fp32",
        1,
        ModelFile("graph", tmp_path / "cflow.onnx", input_shape=(1, 3, SIDE, SIDE)),
    )
    compiler = Compiler(tmp_path, find_backend("tensorrt_rtx"), lambda _: None)
    with pytest.raises(UserError, match="must take frames; found one of images"):
        plan_entry(foreign, compiler)


def test_compiling_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    """The interpreter that has TensorRT need not be the one that has torch."""
    pytest.importorskip("tensorrt_rtx")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['FrEIA'] = None\n"
        "from export.bench import plans as report_plans\n"
        "from runtime.common.errors import run_command\n"
        f"sys.exit(run_command(report_plans.main, [{str(tmp_path)!r}, '--library', 'tensorrt_rtx']))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2 and "must hold models to measure" in run.stderr and run.stderr.count("\n") == 1


def test_what_is_asked_for_is_compiled(
    folder: Path, compiled: tuple[ModelList, list[str]], capsys: pytest.CaptureFixture[str], small_products: None
) -> None:
    assert run_command(report_plans.main, ["nowhere", "--library", "tensorrt_rtx", "--check"]) == 0
    arguments = [str(folder), "--library", "tensorrt_rtx", "--target", "8.6", "--size"]
    assert run_command(report_plans.main, [*arguments, "32"]) == 2
    assert f"found only resnet18 {SIDE} fp32; make it first" in capsys.readouterr().err
    assert run_command(report_plans.main, [*arguments, str(SIDE)]) == 0
    assert "4 models ready" in capsys.readouterr().out  # without the other forms


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_large_products_are_what_they_are_called(precision: str, tmp_path: Path) -> None:
    channels, side = 32, 8
    model = products.product_of_frames(precision, channels, side)
    onnx.checker.check_model(model, full_check=True)
    frames = frames_of(1, (side, side))
    counted = count_flops(model, {INPUT_NAME: frames})
    assert counted == products.product_flops(channels, side)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == products.PRODUCTS + 2
    narrow = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
    assert weight_bytes(model) == pytest.approx(narrow * products.PRODUCTS * channels**2, rel=0.3)
    (score,) = run_model(model, frames)
    assert np.isfinite(score).all() and 0.1 < score[0] < 100  # neither zeros, which are faster, nor an overflow
