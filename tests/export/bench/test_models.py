"""The models of Table 6 as files, made small: what each is, and what torch runs of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import runtime
from export.bench import models as report_models
from export.bench.baselines.padim import Padim
from export.bench.detector import random_checkpoint
from export.bench.models import Wanted, prepare
from export.bench.torch_worker import open_torch
from export.graph.flops import weight_bytes
from export.model.cflow import DetectorModule
from export.model.checkpoint import load_checkpoint
from export.model.encoder import ENCODERS, build_encoder
from runtime.common.errors import UserError, run_command
from runtime.engines.any_onnx import open_onnxruntime
from runtime.engines.sidecar import INPUT_NAME
from runtime.report import limits
from runtime.report.groups import GroupVariant, measure_group
from runtime.report.models import FORM_KINDS, read_list
from runtime.report.paper_table import PAPER_NAMES, rows_for
from runtime.report.rounds import Lane
from runtime.report.schema import Limits
from runtime.report.worker import Subject, frames_of
from runtime.report.workers import subjects_of
from tests.support.export_fixtures import run_model

SIDE = 64
SIZE = (SIDE, SIDE)
WANTED = Wanted(("resnet18",), (SIDE,), ("fp32", "int8"), forms=True)
BASE = Subject("", {}, (0, 0), 1, "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    prepare(folder, WANTED, lambda _: None)
    return folder


def test_what_a_detector_comes_to(folder: Path) -> None:
    models = read_list(folder)
    assert [(entry.kind, entry.precision) for entry in models.entries] == [
        ("unfused", "fp32"),
        ("eager", "fp32"),
        ("encoder", "fp32"),
        ("cflow", "fp32"),
        ("encoder", "int8"),
        ("cflow", "int8"),
        ("gemm", "fp32"),  # in INT8 it would be calibrated once more
        ("camera", "fp32"),
    ]
    assert models.weights == "seeded random" and [entry.work.operands for entry in models.limits] == ["float32", "int8"]
    by_kind = {(entry.kind, entry.precision): entry for entry in models.entries}
    cflow, encoder = by_kind["cflow", "fp32"], by_kind["encoder", "fp32"]
    assert encoder.work.flops < cflow.work.flops < by_kind["unfused", "fp32"].work.flops
    # ResNet-18's convolutions at 224 squared: 1.814 G multiply-adds, its last layer's 0.0005 left out
    assert encoder.work.flops == pytest.approx(2 * 1.814e9 * (SIDE / 224) ** 2, rel=0.02)
    # batch norms folded: 11.17 M parameters of four bytes
    assert encoder.work.weight_bytes == pytest.approx(4 * 11.17e6, rel=0.01)
    assert by_kind["encoder", "int8"].work.weight_bytes == pytest.approx(11.17e6, rel=0.05)
    for entry in models.entries:
        assert entry.size_bytes > 1e6 and all(file.path.is_file() for file in entry.files)


def test_the_random_detector_is_the_same_every_time_and_judges() -> None:
    first, second = (random_checkpoint("resnet18", SIZE) for _ in range(2))
    states = (checkpoint.model.state_dict().values() for checkpoint in (first, second))
    assert all(map(torch.equal, *states))
    assert first.constants.isfinite().all() and first.model.config.input_size == SIZE
    _, score = DetectorModule(first.model, first.constants)(torch.zeros(2, *SIZE, 3, dtype=torch.uint8))
    assert score.shape == (2,) and score.isfinite().all()


def test_what_is_there_is_not_made_again_and_what_went_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in folder.glob("resnet18*")}
    prepare(folder, WANTED, said.append)
    assert said == [] and {path: path.stat().st_mtime_ns for path in folder.glob("resnet18*")} == before

    def fails(*_: object) -> None:
        raise UserError("this machine must make it", "not today")

    monkeypatch.setattr(report_models, "detector_entries", fails)
    models = prepare(folder, Wanted(("resnet18",), (SIDE, 96), ("fp32", "int8")), said.append)
    assert said == [
        "preparing resnet18 at 96x96 (fp32, int8)",
        "left out resnet18 at 96x96 (fp32, int8): this machine must make it; found not today",
    ]
    assert len(models.entries) == 8
    assert read_list(folder).left_out == ("resnet18 at 96x96 (fp32, int8): this machine must make it; found not today",)


def test_torch_runs_the_checkpoint_and_answers_as_the_detector(folder: Path) -> None:
    (eager,) = (entry for entry in read_list(folder).entries if entry.kind == "eager")
    (subject,) = subjects_of(eager, BASE)
    threads = torch.get_num_threads()
    try:
        opened = open_torch(subject)
        assert opened.engine == "PyTorch" and set(opened.runs) == {"network", "verdict"}
        assert all(run(2)[name] > 0 for name, run in opened.runs.items())
    finally:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(folder / f"resnet18-{SIDE}.pt")
    frames = frames_of(2, SIZE)
    with torch.inference_mode():
        maps, _ = DetectorModule(checkpoint.model, checkpoint.constants)(torch.from_numpy(frames))
    fused = run_model(onnx.load(str(folder / f"resnet18-{SIDE}.onnx")), frames)
    # one detector in both: float32 of a random network
    assert np.abs(fused[0] - maps.numpy()).max() < 1e-3


def test_a_group_of_real_processes(folder: Path) -> None:
    entries = [e for e in read_list(folder).entries if e.precision == "fp32" and e.kind not in FORM_KINDS]
    outcome = measure_group([GroupVariant(entry, "fp32") for entry in entries], BASE, 2.0, 3)
    assert not outcome.left_out and [row.kind for row in outcome.rows] == ["encoder", "cflow", "unfused", "eager"]
    encoder, cflow, unfused, eager = outcome.rows
    assert encoder.network and not encoder.verdict and cflow.network and cflow.verdict and eager.network
    assert (cflow.engine, eager.engine) == ("ONNX Runtime", "PyTorch") and unfused.verdict.p50 > 0
    assert cflow.paper.model == "CFLOW-AD-R18" and encoder.paper.model == "R18 encoder only"


def test_a_baselines_encoder_in_another_engine_changes_nothing(tmp_path: Path) -> None:
    (entry,) = report_models.baseline_entry(tmp_path / "padim", "padim", "resnet18", SIZE)
    baseline = Padim.load(entry.verdict.path)
    graph, frames = onnx.load(str(entry.verdict.features)), torch.from_numpy(frames_of(1, SIZE))
    run = open_onnxruntime(str(entry.verdict.features), 1)
    with torch.inference_mode():
        maps, scores = baseline(frames)
        baseline.features = lambda images: [torch.from_numpy(tap) for tap in run(images.contiguous().numpy())]
        other_maps, other_scores = baseline(frames)
    # float32 of two engines
    assert torch.allclose(maps, other_maps, rtol=1e-4) and torch.allclose(scores, other_scores, rtol=1e-4)
    statistics = baseline.config.stored_bytes
    assert entry.work.weight_bytes == weight_bytes(graph) + statistics
    assert entry.size_bytes == pytest.approx(
        statistics + 4 * sum(p.numel() for p in baseline.encoder.parameters()), rel=0.01
    )
    threads = torch.get_num_threads()
    try:
        (subject,) = subjects_of(entry, BASE)
        opened = open_torch(subject)
        assert opened.engine == "ONNX Runtime + PyTorch" and opened.runs["verdict"](2)["verdict"] > 0
        with pytest.raises(UserError, match="a baseline is one of padim, spade"):
            open_torch(Subject("torch", {"verdict": "x"}, SIZE, 1, what="other"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--encoder", "vgg"], "each encoder must be one of"),
        (["--size", "100"], "each side must be a multiple of 32 pixels; found 100"),
        (["--precision", "int4"], "each precision must be one of fp32, fp16, int8; found int4"),
    ],
)
def test_bad_arguments_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert run_command(report_models.main, ["--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_the_papers_sizes_are_those_of_all_parameters_and_both_permutations() -> None:
    """45 / 96, 268 / 947 and 12 / 25 MB: the encoder up to its last tap, and three decoders."""
    for encoder in PAPER_NAMES:
        spec = ENCODERS[encoder]
        with torch.device("meta"):
            cut = build_encoder(encoder, spec.default_taps)
        alone = 4 * sum(tensor.numel() for tensor in cut.state_dict().values())
        decoders = 4 * sum(8 * _block_parameters(spec.taps[tap].channels) for tap in spec.default_taps)
        rows = rows_for(encoder, (256, 256))
        encoder_mb, both_mb = (next(row.size_mb for row in rows if word in row.model) for word in ("only", "CFLOW"))
        # the paper's MB are 10^6 bytes in some rows and 2^20 in others, 5 % apart, and are rounded to 1 of 12
        assert alone / 1e6 == pytest.approx(encoder_mb, rel=0.06)
        assert (alone + decoders) / 1e6 == pytest.approx(both_mb, rel=0.06)


def _block_parameters(channels: int) -> int:
    """FrEIA's block: two layers of the subnet, scale and offset, the permutation and its inverse."""
    inputs = channels // 2 + 128
    subnet = inputs * 2 * inputs + 2 * inputs + 2 * inputs * channels + channels
    return subnet + 2 * channels + 2 * channels * channels


def test_the_list_is_plain_json(folder: Path) -> None:
    value = json.loads((folder / "models.json").read_text())
    assert value["schema"] == "cflow-edge/report-models/1"
    assert all(not Path(entry["verdict"]["path"]).is_absolute() for entry in value["entries"] if entry["verdict"])
    assert math.prod(value["limits"][0]["input_size"]) == 1024 * 1024 and INPUT_NAME == "frames"


def test_the_machines_limits_are_the_best_runs_of_real_products(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.1)
    monkeypatch.setattr(limits, "ROUNDS", 2)
    monkeypatch.setattr(limits.bandwidth, "read_gb_s", lambda threads: 10.0 * threads)
    lanes: list[Lane] = []
    real = limits.measure_in_turn

    def noting(some: list[Lane], *arguments: float) -> None:
        real(some, *arguments)
        lanes.extend(some)

    monkeypatch.setattr(limits, "measure_in_turn", noting)
    products = read_list(folder).limits
    found = limits.measure_limits(products, BASE, 1, bfloat16=False)
    assert found is not None and set(found.gflops) == {"float32", "int8"} and found.read_gb_s == 10.0
    best_ms = min(
        ms for lane in lanes if "fp32" in lane.worker.subject.paths["network"] for ms in lane.timing.samples_ms
    )
    assert found.gflops["float32"] == pytest.approx(2 * 1024**3 / best_ms / 1e6, rel=0.01)  # two decimals are kept
    better = limits.merged(found, Limits({"float32": 1e9, "int8": 0.0}, 1.0, found.how))
    assert better.gflops == {"float32": 1e9, "int8": found.gflops["int8"]} and better.read_gb_s == 10.0
    assert limits.measure_limits((), BASE, 1, bfloat16=False) is None


def test_the_other_forms_compute_what_the_detector_does(folder: Path) -> None:
    forms = {entry.kind: entry for entry in read_list(folder).entries if entry.kind in ("gemm", "camera")}
    frames = frames_of(1, SIZE)
    detector, products = (onnx.load(str(folder / f"resnet18-{SIDE}{suffix}.onnx")) for suffix in ("", "-gemm"))
    kinds = [{node.op_type for node in model.graph.node} for model in (detector, products)]
    assert "Gemm" in kinds[1] - kinds[0]
    # the order of FP32 sums
    assert np.abs(run_model(detector, frames)[0] - run_model(products, frames)[0]).max() < 1e-3
    camera = forms["camera"]
    assert camera.label == "CFLOW-AD-R18, camera frames 1080x1920"
    with runtime.load(camera.verdict.path, threads=1, backend="onnxruntime") as judge:
        assert judge.session.frame_size == (1080, 1920)
        assert judge(frames_of(1, (1080, 1920))[0]).anomaly_map.shape == SIZE
    said: list[str] = []  # without the forms there is nothing more to make
    prepare(folder, replace(WANTED, forms=False), said.append)
    assert said == []
