"""What waits to be written where the log takes nothing."""

from pathlib import Path

import pytest

from runtime.records.log import Log
from runtime.records.shadows import Comparison
from runtime.shadow import ledger
from tests.support.judgements import judgement


def test_of_frames_that_the_log_does_not_take_the_newest_wait_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger, "ROWS", 3)
    one = ledger.Ledger(Log(tmp_path / "i.db"))
    one.begin(Comparison("", "cable.onnx", "a" * 64, "cable2.onnx", "b" * 64, "[1, 1, 2, 2]"))
    for index in range(6):
        one.enter(judgement(index, score=2.0), {"verdict": "good", "score": 1.0, "picture": b""}, apart=True)
    assert [row["frame"] for row in one._rows] == [3, 4, 5]
    assert one.counts.compared == 6
