"""`cflow trace` over logs that real runs and the log's own sink have written."""

import csv
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import infer, trace
from runtime.common.errors import run_command
from runtime.common.files import sha256_of
from runtime.common.locks import one_writer
from runtime.records import export
from runtime.records.log import Log
from runtime.records.options import run_of
from runtime.records.read import FIELDS
from runtime.records.run import RunRecord
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.reliability.victims import pictures
from tests.support.judgements import judgement
from tests.support.log_rows import rows
from tests.support.tiny_engine import write_tiny_engine


def _part(index: int, part: str, score: float = 0.5) -> Judgement:
    one = judgement(index, score)
    return replace(one, trigger=Trigger(part, one.judged_s - 0.02, "http"), run="run-1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Ten judgements of five parts, each of them twice, in two files."""
    path = tmp_path / "i.db"
    with LogSink(writer := Log(path)) as sink:
        writer.begin(RunRecord("run-1", engine="tiny.onnx", engine_sha256="a" * 64))
        for index in range(5):
            sink.write(_part(index, f"SN-{index}"))
    path.rename(tmp_path / "i.000001.db")
    with LogSink(Log(path)) as sink:
        for index in range(5, 10):
            sink.write(_part(index, f"SN-{index - 5}", 1.5))
    return path


def _said(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> str:
    capsys.readouterr()
    assert run_command(trace.main, [str(word) for word in words]) == status
    return capsys.readouterr().out


def _records(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict]:
    return [json.loads(line) for line in _said(capsys, *words, "--json").splitlines()]


def test_all_of_a_part_is_found_the_newest_first(log: Path, capsys: pytest.CaptureFixture[str]):
    found = _records(capsys, "--log", log, "--part", "SN-3")
    assert [(record["frame"], record["verdict"]) for record in found] == [(8, "anomalous"), (3, "good")]
    assert [record["id"] for record in found] == [9, 4] and found[1]["engine_sha256"] == "a" * 64
    head, newest, older = _said(capsys, "--log", log, "--part", "SN-3").splitlines()
    assert " ".join(head.split()) == "time part verdict score threshold source frame age ms answer ms engine"
    assert newest.split()[:6] == ["2023-11-14T22:13:20.570+00:00", "SN-3", "anomalous", "1.5000", "1.0000", "camera:0"]
    assert older.split()[6:] == ["f000003", "5.0", "20.0", "tiny.onnx", "a" * 12]


def test_recipes_are_a_column_where_there_are_some_and_one_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "i.db"
    names = ["plug 7", "", "none", "Stück «Ä»", "'; DROP TABLE runs"]
    with LogSink(Log(path)) as sink:
        for index, name in enumerate(names):
            sink.write(replace(_part(index, "SN"), recipe=name))
    head, *lines = _said(capsys, "--log", path).splitlines()
    assert head.split()[:4] == ["time", "part", "recipe", "verdict"]
    place = head.index("recipe")
    assert [line[place:].partition("  ")[0] for line in reversed(lines)] == [name or "-" for name in names]
    for index, name in enumerate(names):
        assert [one["frame"] for one in _records(capsys, "--log", path, "--recipe", name)] == [index]
    assert "recipe" not in _said(capsys, "--log", path, "--recipe", "").splitlines()[0]
    assert _said(capsys, "--log", path, "--recipe", "plug", status=1) == ""


@pytest.mark.parametrize(
    ("words", "frames"),
    [
        ([], list(range(9, -1, -1))),
        (["--limit", 3], [9, 8, 7]),
        (["--verdict", "good"], [4, 3, 2, 1, 0]),
        (["--from", "2023-11-14T22:13:20.450Z"], [9, 8, 7, 6, 5]),  # frame 5, 200 ms after the first
        (["--from", "2023-11-14", "--to", "2023-11-15"], list(range(9, -1, -1))),
        (["--from", "2023-11-14T23:13:20.300+01:00", "--to", "2023-11-14T22:13:20.380"], [3, 2]),
        (["--part", "SN-1", "--verdict", "anomalous"], [6]),
    ],
)
def test_what_is_asked_for_is_found(words: list, frames: list[int], log: Path, capsys: pytest.CaptureFixture[str]):
    assert [record["frame"] for record in _records(capsys, "--log", log, *words)] == frames


@pytest.mark.parametrize("words", [["--part", "SN-9"], ["--to", "2000-01-01"], ["--csv", "x.csv", "--part", "\udce9"]])
def test_nothing_found_is_status_1_and_no_file(
    words: list, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(log.parent)
    assert run_command(trace.main, ["--log", "i.db", *words]) == 1
    assert capsys.readouterr() == ("", "nothing found in i.db\n") and not Path("x.csv").exists()


def test_exports_hold_the_same_as_the_lines(log: Path, capsys: pytest.CaptureFixture[str]):
    from pyarrow import parquet

    lines = _records(capsys, "--log", log)[::-1]
    table, sheet = log.with_suffix(".parquet"), log.with_suffix(".csv")
    assert _said(capsys, "--log", log, "--parquet", table) == f"wrote {table}: 10 judgements\n"
    assert _said(capsys, "--log", log, "--csv", sheet) == f"wrote {sheet}: 10 judgements\n"
    stored = parquet.read_table(table).to_pylist()
    assert list(stored[0]) == list(FIELDS)
    for name in ("boxes", "latency_ms"):
        stored = [{**record, name: json.loads(record[name])} for record in stored]
    assert [{name: value for name, value in record.items() if value is not None} for record in stored] == lines
    with sheet.open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [[row["id"], row["part"], float(row["score"])] for row in cells] == [
        [str(record["id"]), record["part"], record["score"]] for record in lines
    ]


def test_an_export_of_many_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(export, "GROUP", 500)
    path = tmp_path / "i.db"
    with Log(path) as log:
        some = rows(0, 1000)
        for _ in range(20):
            log.append(some)
    for option in ("--csv", "--parquet"):
        _said(capsys, "--log", path, option, tmp_path / "few", "--to", "2023-11-14T22:13:21")  # what is imported stays
        tracemalloc.start()
        assert "20000 judgements" in _said(capsys, "--log", path, option, tmp_path / "all")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 4 << 20  # all of them at once: 40 MB


def test_parquet_without_its_library_is_one_line(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run_command(trace.main, ["--log", str(log), "--parquet", str(log.with_suffix(".parquet"))]) == 2
    assert capsys.readouterr().err == "error: --parquet needs pyarrow; found none; pip install 'cflow-edge[parquet]'\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log", "none.db"], "none.db must be an inspection log; found no such file"),
        (["--log", "."], ". must be an inspection log; found a folder"),
        (["--log", "i.db", "--from", "yesterday"], "a time must be a date or a date and time, in UTC"),
        (["--log", "i.db", "--from", "2023-13-01"], "a time must be a date or a date and time, in UTC"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(log.parent)
    assert run_command(trace.main, words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1


def test_a_part_id_cannot_write_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with LogSink(Log(tmp_path / "i.db")) as sink:
        sink.write(_part(0, "\x1b[2J\nSN-1  good"))
    said = _said(capsys, "--log", tmp_path / "i.db")
    assert "\x1b" not in said and said.count("\n") == 2 and r"\x1b[2J\nSN-1  good" in said


def test_a_log_without_a_judgement_yet_has_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty.db").touch()
    Log(tmp_path / "new.db").close()
    for name in ("empty.db", "new.db"):
        _said(capsys, "--log", tmp_path / name, status=1)
        _said(capsys, "--log", tmp_path / name, "--audit", status=1)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `runtime.infer` has run twice with one log, by another threshold the second time."""
    folder = tmp_path_factory.mktemp("line")
    engine = write_tiny_engine(folder)
    images = [pictures(folder / name, 8, seed) for seed, name in enumerate(("left", "right"))]
    for threshold in (1.0, 1.5):
        words = ["--engine", engine, "--source", images[0], "--source", images[1], "--threads", 1, "--batch-cameras"]
        files = ["--log", folder / "i.db", "--output", folder / "out", "--events", folder / "events"]
        more = ["--json-file", folder / "all.jsonl", "--threshold", threshold]
        names = ["--name", "left", "--name", "the right one"]
        assert run_command(infer.main, [str(word) for word in [*words, *files, *more, *names]]) == 0
    return folder


def test_a_runs_judgements_are_those_of_its_lines(line: Path, capsys: pytest.CaptureFixture[str]):
    lines = [json.loads(text) for text in (line / "all.jsonl").read_text().splitlines()]
    found = _records(capsys, "--log", line / "i.db")[::-1]
    assert len(found) == len(lines) == 32 and len({record["run"] for record in found}) == 2
    same = [name for name in lines[0] if name != "view"]
    for record in found:
        assert {name: record[name] for name in same} in [{name: line[name] for name in same} for line in lines]
    assert {record["engine"] for record in found} == {"tiny.onnx"}
    [digest] = {record["sidecar_sha256"] for record in found}
    assert digest == sha256_of(line / "tiny.json")
    assert {record["engine_sha256"] for record in found} == {sha256_of(line / "tiny.onnx")}


def test_the_pictures_of_a_judgement_are_named_while_they_are_there(line: Path, capsys: pytest.CaptureFixture[str]):
    found = _records(capsys, "--log", line / "i.db")
    assert all(Path(record["overlay"]).is_file() for record in found)
    assert len({record["overlay"] for record in found}) == 16  # the second run replaced the first one's
    assert {record["verdict"] for record in found if "event" in record} >= {"anomalous"}
    assert all((Path(record["event"]) / "event.json").is_file() for record in found if "event" in record)


def test_another_threshold_than_before_is_in_the_audit(line: Path, capsys: pytest.CaptureFixture[str]):
    changes = _records(capsys, "--log", line / "i.db", "--audit")
    assert [(change["what"], change["old"], change["new"]) for change in changes] == [
        ("map threshold", "1", "1.5"),
        ("threshold", "1", "1.5"),
        ("log", "", "begun"),
    ]
    said = _said(capsys, "--log", line / "i.db", "--audit", "--limit", 2).splitlines()
    assert said[0].split() == ["time", "what", "from", "to", "who", "where"] and len(said) == 3


def test_a_second_run_into_one_log_is_refused(line: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--engine", line / "tiny.onnx", "--source", line / "left", "--log", line / "i.db"]
    with one_writer(line / "i.db", "i.db", ""):
        assert run_command(infer.main, [str(word) for word in words]) == 2
    assert f"{line / 'i.db'} must have one writer at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log-keep", "3"], "--log-keep needs --log FILE"),
        (["--log", "i.db", "--log-cap", "1MB"], "--log-cap must be at least 16MB; found 1000000 bytes"),
        (["--log", "i.db", "--log-keep", "0"], "expected a number above 0, found '0'"),
        (["--log", "tiny.onnx"], "tiny.onnx must be an inspection log; found another kind of file"),
        (["--log", "left"], "left must be a file; found a folder"),
    ],
)
def test_a_log_that_cannot_be_is_one_line_before_the_first_frame(
    words: list[str], said: str, line: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(line)
    before = Path("tiny.onnx").read_bytes()
    try:
        status = run_command(infer.main, ["--engine", "tiny.onnx", "--source", "left", *words])
    except SystemExit as ended:
        status = ended.code
    out, error = capsys.readouterr()
    assert status == 2 and said in error and "Traceback" not in error and out == ""
    assert Path("tiny.onnx").read_bytes() == before


def test_nothing_of_a_password_is_in_a_runs_record():
    address = "rtsp://user:pass-word@192.0.2.1/x?key=other-word"
    words = ["--engine", "a.onnx", "--source", address, "--source", f"gst: rtspsrc location={address} ! appsink"]
    args = infer.build_parser().parse_args([*words, "--frozen-after", "0", "--rotate", "90", "--roi", "1,2,3,4"])
    record = run_of(args, {"threshold": 1.0}, ["one", "two"])
    assert "-word" not in repr(record.row()) and "rtsp://user:***@192.0.2.1/x?***" in record.options["source"]
    assert record.options["frozen_after"] == 0 and "webhook_all" not in record.options
    assert record.settings == {"sources": "one, two", "roi": "1,2,3,4", "rotate": "90"}
