"""The report end to end: real engines in processes of their own, measured, printed, written, compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.common.errors import run_command
from runtime.common.files import sha256_of
from runtime.report import paper_table
from runtime.report.main import main
from runtime.report.schema import read_report
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine

QUICK = ["--runs", "3", "--seconds", "1", "--threads", "1", "--backend", "onnxruntime"]


@pytest.mark.parametrize(
    ("encoder", "side", "fps", "size_mb"),
    [
        ("resnet18", 256, 34, 96),
        ("resnet18", 512, 12, 96),
        ("wide_resnet50_2", 256, 27, 947),
        ("wide_resnet50_2", 512, 9, 947),
        ("mobilenet_v3_large", 256, 35, 25),
        ("mobilenet_v3_large", 512, 12, 25),
    ],
)
def test_the_papers_figures(encoder: str, side: int, fps: float, size_mb: float) -> None:
    row = paper_table.cflow_row(encoder, (side, side))
    assert row is not None and (row.input_side, row.fps, row.size_mb) == (side, fps, size_mb)


def test_all_rows_of_an_encoder_and_none_of_another() -> None:
    rows = paper_table.rows_for("wide_resnet50_2", (256, 256))
    assert [(row.model, row.fps, row.size_mb) for row in rows] == [
        ("WRN50 encoder only", 62, 268),
        ("SPADE-WRN50", 0.1, 1400),  # MVTec's size, not STC's 37 GB
        ("PaDiM-WRN50", 1.1, 3800),
        ("CFLOW-AD-WRN50", 27, 947),
    ]
    assert [row.fps for row in paper_table.rows_for("resnet18", (512, 512))] == [62, None, 12]
    assert paper_table.rows_for("resnet34", (256, 256)) == () and paper_table.cflow_row("resnet34", (256, 256)) is None


@pytest.mark.parametrize(
    ("input_size", "side"),
    [((256, 256), 256), ((512, 512), 512), ((32, 48), 256), ((480, 640), 512), ((360, 362), 256), ((363, 363), 512)],
)
def test_the_nearest_input_size(input_size: tuple[int, int], side: int) -> None:
    assert paper_table.nearest_side(input_size) == side  # 256 * sqrt 2 = 362.04 lies half way


def test_end_to_end_two_engines_and_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = write_tiny_engine(tmp_path)
    large = write_tiny_engine(tmp_path, "large", (512, 512))
    out = tmp_path / "out"
    words = [
        str(large),
        str(small),
        *QUICK,
        "--batch",
        "1",
        "--batch",
        "2",
        "--profile",
        "--format",
        "json",
        "--output",
        str(out),
    ]
    assert run_command(main, words) == 0
    printed = capsys.readouterr()
    assert {path.name for path in out.iterdir()} >= {"report.txt", "report.md", "report.json"}
    assert (out / "report.json").read_text() == printed.out
    report = read_report(out / "report.json")
    assert report.method.weights == "as in the files" and report.limits is None and not report.left_out
    assert report.machine.cores >= 1 and {"python", "numpy", "onnxruntime"} <= set(report.machine.versions)
    assert report.conditions.slowdown is None or report.conditions.slowdown > 0
    first, second = report.rows
    assert [first.file, second.file] == ["large.onnx", "tiny.onnx"]  # two sizes: two groups
    for row, path in ((first, large), (second, small)):
        assert row.size_mb == pytest.approx(path.stat().st_size / 1e6) and row.model_sha256 == sha256_of(path)
        assert row.engine == "ONNX Runtime" and "1 thread" in row.device and row.precision == "fp32"
        assert len(row.verdict.rounds_ms) == 3 and row.network is None
        # the stages lie within the run that they are a part of, and so do their medians
        assert 0 < row.stages_ms["execute"] < row.stages_ms["total"] <= row.verdict.p50
        assert 0 < row.first_verdict_s < 60 and row.memory_mb > 10
    # at the smallest size of an encoder only
    assert [(point.name, point.timing.batch) for point in report.sweeps] == [("tiny.onnx", 1), ("tiny.onnx", 2)]
    (profile,) = report.profiles
    assert profile.name == "tiny.onnx" and profile.engine == "ONNX Runtime" and sum(g.ms for g in profile.groups) > 0
    assert "large.onnx" in (out / "report.txt").read_text() and "large.onnx" in (out / "report.md").read_text()


def test_engines_of_one_size_take_turns_and_have_a_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fused = write_tiny_engine(tmp_path)
    unfused = fused.with_name("tiny.unfused.onnx")  # another model with the same sidecar
    unfused.write_bytes(fused.read_bytes())
    assert run_command(main, [str(unfused), str(fused), *QUICK]) == 0
    text = capsys.readouterr().out
    first, second = (line.split() for line in text.splitlines() if line.startswith("tiny.") and ".onnx " in line)
    assert [first[0], second[0]] == ["tiny.unfused.onnx", "tiny.onnx"]
    assert (first[10], float(second[10]) > 0) == ("1.00", True)


def test_an_earlier_report_is_shown_and_compared_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, out, again = write_tiny_engine(tmp_path), tmp_path / "out", tmp_path / "again"
    assert run_command(main, [str(engine), *QUICK, "--output", str(out)]) == 0
    first = capsys.readouterr().out
    old = str(out / "report.json")
    assert run_command(main, ["--show", old, "--compare", old, "--output", str(again)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(first) and "0 of 1 figures changed" in shown
    for name in ("report.json", "report.txt", "report.md"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_accuracy_stands_beside_the_latency_of_the_same_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_tiny_engine(tmp_path)
    row = {
        "file": "tiny.onnx",
        "precision": "fp32",
        "sha256": sha256_of(engine),
        "image_auroc": 0.875,
        "pixel_auroc": None,
    }
    verified = {"schema": "cflow-edge/verify/1", "data": "d", "images": 8, "rows": [row]}
    path = tmp_path / "verify.json"
    path.write_text(json.dumps(verified))
    assert run_command(main, [str(engine), *QUICK, "--accuracy", str(path)]) == 0
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line[:6] == ["tiny.onnx", "fp32", "ONNX", "Runtime", "8", "87.50"] for line in cells)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.onnx"], "must exist"),
        (["tiny.onnx", "--runs", "0"], "runs must be 1 or more"),
        (["tiny.onnx", "--seconds", "0"], "seconds must be above 0"),
        (["tiny.onnx", "--batch", "0"], "batch must be 1 or more"),
        (["tiny.onnx", "--threads", "0"], "threads must be 1 or more"),
        (["tiny.onnx", "--compare", "missing.json"], "must be a report.json"),
        (["tiny.onnx", "--compare", "tiny.json"], "must have schema cflow-edge/report/2"),
        (["tiny.onnx", "--accuracy", "tiny.json"], "must be a file of export.verify"),
        (["tiny.onnx", "--accuracy", "missing.json"], "must be a file of export.verify"),
    ],
)
def test_bad_arguments_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    write_tiny_engine(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_without_torch_the_models_of_table_6_come_from_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else object())
    assert run_command(main, ["--models", str(tmp_path / "none")]) == 2
    assert "or torch must be installed to make them; found neither" in capsys.readouterr().err


def test_torch_may_be_in_another_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python-with-torch"
    python.write_text('#!/bin/sh\necho "asked: $*" >&2\nexit 3\n')
    arguments = ["--models", str(tmp_path / "models"), "--plans", "tensorrt_rtx", "--forms", "--precision", "fp16"]
    assert run_command(main, [*arguments, "--torch-python", str(python)]) == 2
    assert "--torch-python must be a Python; found" in capfd.readouterr().err
    python.chmod(0o755)
    assert run_command(main, [*arguments, "--torch-python", str(python)]) == 2
    told = capfd.readouterr().err
    assert (
        f"asked: -m export.bench.models --out {tmp_path}/models --anomalib --precision fp32 --precision fp16 --forms"
        in told
    )
    assert "the models must be made; found exit status 3" in told


def test_the_report_needs_no_training_library() -> None:
    code = (
        "import sys, runtime.report.main; sys.exit(bool({'torch', 'onnx', 'FrEIA', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
