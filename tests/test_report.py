"""The report: figures against numpy and the paper, and real engines measured end to end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import paper_table
from runtime.errors import UserError, run_command
from runtime.metadata import read_sidecar, write_sidecar
from runtime.report import Options, find_models, main, make_report, percentiles_ms, speed_ratio
from runtime.report_format import FORMATS, HEADER, Method, ModelReport, Report
from tests.tiny_engine import write_tiny_engine

METHOD = Method("2000-01-01T00:00:00+00:00", "a machine", "a system", {"python": "3"}, None, 5, 1, 1, 0)


def _model(name: str = "a.onnx", encoder: str = "resnet18", side: int = 256, ratio: float = 1.0) -> ModelReport:
    latency_ms = {"p50": 10.0, "p95": 12.0, "p99": 13.0}
    return ModelReport(
        name, "fp32", encoder, (side, side), "a device", 96.25, latency_ms, {"execute": 8.0}, 100.0, ratio
    )


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


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(0).gamma(2.0, 3.0, 101)
    # 101 values: the p-th percentile is the p-th of the sorted ones, with nothing to interpolate.
    ordered = np.sort(values)
    assert percentiles_ms(values.tolist()) == pytest.approx(
        {"p50": ordered[50], "p95": ordered[95], "p99": ordered[99]}
    )
    assert percentiles_ms([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


def test_the_ratio_cancels_what_a_whole_round_suffers() -> None:
    rng = np.random.default_rng(1)
    weather = rng.uniform(1, 10, 51)  # what slows a whole round
    assert speed_ratio((12 * weather).tolist(), (8 * weather).tolist()) == pytest.approx(1.5)
    assert speed_ratio([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == 1.0  # the median of 0.5, 1 and 3


def test_the_papers_ratio_refers_to_the_first_model_and_needs_both_rows() -> None:
    fast, slow, other = _model(), _model("b.onnx", "wide_resnet50_2"), _model("c.onnx", "resnet34")
    report = Report(METHOD, (fast, slow, other))
    assert report.paper_ratio(fast) == 1 and report.paper_ratio(slow) == pytest.approx(27 / 34)
    assert report.paper_ratio(other) is None
    assert Report(METHOD, (other, fast)).paper_ratio(fast) is None


def test_text_and_markdown_show_the_same_cells_and_the_papers_note() -> None:
    report = Report(METHOD, (_model(), _model("b|c.onnx", "resnet34", ratio=1.234)))
    text, markdown = FORMATS["text"](report), FORMATS["markdown"](report)
    for row in (
        ["a.onnx", "fp32", "256x256", "96.2", "10.00", "12.00", "13.00", "8.00", "100.0", "1.00", "34", "1.00", "96"],
        ["b|c.onnx", "fp32", "256x256", "96.2", "10.00", "12.00", "13.00", "8.00", "100.0", "1.23", "-", "-", "-"],
    ):
        assert row in [line.split() for line in text.splitlines()]
        assert f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" in markdown
        assert len(row) == len(HEADER)
    for written in (text, markdown):
        assert "without upsampling the map or copying it back" in " ".join(written.split())
        assert "never the paper's fps with the fps measured here" in " ".join(written.split())
        assert "CFLOW-AD (WACV 2022), Table 6" in written and "threads: all cores" in written
    assert max(map(len, text.splitlines())) <= 140


def test_an_encoder_that_the_paper_did_not_use_leaves_its_part_out() -> None:
    report = Report(METHOD, (_model(encoder="resnet34"),))
    assert "Table 6" not in FORMATS["text"](report) + FORMATS["markdown"](report)
    value = json.loads(FORMATS["json"](report))
    assert value["models"][0]["paper"] is None and value["paper"]["rows"] == []


def test_end_to_end_two_engines_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = write_tiny_engine(tmp_path)
    large = write_tiny_engine(tmp_path, "large", (512, 512))
    arguments = ["--runs", "5", "--warmup", "1", "--batch", "2", "--threads", "1", "--format", "json"]
    assert run_command(main, [str(large), str(small), *arguments, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(written) == {"report.txt", "report.md", "report.json"} and written["report.json"] == printed
    report = json.loads(printed)
    assert report["schema"] == "cflow-edge/report/1"
    method = report["method"]
    assert (method["runs"], method["warmup"], method["batch"], method["threads"]) == (5, 1, 2, 1)
    assert {"python", "numpy", "onnxruntime"} <= set(method["versions"]) and method["machine"]
    first, second = report["models"]
    assert [first["file"], second["file"]] == ["large.onnx", "tiny.onnx"] and first["speed_ratio"] == 1
    for model, path in ((first, large), (second, small)):
        assert model["size_mb"] == pytest.approx(path.stat().st_size / 1e6)
        assert model["precision"] == "fp32" and "1 thread" in model["device"]
        # The stages lie within the run that they are a part of, and so do their medians.
        assert 0 < model["stage_p50_ms"]["execute"] < model["stage_p50_ms"]["total"] <= model["latency_ms"]["p50"]
        assert model["latency_ms"]["p50"] <= model["latency_ms"]["p95"] <= model["latency_ms"]["p99"]
        assert model["fps"] == pytest.approx(2000 / model["latency_ms"]["p50"])
    assert first["paper"]["input_side"] == 512 and second["paper"]["speed_ratio"] == pytest.approx(34 / 12)


def test_an_unfused_onnx_is_another_model_with_the_same_sidecar(tmp_path: Path) -> None:
    fused = write_tiny_engine(tmp_path)
    unfused = fused.with_name("tiny.unfused.onnx")
    unfused.write_bytes(fused.read_bytes())
    report = make_report([unfused, fused], Options(runs=1, warmup=0))
    assert [model.file for model in report.models] == ["tiny.unfused.onnx", "tiny.onnx"]


def test_without_names_the_engines_of_the_folder_are_measured_and_others_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_engine(tmp_path)
    (tmp_path / "alien.onnx").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in find_models(Path())] == ["alien.onnx", "tiny.onnx"]
    assert run_command(main, ["--runs", "1", "--warmup", "0", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert [model["file"] for model in json.loads(printed.out)["models"]] == ["tiny.onnx"]
    assert "left out alien.onnx" in printed.err
    # Named, the same file is an error.
    assert run_command(main, ["alien.onnx", "tiny.onnx"]) == 2
    (tmp_path / "tiny.onnx").unlink()
    assert run_command(main, []) == 2
    assert "at least one engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.onnx"], "must exist"),
        (["tiny.onnx", "--runs", "0"], "runs must be 1 or more"),
        (["tiny.onnx", "--warmup", "-1"], "warmup must be 0 or more"),
        (["tiny.onnx", "--batch", "0"], "batch must be 1 or more"),
        (["tiny.onnx", "--batch", "999"], "takes at most"),
        (["tiny.onnx", "--threads", "0"], "threads must be 1 or more"),
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


def test_an_empty_folder_and_a_changed_engine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold engines"):
        find_models(tmp_path)
    path = write_tiny_engine(tmp_path)
    write_sidecar(path, replace(read_sidecar(path), artefacts=()))
    with pytest.raises(UserError, match="must be one of the files"):
        make_report([path], Options(runs=1))


def test_the_report_needs_no_training_library() -> None:
    code = "import sys, runtime.report; sys.exit(bool({'torch', 'onnx', 'FrEIA'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
