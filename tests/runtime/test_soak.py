import json
import re
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime import overhead, soak
from runtime.common.errors import run_command
from runtime.common.soak_result import SAMPLES, Held, SoakResult, before_and_after
from runtime.images.regions import regions_above
from runtime.overheads.log import BOXES, LOGGED, with_boxes
from runtime.result import Result
from tests.support.tiny_engine import write_tiny_engine

GOOD = SoakResult(60.0, 1000, 1000, 1000, 300_000_000, 302_000_000, 20.0, 29.0, 25.0, "a device", 12, 12, 9, 9)


@pytest.mark.slow
def test_a_short_soak_loses_nothing_and_keeps_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hour's short form; its time is too short and this machine too busy to hold percentiles against a limit."""
    monkeypatch.setattr(soak, "CLIP_FRAMES", 20)  # however busy the machine is, it comes to the clip's end
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        outcome = soak.soak(detector, 0.06, tmp_path)
    assert outcome.frames_read == outcome.frames_judged == outcome.lines_written > soak.CLIP_FRAMES  # it loops
    assert (
        outcome.memory_after / outcome.memory_before < 1.05
    )  # an image kept a frame would be 0.9 MB of about 200 MB each
    assert 0 < outcome.execute_p50_ms <= outcome.execute_p99_ms
    lines = [json.loads(line) for line in (tmp_path / "frames.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(outcome.frames_read))
    assert {line["verdict"] for line in lines} <= {"good", "anomalous"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"lines_written": 999}, "lost results: 1 of 1000"),
        ({"memory_after": 303_100_000}, r"\+1\.03 %"),
        ({"execute_p99_ms": 30.2}, "ratio 1.51"),
        ({"handles_after": 13}, "12 handles and 9 threads after warm-up, 13 and 9 at the end"),
        ({"threads_after": 10}, "12 handles and 9 threads after warm-up, 12 and 10 at the end"),
        ({"handles_after": 11, "threads_after": 8}, None),
        ({"delivered": {"mqtt": 7}, "undelivered": {"mqtt": 1}}, "mqtt: 7 delivered, 1 not"),
    ],
)
def test_a_limit_that_is_not_held_is_told(changed: dict[str, float], said: str | None):
    outcome = SoakResult(**{**GOOD.__dict__, **changed})
    not_held = [line for line in outcome.text().splitlines() if "NOT HELD" in line]
    assert len(not_held) == sum(not held for _, held in outcome.checks()) == (said is not None)
    assert said is None or re.search(said, not_held[0])


@pytest.mark.parametrize(("leak", "grows"), [(0, False), (10_000, True)])
def test_what_waits_in_queues_is_no_growth_and_what_is_never_given_back_is(leak: int, grows: bool):
    waiting = [0, 9_000_000, 40_000_000]  # of pictures, by the sinks' pace
    samples = {i: Held(100_000_000 + waiting[(i // 7) % 3] + leak * i, 16, 17) for i in range(SAMPLES)}
    before, after = before_and_after(samples)
    assert (after.memory > 1.01 * before.memory) == grows


def test_the_soak_command_keeps_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    engine = write_tiny_engine(tmp_path)
    arguments = ["--engine", str(engine), "--minutes", "0.1", "--out", str(tmp_path / "out")]
    assert run_command(soak.main, arguments) in (0, 1)  # as this machine's load has it
    assert "lost results: 0 of" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "soak.json").read_text())["frames_read"] > 0
    assert run_command(soak.main, arguments) == 2  # lines of two runs would not be told apart
    assert "must not exist yet" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_command(soak.main, ["--engine", str(engine), "--minutes", "nan"])


def test_a_soak_that_judges_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--engine", str(write_tiny_engine(tmp_path)), "--minutes", "1e-9", "--out", str(tmp_path / "out")]
    assert run_command(soak.main, words) == 2
    assert "a soak must judge frames after its warm-up; found none; give it more --minutes" in capsys.readouterr().err


def test_a_soak_gives_every_sink_every_frame_and_serves_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    engine, out = write_tiny_engine(tmp_path), tmp_path / "out"
    files = ["--output", out / "folder", "--json-file", out / "lines.jsonl", "--video", out / "line.avi"]
    words = ["--engine", engine, "--minutes", 0.1, "--out", out, *files, "--events", out / "events", "--serve", 0]
    assert run_command(soak.main, [str(word) for word in words]) in (0, 1)
    said = capsys.readouterr()
    assert "page: http" in said.err
    outcome = json.loads((out / "soak.json").read_text())
    assert list(outcome["delivered"].values()) == [outcome["frames_read"]] * 4
    assert set(outcome["undelivered"].values()) == {0}
    assert f"{out / 'lines.jsonl'}: {outcome['frames_read']} delivered, 0 not" in said.out
    assert len((out / "lines.jsonl").read_text().splitlines()) == outcome["frames_read"]
    assert outcome["handles_before"] > 3 and outcome["threads_before"] > 5  # four sinks, the page's two


def test_the_overhead_is_told_by_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(overhead.main, ["--engine", str(write_tiny_engine(tmp_path)), "--frames", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    stages = [line[2:36].strip() for line in lines[2:]]
    assert stages[:5] == ["convert (capture's thread)", "capture", "preprocess", "execute", "overhead"]
    values = {stage: float(line[36:].split()[0]) for stage, line in zip(stages, lines[2:], strict=True)}
    assert all(value >= 0 for value in values.values())
    # what the loop does one after the other cannot be more than all of it: resizing is a part of the overhead
    assert values["overhead"] >= values["preprocess"]


def test_the_time_from_trigger_to_written_verdict_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--engine", str(write_tiny_engine(tmp_path)), "--frames", "5", "--trigger"]
    assert run_command(overhead.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    values = {line[2:36].strip(): [float(word) for word in line[36:].split()] for line in lines[2:5]}
    assert list(values) == ["trigger to written verdict", "execution", "difference"]
    assert values["trigger to written verdict"][0] >= values["execution"][0] >= 0
    assert lines[5].startswith("p99 of the trigger to its verdict is ")


def test_what_a_candidate_beside_costs_is_told_with_the_frames_that_it_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    engine, other = (str(write_tiny_engine(tmp_path, name)) for name in ("tiny", "other"))
    arguments = ["--engine", engine, "--shadow", other, "--frames", "5", "--rounds", "1", "--threads", "1"]
    assert run_command(overhead.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[1:3]] == ["no candidate", "a candidate beside"]
    assert all(float(line[20:].split()[0]) > 0 for line in lines[1:3]) and lines[3].startswith("ratio ")
    told = re.search(r"(\d+) compared, .*; (\d+) skipped, (\d+) without", lines[4])
    assert told and sum(map(int, told.groups())) == 10  # a round to warm up, and one that counts


def test_what_the_page_costs_is_told_by_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--engine", str(write_tiny_engine(tmp_path)), "--frames", "5", "--serve", "--rounds", "1"]
    assert run_command(overhead.main, [*arguments, "--viewers", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cases = ["no page", "nobody looks", "1 looks", "3 look", "3 do not read"]
    assert len(lines) == 6 and all(line.startswith(case) for line, case in zip(lines[1:], cases, strict=True))
    assert all(float(line[18:].split()[0]) > 0 for line in lines[1:])


def test_a_log_is_asked_for_a_thousand_rows_a_second_or_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--engine", str(write_tiny_engine(tmp_path)), "--frames", "20", "--log", "--rounds", "2"]
    assert run_command(overhead.main, arguments) == 0
    head, none, *beside = capsys.readouterr().out.splitlines()
    assert "medians of 2 rounds in turn" in head and none.startswith("no log") and len(beside) == 4
    for boxes, ratio, told in zip((0, BOXES), beside[:2], beside[2:], strict=True):
        assert re.match(rf"{boxes} boxes a row +[\d.]+ +[\d.]+   ratio [\d.]+, of the best rounds [\d.]+$", ratio)
        found = re.match(rf"{boxes} boxes a row: asked for (\d+) a second, written \d+ a second; ", told)
        assert found is not None and int(found[1]) >= LOGGED


@pytest.mark.parametrize("boxes", [0, 1, BOXES])
def test_rows_of_the_log_have_as_many_boxes_as_they_should(boxes: int):
    result = Result(np.ones((16, 24), np.float32), 1.0, "good", 1.0, 1.0, {})
    boxed = with_boxes(result, boxes)
    assert len(regions_above(boxed.anomaly_map, boxed.map_threshold, (48, 64))) == boxes


def test_what_the_drift_watch_costs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--engine", str(write_tiny_engine(tmp_path)), "--drift", "--frames", "50", "--rounds", "1"]
    assert run_command(overhead.main, arguments) == 0
    plain, watched, ratio = capsys.readouterr().out.splitlines()[1:]
    assert float(plain.split()[-2]) > 0 and float(watched.split()[-2]) > 0
    assert float(ratio.split()[1].rstrip(",")) == pytest.approx(
        float(watched.split()[-2]) / float(plain.split()[-2]), rel=0.05
    )
