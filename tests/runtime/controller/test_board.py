"""When a verdict is shown, and when it falls to "none"."""

import math
from dataclasses import dataclass, replace

import pytest

from runtime.controller.answer import UNDECIDED, WRAP, Answer, Totals, Why
from runtime.controller.board import BEAT_S, LOOK_S, Board, Limits
from runtime.result import Result
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.judgements import judgement

LIMITS = Limits(safe_after_s=2.0, valid_s=10.0)


@dataclass
class _Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class _Source:
    name: str
    live: bool = True
    state: str = "live"


def _judged(clock: _Clock, score: float = 0.5, source: str = "a", reason: str = "", part: str = "") -> Judgement:
    one = judgement(0, score, source)
    result: Result = one.result.without_verdict(reason) if reason else one.result
    trigger = Trigger(part, clock(), "modbus") if part else None
    return replace(one, result=result, trigger=trigger, late=reason.startswith("late"), judged_s=clock())


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def board(clock: _Clock) -> Board:
    board = Board(["a", "b"], LIMITS, clock)
    board.beat()
    return board


def _why(board: Board) -> list[Why]:
    return [answer.why for answer in board.shown()]


def test_an_answer_is_one_value_with_everything_that_belongs_to_it(board: Board, clock: _Clock):
    board.put(_judged(clock, 1.5, "b", part="SN7"))
    before, answer = board.shown()
    assert (before.sequence, before.verdict, before.why) == (0, "none", Why.NOTHING_YET)
    assert (answer.sequence, answer.verdict, answer.code, answer.part) == (1, "anomalous", 2, "SN7")
    assert (answer.score, answer.threshold, answer.reason, answer.late) == (1.5, 1.0, "", False)
    with pytest.raises(KeyError):
        board.put(_judged(clock, source="elsewhere"))


def test_totals_count_every_kind_and_begin_anew_after_32_bits(board: Board, clock: _Clock):
    for score, reason in ((0.5, ""), (1.5, ""), (0.5, "late: no verdict within 80 ms"), (0.5, "a frozen picture")):
        board.put(_judged(clock, score, reason=reason))
    answer = board.shown()[0]
    assert answer.totals == Totals(total=4, good=1, anomalous=1, none=2, late=1)
    assert (answer.why, answer.reason) == (Why.NOT_TRUSTED, "a frozen picture")
    full = Totals(*[WRAP - 1] * 5)
    assert full.plus("none", True) == Totals(0, WRAP - 1, WRAP - 1, 0, 0)
    assert Answer(sequence=WRAP - 1).next(_judged(clock)).sequence == 0


def test_the_verdict_is_the_lines_decision_where_several_frames_decide(board: Board, clock: _Clock):
    """A controller acts on it: one anomalous frame of five is not yet a bad part."""
    frame = _judged(clock, score=1.5)
    good = board.put(replace(frame, decision="good"))
    assert (good.verdict, good.why, good.score) == ("good", Why.VERDICT, 1.5)
    undecided = board.put(replace(frame, decision="none"))
    assert (undecided.verdict, undecided.why, undecided.reason) == ("none", Why.NOT_TRUSTED, UNDECIDED)
    unjudged = board.put(replace(_judged(clock, reason="a frozen picture"), decision="anomalous"))
    assert (unjudged.verdict, unjudged.why, unjudged.reason) == ("anomalous", Why.VERDICT, "")
    assert unjudged.totals == Totals(total=3, good=1, anomalous=1, none=1)


def test_a_late_part_has_no_verdict_and_says_so(board: Board, clock: _Clock):
    board.put(_judged(clock, reason="late: no verdict within 80 ms", part="SN1"))
    answer = board.shown()[0]
    assert (answer.verdict, answer.why, answer.late, answer.part) == ("none", Why.LATE, True, "SN1")


def test_a_score_that_is_no_number_is_none(board: Board, clock: _Clock):
    one = _judged(clock)
    board.put(replace(one, result=one.result.unjudged("black")))
    assert board.shown()[0].score is None and math.isnan(one.result.unjudged("black").image_score)


def test_the_heartbeat_is_the_inspections_own(board: Board, clock: _Clock):
    beats = []
    for _ in range(100):
        clock.now_s += BEAT_S / 5
        board.beat()
        beats.append(board.heartbeat)
    assert beats[-1] - beats[0] == pytest.approx(20, abs=1)
    clock.now_s += 60
    board.shown()  # clients read, the inspection hangs
    assert board.heartbeat == beats[-1]


def test_no_verdict_outlives_the_inspection(board: Board, clock: _Clock):
    board.put(_judged(clock, part="SN1"))
    clock.now_s += 1.9
    assert _why(board)[0] == Why.VERDICT
    clock.now_s += 0.2
    [answer, _] = board.shown()
    assert (answer.verdict, answer.why, answer.part, answer.sequence) == ("none", Why.STOPPED, "SN1", 1)
    board.beat()
    assert _why(board)[0] == Why.STOPPED  # it was withdrawn for good
    board.put(_judged(clock))
    assert _why(board)[0] == Why.VERDICT


def test_before_the_inspection_begins_and_after_its_end_there_is_no_verdict(clock: _Clock):
    board = Board(["a"], LIMITS, clock)
    assert board.stopped() == Why.STOPPED
    board.put(_judged(clock))  # the first frame is judged before the inspection has come round
    assert _why(board) == [Why.VERDICT]
    board.put(_judged(clock, reason="late: no verdict within 80 ms"))
    clock.now_s += 1.5
    board.put(_judged(clock, reason="late: no verdict within 80 ms"))  # who says so is not the inspection
    clock.now_s += 1.5
    assert board.stopped() == Why.STOPPED
    board.beat()
    board.put(_judged(clock))
    assert _why(board) == [Why.VERDICT]
    board.close()
    board.beat()
    board.put(_judged(clock))
    assert _why(board) == [Why.STOPPED] and board.shown()[0].verdict == "none"


@pytest.mark.parametrize("state", ["reconnecting since 2026-03-01T12:00:00+00:00 (why)", "ended"])
def test_a_source_that_is_lost_has_no_verdict_and_the_others_keep_theirs(board: Board, clock: _Clock, state: str):
    sources = [_Source("a"), _Source("b")]
    board.watch(lambda: sources)
    board.put(_judged(clock, source="a"))
    board.put(_judged(clock, source="b"))
    assert _why(board) == [Why.VERDICT, Why.VERDICT]
    sources[0].state = state
    clock.now_s += 2 * LOOK_S
    assert _why(board) == [Why.SOURCE_LOST, Why.VERDICT]
    assert "why" not in board.shown()[0].reason
    sources[0].state = "live"
    clock.now_s += 2 * LOOK_S
    assert _why(board) == [Why.SOURCE_LOST, Why.VERDICT]  # what was judged before the loss is of no use
    board.put(_judged(clock, source="a"))
    assert _why(board) == [Why.VERDICT, Why.VERDICT]


def test_the_first_verdict_of_a_source_that_is_back_stays(board: Board, clock: _Clock):
    sources = [_Source("a", state="reconnecting since 2026-03-01T12:00:00+00:00 (why)"), _Source("b")]
    board.watch(lambda: sources)
    clock.now_s += 2 * LOOK_S
    board.shown()
    sources[0].state = "live"
    clock.now_s += LOOK_S / 2
    board.put(_judged(clock))
    assert _why(board)[0] == Why.VERDICT  # though the sources were not asked since
    clock.now_s += LOOK_S
    assert _why(board)[0] == Why.VERDICT


def test_a_file_that_has_ended_is_not_lost(board: Board, clock: _Clock):
    board.watch(lambda: [_Source("a", live=False, state="file")])
    board.put(_judged(clock))
    assert _why(board)[0] == Why.VERDICT


def test_a_verdict_grows_too_old(board: Board, clock: _Clock):
    board.put(_judged(clock))
    for _ in range(11):
        clock.now_s += 1
        board.beat()
    assert _why(board)[0] == Why.OLD


def test_a_controller_that_gave_a_heartbeat_must_go_on_with_it(board: Board, clock: _Clock):
    board.put(_judged(clock))
    clock.now_s += 1.5
    board.beat()
    assert _why(board)[0] == Why.VERDICT  # none was ever given
    for value in (1, 2, 2, 2):
        board.controller_beats(value)
        clock.now_s += 0.9
        board.beat()
    assert board.stopped() == Why.CONTROLLER_LOST and _why(board)[0] == Why.CONTROLLER_LOST
    board.put(_judged(clock))
    assert board.shown()[0].verdict == "none"
    board.controller_beats(3)
    board.put(_judged(clock))
    assert not board.stopped() and _why(board)[0] == Why.VERDICT


def test_a_reason_of_the_engine_stays_where_the_verdict_was_none_already(board: Board, clock: _Clock):
    board.put(_judged(clock, reason="a frozen picture"))
    clock.now_s += 60
    assert board.shown()[0].reason == "a frozen picture"
