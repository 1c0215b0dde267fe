"""The CPU benchmark: its arithmetic on made-up times, and one whole run of a small model in every engine."""

import json

import numpy as np
import pytest
import torch

from export.bench import cpu as cpu_benchmark
from export.bench.cpu import main, random_checkpoint, summarise, table
from export.bench.cpu_engines import measure_in_turn, with_onnxruntime, with_openvino, with_torch
from export.bench.cpu_rows import ANOMALIB, UNFUSED, Row, encoder_taps, up_to
from export.graph.flops import count_flops
from export.model.cflow import DetectorModule
from export.model.checkpoint import save_checkpoint
from runtime.common.errors import UserError, run_command
from tests.support.export_fixtures import checkpoint_of, exported, small_config


def _row(name: str, gflop: float, operands: str = "float32", encoder: str = "", judges: bool = True) -> Row:
    return Row(name, lambda batch: [batch], np.zeros(1), int(gflop * 1e9), operands, encoder, judges)


def test_the_figures_follow_from_the_times():
    rows = [
        _row(UNFUSED, 8),
        _row("fused", 6, encoder="alone"),
        _row("alone", 3, judges=False),
        _row("narrow", 6, "bfloat16"),
        _row(ANOMALIB, 9, judges=False),
    ]
    weather = np.array([[1.0], [5.0], [1.0], [2.0], [1.0]])  # what slows a whole round cancels in ratios
    times = weather * np.array([30.0, 20.0, 10.0, 5.0, 40.0])
    maps = [np.full((1, 2, 2), value) for value in (1.0, 1.5, 9.0, 0.75, 9.0)]
    unfused, fused, alone, narrow, anomalib = summarise(rows, times, maps, {"float32": 600.0})
    assert [f.p50_ms for f in (unfused, fused, alone, narrow, anomalib)] == [30, 20, 10, 5, 40]
    assert fused.best_ms == 20 and narrow.best_ms == 5
    assert [f.times_unfused for f in (unfused, fused, alone, narrow, anomalib)] == [1, 1.5, 3, 6, 0.75]
    assert [f.times_anomalib for f in (unfused, fused)] == pytest.approx([4 / 3, 2])
    assert fused.full_to_encoder == 0.5 and alone.full_to_encoder is None
    assert fused.gflops == pytest.approx(300) and fused.of_possible == pytest.approx(0.5)  # 6 GFLOP in 20 ms
    assert narrow.of_possible is None  # nothing is known of what is possible in that type
    assert [f.map_error for f in (unfused, fused, alone, narrow, anomalib)] == [0, 0.5, None, 0.25, None]


def test_without_anomalib_there_is_no_ratio_to_it():
    (figures,) = summarise([_row(UNFUSED, 8)], np.array([[30.0]]), [np.zeros(1)], {})
    assert figures.times_anomalib is None and figures.times_unfused == 1


def test_the_encoder_alone_gives_the_taps_of_the_whole():
    detector = exported(small_config())
    taps = encoder_taps(detector.fused)
    alone = up_to(detector.fused, taps)
    names = {node.name for node in alone.graph.node}
    assert len(taps) == 2 and all(name.startswith(("encoder/", "normalise/")) for name in names)
    frames = detector.frames[:1]
    outputs = with_onnxruntime(alone, 1)(frames)
    assert {output.shape for output in outputs} == {(1, 64, 16, 24), (1, 128, 8, 12)}
    for output, other in zip(outputs, with_openvino(alone, 1, "float32", frames.shape)(frames), strict=True):
        np.testing.assert_allclose(output, other, atol=1e-4)  # float32 sums of some hundred terms near 1
    assert count_flops(alone, {"frames": frames}) < count_flops(detector.fused, {"frames": frames})
    with pytest.raises(UserError, match="must end in tensors"):
        encoder_taps(alone)


def test_each_has_its_turn_in_each_round_after_one_that_does_not_count():
    calls: list[str] = []
    times = measure_in_turn([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "a", "b", "b"] * 3 and times.shape == (3, 2) and (times >= 0).all()


def test_a_checkpoint_in_every_engine(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("export.bench.cpu_peak.SIDE", 64)
    model, out = tmp_path / "cable.pt", tmp_path / "figures.json"
    save_checkpoint(model, checkpoint_of(small_config()))
    assert run_command(main, [str(model), "--threads", "1", "--runs", "1", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    benchmark = json.loads(out.read_text())
    rows = {row["name"]: row for row in benchmark["rows"]}
    assert (benchmark["encoder"], benchmark["input_size"], benchmark["threads"]) == ("resnet18", [64, 96], 1)
    assert all(name in printed for name in rows)
    for engine in ("ONNX Runtime", "OpenVINO"):
        full, alone = rows[f"fused, {engine}"], rows[f"fused, {engine}, encoder alone"]
        assert alone["gflop"] < full["gflop"] < rows[UNFUSED]["gflop"]
        assert full["map_error"] < 1e-4 and alone["map_error"] is None  # float32 in every engine
        assert full["full_to_encoder"] > 0 and full["of_possible"] > 0
        assert rows[f"INT8, {engine}"]["map_error"] > 1e-4
    assert rows["PyTorch, eager"]["map_error"] < 1e-4
    assert ("bfloat16, OpenVINO" in rows) == ("bfloat16" in benchmark["possible_gflops"])


def test_the_random_model_is_the_same_every_time_and_judges():
    (first, info), (second, _) = (random_checkpoint("resnet18", (64, 64)) for _ in range(2))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    )
    assert first.constants.isfinite().all() and info.sidecar.input_size == (64, 64)
    _, score = DetectorModule(first.model, first.constants)(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert score.shape == (2,) and score.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--encoder", "vgg16"], "the encoder must be one of"),
        (["--size", "64", "--threads", "0"], "threads and rounds must be 1 or more"),
        (["--size", "64", "--runs", "0"], "threads and rounds must be 1 or more"),
        (["missing.pt"], "missing.pt"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, expected, capsys):
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error


def test_the_table_shows_a_dash_where_there_is_no_figure():
    rows = [_row(UNFUSED, 8), _row("alone", 3, judges=False)]
    figures = summarise(rows, np.array([[30.0, 10.0]]), [np.zeros(1)] * 2, {"float32": 600.0})
    benchmark = cpu_benchmark.Benchmark("a CPU", 2, 1, "resnet18", (256, 320), {"float32": 600.0}, figures)
    lines = table(benchmark).splitlines()
    assert lines[1].split() == [
        "unfused,",
        "ONNX",
        "Runtime",
        "30.0",
        "30.0",
        "1.00",
        "-",
        "8.00",
        "267",
        "44%",
        "-",
        "0.0e+00",
    ]
    assert lines[2].split() == ["alone", "10.0", "10.0", "3.00", "-", "3.00", "300", "50%", "-", "-"]
    assert "resnet18 at 256x320, batch 1, 2 threads" in lines[4] and "float32 600" in lines[5]


def test_eager_rows_leave_torchs_threads_as_they_were():
    before = torch.get_num_threads()
    seen = []

    class Counted(torch.nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return [x]

    with_torch(Counted(), before + 1)(np.zeros((1, 2), np.float32))
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
