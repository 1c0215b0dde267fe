"""A drift is found and called what it is, on drawn cables and real parts; a stationary line is left in peace."""

import numpy as np
import pytest

from runtime.drift import source as drift_source
from runtime.drift.numbers import NUMBERS
from runtime.drift.source import BLOCK, Drift
from runtime.images.pixels import Image8
from runtime.images.population import Population
from tests.bench.drift import CHANGES, LEARNED, MOVED, STATIONARY, pictures_of, rows_of, run
from tests.support.paths import SHARED
from train.data.cable_renderer import render

# a set and which images of it; the tiles of one light, as a line has it
SETS = {"screw": ("mvtec_screw", "*"), "tile": ("magnetic_tile", "exp1*")}
WITHIN = 15 * BLOCK
Row = dict[str, float]


def _pictures(name: str) -> list[Image8]:
    if name == "cable":  # a part somewhere before a wide background, as seen by a camera
        random = np.random.default_rng(3)
        return [_placed(render(random, 160, None)[0], random) for _ in range(20)]
    folder, only = SETS[name]
    if not (SHARED / "data" / folder).is_dir():
        pytest.skip(f"no {folder} beside the checkout")
    return pictures_of(SHARED / "data" / folder, only)


def _placed(cable: Image8, random: np.random.Generator) -> Image8:
    wide = np.full((256, 256, 3), cable[0, 0], np.uint8)
    top, left = random.integers(44, 53, 2)
    wide[top : top + 160, left : left + 160] = cable
    return wide


@pytest.fixture(scope="module", params=["cable", "screw", "tile"])
def pictures(request: pytest.FixtureRequest) -> list[Image8]:
    return _pictures(request.param)


@pytest.fixture(scope="module")
def plain(pictures: list[Image8]) -> list[Row]:
    return rows_of(pictures)


def test_fifty_thousand_stationary_frames_give_no_alarm(plain: list[Row]):
    assert run(plain, plain, STATIONARY, STATIONARY).frames is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_by_its_name_and_since_when(pictures: list[Image8], plain: list[Row], change: str):
    found = run(plain, rows_of(pictures, change), LEARNED + WITHIN, LEARNED)
    assert found.frames is not None and found.frames > 0
    assert found.cause == CHANGES[change][1]
    alarm = found.drift.alarm
    assert alarm is not None and LEARNED - 10 * BLOCK <= alarm.since_s <= LEARNED + WITHIN
    assert f"drift of {found.cause}, from " in alarm.text()


def test_without_the_limit_a_stationary_line_would_be_alarmed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drift_source, "BLOCKS_A_MONTH", 0.1)
    rows = rows_of(_pictures("cable")[:4])
    assert run(rows, rows, STATIONARY, STATIONARY).frames is not None


def _drift(rows: list[Row], after: list[Row], frames: int, drift: Drift | None = None) -> Drift:
    """Feed `LEARNED` frames of `rows` and then `frames` of `after`, in turn; to the end, also behind an alarm."""
    drift = drift or Drift("camera:0", "", list(NUMBERS))
    drift._random = np.random.default_rng(1)
    for number in range(LEARNED + frames):
        pool = rows if number < LEARNED else after
        drift.add(pool[number % len(pool)], float(number))
    return drift


@pytest.fixture(scope="module")
def cables() -> list[Image8]:
    return _pictures("cable")


def test_what_is_the_new_normal_is_the_reference_from_then_on(cables: list[Image8]):
    rows, dark = rows_of(cables), rows_of(cables, "5 % darker")
    drift = _drift(rows, dark, 20 * BLOCK)
    assert drift.alarm is not None and drift.alarm.cause == "light"
    drift.renew()
    assert drift.alarm is None and 5 <= drift.learned < 25  # of what came since
    for number in range(200 * BLOCK):
        drift.add(dark[number % len(dark)], 1e6 + number)
    assert drift.alarm is None
    for number in range(20 * BLOCK):
        drift.add(rows[number % len(rows)], 2e6 + number)
    assert drift.alarm is not None  # the light of before is a drift now


def test_an_alarm_ends_when_all_is_back(cables: list[Image8]):
    rows = rows_of(cables)
    drift = _drift(rows, rows_of(cables, MOVED), 20 * BLOCK)
    changes = [change for number in range(20 * BLOCK) for change in drift.add(rows[number % len(rows)], 1e6 + number)]
    assert [change.kind for change in changes] == ["ended"] and drift.alarm is None


def test_what_is_not_as_in_training_is_said_once(cables: list[Image8]):
    rows, dark = rows_of(cables), rows_of(cables, "5 % darker")
    population = Population.of(rows, {})
    same, other = (Drift("camera:0", "", list(NUMBERS), population) for _ in range(2))
    said: dict[str, list[str]] = {"same": [], "other": []}
    for number in range(3000):
        for name, drift, pool in (("same", same, rows), ("other", other, dark)):
            drift.add(pool[number % len(pool)], float(number))
            said[name] += filter(None, [drift.unlike_training()])
    assert not said["same"] and max(same.indices.values()) < 0.25
    [once] = said["other"]
    assert "not as in training: light from " in once and "focus" not in once
    assert other.indices["light"] > 1 and other.indices["focus"] < 0.25


def test_score_and_taps_are_named_where_nothing_of_the_picture_moved():
    random, names = np.random.default_rng(0), [*NUMBERS, "score", "tap layer2"]
    drift = Drift("camera:0", "", names)
    for number in range(130 * BLOCK):
        row = {name: float(random.normal(0, 1)) for name in names}
        row["tap layer2"] += 3.0 * (number > LEARNED)
        drift.add(row, float(number))
    assert drift.alarm is not None and drift.alarm.cause == "tap layer2"
    drift = Drift("camera:0", "", names)
    for number in range(130 * BLOCK):
        row = {name: float(random.normal(0, 1)) for name in names}
        row["score"] += 9.0 * (number > LEARNED)  # more than what causes it
        row["light"] += 3.0 * (number > LEARNED)
        drift.add(row, float(number))
    assert drift.alarm is not None and [one.number for one in drift.alarm.moved][:2] == ["light", "score"]


def test_few_anomalous_parts_move_nothing():
    random, drift = np.random.default_rng(0), Drift("camera:0", "", ["score"])
    for number in range(200 * BLOCK):
        bad = number > LEARNED and number % 12 == 0
        drift.add({"score": 50.0 if bad else float(random.normal(0.5, 0.1))}, float(number))
    assert drift.alarm is None
