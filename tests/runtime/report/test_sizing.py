"""Boxes for cameras, against a queue that fills boxes one camera after the other."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.report.plant import main
from runtime.report.schema import Timing, to_json
from runtime.report.sizing import Demand, Plan, boxes, cameras_a_box, frame_ms, sizing
from tests.support.paths import ROOT
from tests.support.report_rows import CONDITIONS, MACHINE, METHOD, report, row

PLAN = Plan((Demand(4, 25.0),), 0.7)


def _filled(busy_ms: float, demand: Demand, utilisation: float) -> int | None:
    """Put camera after camera where there is room; None where there is none in an empty box."""
    loads: list[float] = []
    one = demand.fps * busy_ms / 1e3
    if one > utilisation:
        return None
    for _ in range(demand.cameras):
        if not loads or loads[-1] + one > utilisation:
            loads.append(0.0)
        loads[-1] += one
    return len(loads)


def test_boxes_are_those_of_filling_them_one_by_one():
    random = np.random.default_rng(3)
    for _ in range(500):
        busy_ms, fps, share = (
            float(random.uniform(1, 80)),
            float(random.uniform(1, 60)),
            float(random.uniform(0.1, 0.95)),
        )
        demand = Demand(int(random.integers(1, 40)), fps)
        assert boxes(busy_ms, demand, share) == _filled(busy_ms, demand, share)


def test_a_load_of_exactly_the_limit_fits():
    assert cameras_a_box(28.0, 25.0, 0.7) == 1  # 25 times 28 ms is 0.7 s a second
    assert cameras_a_box(28.1, 25.0, 0.7) == 0 and boxes(28.1, Demand(1, 25.0), 0.7) is None
    assert cameras_a_box(0.1, 30.0, 0.9) == 300  # 0.9 / 0.003 is 299.99999999999994 in floating point


def test_the_time_of_a_frame_is_the_mean_of_all_runs_and_what_is_around_it():
    timing = Timing(((10.0, 20.0), (), (60.0,)), 2)
    assert frame_ms(timing, 3.0) == pytest.approx((10 + 20 + 60) / 3 / 2 + 3)  # not the median's 10 + 3


def test_what_was_not_measured_is_called_so_and_never_guessed():
    measured = report(row(verdict=10.0), row("encoder", network=5.0), row("padim", verdict=1.0))
    cpu, gpu = sizing([measured], PLAN).rows
    assert (cpu["engine"], cpu["4 x 25 fps"]) == ("OpenVINO", "2 (4)")  # 10.3 ms: 2 cameras a box, of 2 cores
    assert gpu["engine"] == "TensorRT"
    assert {gpu[name] for name in ("busy ms", "p99 ms", "4 x 25 fps")} == {"not measured"}


def test_a_report_of_a_gpu_box_takes_the_place_of_what_was_not_measured():
    cpu = report(row(verdict=10.0))
    gpu = report(
        row(verdict=1.0, engine="TensorRT", precision="fp16"), machine=replace(MACHINE, device="a GPU", cores=8)
    )
    first, second = sizing([cpu, gpu], PLAN).rows
    assert (first["box"], first["4 x 25 fps"]) == ("a device", "2 (4)")
    assert (second["box"], second["4 x 25 fps"]) == ("a GPU", "1 (8)")


def test_cores_are_those_that_the_report_used():
    one_thread = report(row(verdict=10.0), method=replace(METHOD, threads=1))
    assert sizing([one_thread], PLAN).rows[0]["4 x 25 fps"] == "2 (2)"


def test_only_the_size_that_is_asked_for_and_the_reports_warnings():
    conditions = replace(CONDITIONS, warnings=("other programs ran",))
    found = report(row(verdict=10.0), row(verdict=40.0, input_size=(512, 512)), conditions=conditions)
    table = sizing([found], PLAN, (512, 512))
    assert [line["size"] for line in table.rows] == ["512x512", "512x512"]
    assert "warning of the report: other programs ran" in table.prose
    with pytest.raises(UserError, match="verdict at 128x128; found 256x256, 512x512; measure it with"):
        sizing([found], PLAN, (128, 128))
    with pytest.raises(UserError, match="found no detector's verdict"):
        sizing([report(row("encoder", network=5.0))], PLAN)


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "report.json"
    path.write_text(to_json(report(row(verdict=10.0))))
    words = ["--report", str(path), "--cameras", "4", "16", "--fps", "25", "--size", "256"]
    main([*words, "--utilisation", "0.5", "--overhead", "9.6"])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split("  ")[0] == "cflow row" and " ".join(line.split()[3:]) == "OpenVINO fp32 19.9 12.0 4 (8) 16 (32)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fps", "0"], "argument --fps: expected frames a second above 0, found '0'"),
        (["--fps", "nan"], "argument --fps: expected frames a second above 0, found 'nan'"),
        (["--fps", "25", "--utilisation", "1"], "expected a share above 0 and below 1, found '1'"),
        (["--fps", "25", "--overhead", "-1"], "expected milliseconds from 0 up, found '-1'"),
        (["--fps", "25", "--size", "256x"], "expected a size such as 256 or 272x240, found '256x'"),
        (["--fps", "25"], "must be a report.json"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, tmp_path: Path):
    command = ["-m", "cflow", "plant", "--report", str(tmp_path / "none.json"), "--cameras", "4", *words]
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "") and said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
