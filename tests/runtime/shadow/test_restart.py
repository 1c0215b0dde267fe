"""What a restart does after a promotion: it goes on with that engine, and says so, or it does not start."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runtime import check, infer
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import Threshold
from runtime.engines.thresholds import store_in_sidecar
from runtime.recipes.promoted import Step, note_of, standing, write
from runtime.records.read import Query, audit, judgements
from tests.runtime.checks.test_check import parts
from tests.support.log_rows import asked
from tests.support.paths import ROOT
from tests.support.recipes import TWO, write_recipes
from tests.support.shadow_rig import BETWEEN, GOOD, engines, note, shadowing
from tests.support.small_disk import fill, small_disk
from tests.support.snapshot_server import SnapshotServer, jpeg
from tests.support.tiny_engine import write_tiny_engine

pytestmark = pytest.mark.usefixtures("few")


def _promoted(folder: Path, *words: str) -> None:
    """Promote the candidate, and end the line."""
    with shadowing(folder, *words) as rig:
        rig.feed(*[GOOD] * 4)
        answer = rig.change(name="Ann", override="anyway")
        assert answer.status == 200, answer.body


def _judge(folder: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Judge a picture between the thresholds as `runtime.infer` does."""
    (folder / "frame").mkdir(exist_ok=True)
    (folder / "frame" / "a.jpg").write_bytes(jpeg(BETWEEN - 20))
    given = ["--engine", folder / "cable.onnx", "--source", folder / "frame", "--json-file", folder / "lines.jsonl"]
    command = [*given, "--backend", "onnxruntime", "--threads", "1", *words]
    status = run_command(infer.main, [str(word) for word in command])
    lines = folder / "lines.jsonl"
    return status, [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []


def test_a_restart_goes_on_with_what_was_promoted_and_lets_the_old_one_come_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    _promoted(folder)
    capsys.readouterr()
    with shadowing(folder) as rig:  # the same command line
        said = capsys.readouterr().err
        assert "engine: cable2.onnx, promoted in the place of cable.onnx by Ann, page, open to all" in said
        rig.judge(BETWEEN)
        assert rig.judgements[0].result.threshold == 2.0
        assert (rig.state()["candidate"], rig.state()["action"]) == ("cable.onnx", "rollback")
        assert rig.change("rollback").status == 200
        rig.judge(BETWEEN)
        assert rig.judgements[1].result.threshold == 1.0
    with shadowing(folder) as rig:
        rig.judge(BETWEEN)
        assert rig.judgements[0].result.threshold == 1.0 and rig.state()["action"] == "promote"
    changes = [change for change in audit(folder / "i.db") if change["origin"] == "start"]
    assert [change["what"] for change in changes] == ["log"]  # nothing was otherwise at a start


def test_a_line_without_shadow_and_log_goes_on_with_it_too(folder: Path, capsys: pytest.CaptureFixture[str]):
    _promoted(folder)
    capsys.readouterr()
    status, lines = _judge(folder)
    assert status == 0 and lines[-1]["threshold"] == 2.0 and lines[-1]["verdict"] == "good"
    assert "engine: cable2.onnx, promoted in the place of cable.onnx" in capsys.readouterr().err


def test_the_command_lines_threshold_is_for_the_engine_that_it_names(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ("--threshold", "0.7")
    _promoted(folder, *words)
    capsys.readouterr()
    with shadowing(folder, *words) as rig:
        assert "it has a threshold of its own" in capsys.readouterr().err
        rig.judge(BETWEEN)
        assert rig.judgements[0].result.threshold == 2.0 and rig.state()["candidate_threshold"] == 0.7
        assert rig.change("rollback").status == 200
        rig.feed(BETWEEN)
        assert rig.judgements[1].result.threshold == 0.7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "cable2.onnx").unlink(), "must be there; found no such file; put it back as it was"),
        (
            lambda folder: write_tiny_engine(folder, "cable2", size=(16, 16)),
            "must be there as it was; found another file",
        ),
        (lambda folder: note_of(folder / "cable.onnx").write_text("{}"), "must say what was promoted"),
        (lambda folder: note_of(folder / "cable.onnx").write_text('{"schema": 1'), "must be JSON"),
    ],
)
def test_where_it_cannot_go_on_with_it_the_line_does_not_start(
    folder: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]
):
    _promoted(folder)
    change(folder)
    capsys.readouterr()
    status, lines = _judge(folder)
    found = capsys.readouterr().err
    assert status == 2 and not lines and said in found and "Traceback" not in found
    assert "remove" in found  # the way back to the old one


def test_an_engine_that_was_built_anew_judges_itself(folder: Path, capsys: pytest.CaptureFixture[str]):
    _promoted(folder)
    write_tiny_engine(folder, "cable", size=(16, 16), threshold=1.1)
    capsys.readouterr()
    status, lines = _judge(folder)
    assert status == 0 and lines[-1]["threshold"] == 1.1
    assert "cable.onnx, which is another file than cable2.onnx was promoted from" in capsys.readouterr().err
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        assert rig.change().status == 200
    [step] = note(folder)["recipes"][""]["promoted"]
    assert step["file"] == "cable2.onnx" and _judge(folder)[1][-1]["threshold"] == 2.0


def test_a_second_candidate_is_promoted_on_top_of_the_first(folder: Path):
    _promoted(folder)
    write_tiny_engine(folder, "cable3", threshold=1.2)
    third = ("--shadow", str(folder / "cable3.onnx"))
    with shadowing(folder, *third) as rig:
        assert (rig.state()["running"], rig.state()["action"]) == ("cable2.onnx", "promote")
        assert rig.change(override="anyway").status == 200
        assert (rig.state()["candidate"], rig.state()["action"]) == ("cable2.onnx", "rollback")
    assert [step["file"] for step in note(folder)["recipes"][""]["promoted"]] == ["cable2.onnx", "cable3.onnx"]
    with shadowing(folder, *third) as rig:
        assert rig.change("rollback").status == 200
    assert [step["file"] for step in note(folder)["recipes"][""]["promoted"]] == ["cable2.onnx"]
    assert _judge(folder)[1][-1]["threshold"] == 2.0


def test_a_recipes_promotion_is_for_that_recipe(folder: Path):
    text = TWO + '[[recipe]]\nname = "third"\nengine = "{folder}/high.onnx"\nthreshold = 1.4\n'
    words = ["--recipes", str(write_recipes(folder, text)), "--shadow-recipe", "high"]
    _promoted(folder, *words)
    assert list(json.loads(note_of(folder / "high.onnx").read_text())["recipes"]) == ["high"]
    with shadowing(folder, *words) as rig:
        names = {one.name: (one.engine, one.limits[0]) for one in rig.recipes.all}
        assert names == {"low": ("low.onnx", 1.0), "high": ("cable2.onnx", 2.0), "third": ("high.onnx", 1.4)}
        assert rig.state()["action"] == "rollback"


def test_a_check_is_of_the_engine_that_was_promoted(folder: Path, capsys: pytest.CaptureFixture[str]):
    _promoted(folder)
    golden = parts(folder / "parts")
    words = ["--golden", golden, "--engine", folder / "cable.onnx", "--log", folder / "i.db"]
    store_in_sidecar(folder / "cable2.onnx", "manual", Threshold(1.0, "for these parts"), default=True)
    for more in (["--record"], []):
        assert run_command(check.main, [str(word) for word in [*words, "--backend", "onnxruntime", *more]]) == 0, (
            capsys.readouterr()
        )
    [(engine,)] = asked(folder / "i.db", "SELECT engine_sha256 FROM checks")
    assert engine == note(folder)["recipes"][""]["promoted"][0]["sha256"]


def test_a_note_that_cannot_be_written_leaves_the_one_before(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        engines(disk)
        named = disk / "cable.onnx"
        sha = "0" * 64
        now = standing(named).on(Step.of(disk / "cable2.onnx", named, sha, "Ann", "here"))
        write(now, "", sha)
        before = note_of(named).read_bytes()
        filler = fill(disk)
        with pytest.raises((OSError, UserError)):
            write(now.back(), "other", sha)
            write(now.on(now.steps[0]), "", sha)
        filler.unlink()
        assert note_of(named).read_bytes() == before


def _act(page: str, action: str, body: dict[str, str]) -> int:
    headers = {"Content-Type": "application/json", "X-Requested-By": "cflow-edge"}
    request = urllib.request.Request(f"{page.rstrip('/')}/api/{action}", json.dumps(body).encode(), headers)
    return int(urllib.request.urlopen(request, timeout=60).status)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_line_that_is_ended_after_a_promotion_goes_on_with_it(folder: Path, number: int):
    """The whole of it, as users run it: a camera, a page, a promotion while frames come, an end, and a start."""
    with closing(SnapshotServer()) as camera:
        camera.content = jpeg(BETWEEN - 20)
        command = [sys.executable, "-m", "runtime.infer", "--engine", str(folder / "cable.onnx"), "--threads", "1"]
        command += ["--source", f"http://127.0.0.1:{camera.port}/", "--camera-fps", "50", "--frozen-after", "0"]
        command += ["--backend", "onnxruntime", "--log", str(folder / "i.db"), "--json"]
        command += ["--shadow", str(folder / "cable2.onnx")]
        serve = [*command, "--serve", "0"]
        with subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as line:
            assert line.stderr is not None
            address = next(re.match(r"page: (http://\S+)", text) for text in line.stderr if text.startswith("page: "))
            assert address
            try:
                state = json.load(urllib.request.urlopen(f"{address[1].rstrip('/')}/api/state", timeout=10))
                body = {"candidate": state["shadow"]["candidate_sha256"], "override": "anyway"}
                assert _act(address[1], "promote", body) == 200
            except BaseException:
                line.kill()
                raise
            line.send_signal(number)
            said = line.communicate(timeout=60)[1]
        assert "Traceback" not in said, said
        again = subprocess.run([*command, "--limit", "3"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0 and "engine: cable2.onnx, promoted in the place of cable.onnx" in again.stderr
        lines = [json.loads(line) for line in again.stdout.splitlines()]
        assert {(one["threshold"], one["verdict"]) for one in lines} == {(2.0, "good")}
        assert "shadow: cable.onnx beside cable2.onnx" in again.stderr
    limits = {"cable.onnx": 1.0, "cable2.onnx": 2.0}
    found = list(judgements(folder / "i.db", Query()))
    assert all(record["threshold"] == limits[record["engine"]] for record in found)
    assert {record["engine"] for record in found[:3]} == {"cable2.onnx"}
    assert asked(folder / "i.db", "PRAGMA integrity_check") == [("ok",)]
