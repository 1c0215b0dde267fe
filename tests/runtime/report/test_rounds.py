"""Measuring in turn, with workers that note what they were told."""

from collections.abc import Callable

import pytest

from runtime.common.errors import UserError
from runtime.report.rounds import (
    ENOUGH_ROUNDS,
    FEWEST_ROUNDS,
    LONGEST_REST,
    MOST_IN_A_GO,
    MOST_ROUNDS,
    Lane,
    measure_in_turn,
    plan_rounds,
)


class Noting:
    """A worker whose runs take `ms`, by the number of runs before."""

    def __init__(self, name: str, ms: Callable[[int], float], log: list[str]) -> None:
        self._name, self._ms, self._log, self._runs = name, ms, log, 0

    def run(self, path: str, batch: int = 1, warm: int = 1, count: int = 1) -> list[dict[str, float]]:
        self._log.append(self._name)
        self._runs += warm
        runs = []
        for _ in range(count):
            runs.append({path: self._ms(self._runs), "execute": self._ms(self._runs) / 2})
            self._runs += 1
        return runs


def test_all_have_a_go_in_every_round_and_runs_that_warm_up_do_not_count() -> None:
    log: list[str] = []
    lanes = [Lane(Noting("a", lambda n: 100.0 + n, log), "verdict"), Lane(Noting("b", lambda n: 50.0, log), "network")]
    measure_in_turn(lanes, seconds=60.0, most=7)
    assert log == ["a", "b"] * 8  # the first of each is the estimate
    assert [len(lane.rounds_ms) for lane in lanes] == [7, 7]
    # two goes of the estimate and a warm run come before the first that counts: run 3 is warm, runs 4 and 5 ... count
    assert lanes[0].rounds_ms[0][0] == 100.0 + 4 and len(lanes[0].rounds_ms[0]) == 1
    assert len(lanes[1].rounds_ms[0]) == 3  # 0.15 s of runs of 50 ms
    assert lanes[1].stages_ms() == {"execute": 25.0} and lanes[1].timing.p50 == 50.0


def test_a_plan_keeps_to_its_time_and_lets_the_slowest_rest() -> None:
    quick = plan_rounds([0.001, 0.02], seconds=60.0)
    assert quick.counts == (MOST_IN_A_GO, MOST_IN_A_GO) and quick.every == (1, 1) and quick.rounds == MOST_ROUNDS
    slow = plan_rounds([0.02, 3.0], seconds=30.0)
    assert slow.counts[1] == 1 and slow.every == (1, LONGEST_REST)
    seconds = slow.rounds * (0.02 * (slow.counts[0] + 1) + 3.0 * 2 / LONGEST_REST)
    assert 0.8 * 30 < seconds <= 30 and slow.rounds >= ENOUGH_ROUNDS
    assert plan_rounds([60.0], seconds=1.0).rounds == FEWEST_ROUNDS
    assert plan_rounds([0.001], seconds=60.0, most=3).rounds == 3


def test_who_rests_has_empty_rounds_between_its_goes() -> None:
    log: list[str] = []
    lanes = [
        Lane(Noting("fast", lambda n: 10.0, log), "verdict"),
        Lane(Noting("slow", lambda n: 4000.0, log), "verdict"),
    ]
    measure_in_turn(lanes, seconds=30.0)
    ran = [number for number, samples in enumerate(lanes[1].rounds_ms) if samples]
    assert ran == list(range(0, len(lanes[0].rounds_ms), LONGEST_REST))
    assert all(lanes[0].rounds_ms) and len(lanes[0].rounds_ms) == len(lanes[1].rounds_ms)


@pytest.mark.parametrize("most", [1, 4])
def test_fewer_rounds_than_the_fewest_are_taken_when_asked(most: int) -> None:
    log: list[str] = []
    lane = Lane(Noting("a", lambda n: 1.0, log), "verdict")
    measure_in_turn([lane], seconds=60.0, most=most)
    assert len(lane.rounds_ms) == most


def test_what_fails_under_way_rests_and_says_why_while_the_others_go_on() -> None:
    log: list[str] = []

    class Dying(Noting):
        def run(self, path: str, batch: int = 1, warm: int = 1, count: int = 1) -> list[dict[str, float]]:
            if len(log) > 8:
                raise UserError("it must run", "an end")
            return super().run(path, batch, warm, count)

    lanes = [Lane(Dying("a", lambda n: 200.0, log), "verdict"), Lane(Noting("b", lambda n: 200.0, log), "verdict")]
    measure_in_turn(lanes, seconds=60.0, most=10)
    assert lanes[0].failed == "it must run; found an end" and not lanes[1].failed
    assert [len(lane.rounds_ms) for lane in lanes] == [10, 10]
    assert [bool(samples) for samples in lanes[0].rounds_ms] == [True] * 4 + [False] * 6
    assert all(lanes[1].rounds_ms)
    dead = Lane(Dying("c", lambda n: 1.0, log), "verdict")
    measure_in_turn([dead], seconds=1.0, most=3)  # from the first run on
    assert dead.failed and dead.rounds_ms == [(), (), ()]
