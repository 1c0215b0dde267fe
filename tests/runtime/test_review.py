"""Verdicts corrected from the command line."""

import json
from pathlib import Path

import pytest

from runtime import review
from runtime.common.errors import run_command
from runtime.records.log import Log
from runtime.records.marks import LONGEST_REASON
from runtime.records.read import audit
from tests.support.log_rows import rows


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two good judgements, 1 and 2, and two anomalous ones, 3 and 4."""
    path = tmp_path / "i.db"
    with Log(path) as writer:
        writer.append(rows(0, 2))
        writer.append(rows(2, 2, 1.5))
    return path


def _review(log: Path, *words: str) -> int:
    try:
        return run_command(review.main, ["--log", str(log), *words])
    except SystemExit as ended:  # of the parser
        assert isinstance(ended.code, int)
        return ended.code


def test_a_verdict_is_corrected_listed_and_taken_back(log: Path, capsys: pytest.CaptureFixture[str]):
    assert _review(log) == 1 and "nothing is marked" in capsys.readouterr().err
    with Log(log):  # a line may write meanwhile
        assert _review(log, "--false-alarm", "3", "--reason", "a \x1b[31mreflection", "--who", "Ann") == 0
        assert _review(log, "--missed", "1") == 0
    capsys.readouterr()
    assert _review(log) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["marked", "judgement", "part", "what"]
    assert [line.split()[1] for line in lines] == ["3", "1"] and "\x1b" not in "".join(lines)
    assert "false alarm" in lines[0] and "Ann" in lines[0] and "missed" in lines[1]
    assert _review(log, "--undo", "3") == 0
    capsys.readouterr()
    assert _review(log, "--json") == 0
    (only,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (only["judgement"], only["kind"], only["about"]["verdict"]) == (1, "missed", "good")
    assert [change["what"] for change in audit(log)][:3] == ["judgement 3", "judgement 1", "judgement 3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--false-alarm", "1"], "must be anomalous; found judgement 1: good"),
        (["--missed", "3"], "must be good; found judgement 3: anomalous"),
        (["--undo", "3"], "judgement 3 must be marked to be undone"),
        (["--missed", "99"], "must hold the judgement 99"),
        (["--missed", "0"], "argument --missed"),
        (["--false-alarm", "3", "--reason", "x" * (LONGEST_REASON + 1)], "must have at most 300 characters, found 301"),
        (["--reason", "dust"], "--reason and --who need"),
    ],
)
def test_what_cannot_be_said_is_one_line_and_changes_nothing(
    log: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert _review(log, *words) == 2
    assert said in capsys.readouterr().err and audit(log) is not None
    assert _review(log) == 1


def test_a_file_that_is_no_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert _review(tmp_path / "none.db", "--missed", "1") == 2
    assert capsys.readouterr().err.count("\n") == 1
