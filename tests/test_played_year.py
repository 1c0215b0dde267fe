"""A year of a line in minutes: weeks in peace, an old lamp, corrected verdicts, a better engine, a bad one, back."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.common.errors import run_command
from runtime.engines.sidecar import Threshold, read_sidecar
from runtime.engines.thresholds import store_in_sidecar
from runtime.improve.evidence import OTHER_ENGINE
from runtime.period import main as period
from runtime.recipes.promoted import note_of
from runtime.records.marks import FALSE_ALARM, MISSED, standing
from runtime.records.read import audit
from tests.support.corrected_line import in_warm_light, read, train_and_build, write_cables
from tests.support.played_line import BAD, GOOD, HOUR_S, Calendar, Part, PlayedLine, day, played
from train import improve

BLOCK = 10  # frames of the drift watch, 60 on a line: so a year is played in minutes; the rest of it is as there
APART_S = 6 * HOUR_S  # between frames, before the autumn
PEACE = 60 * BLOCK  # frames: 21 weeks
AGEING = 20 * BLOCK  # frames in which a lamp loses `LOSS` of its light, and then stays as it is
LOSS, LOST_WITHIN = 0.06, 28 * 4  # frames: four weeks
CORRECTED = 20
COMPARED, BATCH = 320, 40  # frames by two engines; those between two looks at the page
SUPPLIED = 12  # every so many parts one is of another supplier, whose parts look warmer


@dataclass
class Plant:
    """Drawn cables, an engine that was trained on them, the line's log, and a calendar."""

    folder: Path
    calendar: Calendar
    random: np.random.Generator
    good: list[np.ndarray]
    bad: list[np.ndarray]

    @property
    def engine(self) -> Path:
        """What the command line names all year."""
        return self.folder / "cable.onnx"

    @property
    def renewed(self) -> Path:
        """What `cflow improve` makes."""
        return self.folder / "better" / "cable-renewed.onnx"

    @property
    def log(self) -> Path:
        """The inspection log."""
        return self.folder / "i.db"

    def parts(self, count: int, light: float = 1.0, lost_within: int = 1) -> list[Part]:
        """Return good parts in light that flickers by 1 %, and falls to `light` within so many of them."""
        falls = np.minimum(np.arange(count) / lost_within, 1)
        return [self._seen(self._any(self.good), GOOD, 1 - (1 - light) * share) for share in falls]

    def mixed(self, count: int, bad: int = 0) -> list[Part]:
        """Return good parts, some of another supplier, and each `bad`-th a bad one."""
        parts = self.parts(count)
        for number in range(5, count, SUPPLIED):
            parts[number] = self.warm(int(self.random.integers(len(self.good) // 2)), number)
        for number in range(bad // 2, count if bad else 0, bad or 1):
            parts[number] = self._seen(self._any(self.bad), BAD, 1.0)
        return parts

    def warm(self, which: int, seed: int) -> Part:
        """Return a good part of the other supplier."""
        return Part(GOOD, in_warm_light(self.good[which], seed))

    def _any(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return images[self.random.integers(len(images))]

    def _seen(self, image: np.ndarray, kind: str, light: float) -> Part:
        gain = light * self.random.normal(1, 0.01)
        return Part(kind, np.clip(image * gain, 0, 255).round().astype(np.uint8))

    def changes(self, what: str) -> list[dict[str, Any]]:
        """Return what the audit has of it, the oldest first."""
        return [one for one in audit(self.log) if one["what"] == what][::-1]

    def report(self, month: str) -> str:
        """Return the text of `cflow report --month`."""
        output = self.folder / f"{month}.html"
        words = ["--month", month, "--log", str(self.log), "--output", str(output), "--zone", "UTC"]
        assert run_command(period.main, words) == 0
        return re.sub(r"<[^>]*>", " ", output.read_text(encoding="utf-8"))


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    data = write_cables(tmp_path / "cables")
    train_and_build(data, tmp_path / "cable.pt")
    parts = write_cables(tmp_path / "parts", seed=5, train=60, test_good=0, per_defect=4)
    good = [read(path) for path in sorted((parts / "train/good").iterdir())]
    bad = [read(path) for path in sorted((parts / "test").glob("*/*.png"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.drift.source.BLOCK", BLOCK)
        yield Plant(tmp_path, Calendar(patch), np.random.default_rng(1), good, bad)


@pytest.mark.slow
def test_a_year_of_a_line(plant: Plant) -> None:
    with played(plant.calendar, plant.log, plant.engine, day(1, 4)) as line:
        _weeks_in_peace(plant, line)
        _a_lamp_ages(plant, line)
        _twenty_verdicts_are_corrected(plant, line)
        _better_engine(plant)  # while the line goes on
    with played(plant.calendar, plant.log, plant.engine, day(9, 12), "--shadow", str(plant.renewed)) as line:
        _it_is_promoted(plant, line)
        _marks_of_the_engine_before_count_for_it_alone(plant, line)
    careless = _careless(plant)
    with played(plant.calendar, plant.log, plant.engine, day(11, 1), "--shadow", str(careless)) as line:
        _a_bad_one_is_refused(plant, line)
    with played(plant.calendar, plant.log, plant.engine, day(12, 1), "--shadow", str(plant.renewed)) as line:
        _back_to_the_engine_before(plant, line)
    _what_the_reports_say(plant)


def _weeks_in_peace(plant: Plant, line: PlayedLine) -> None:
    line.camera.apart_s = APART_S
    line.play(plant.parts(PEACE))
    [state] = line.state()["drift"]["states"]
    assert state["learned"] == PEACE / BLOCK and not line.state()["drift"]["alarms"]
    assert not plant.changes("drift of line")


def _a_lamp_ages(plant: Plant, line: PlayedLine) -> None:
    line.camera.at_s = day(6, 7)
    line.play(plant.parts(AGEING, 1 - LOSS, LOST_WITHIN))
    [alarm] = line.state(lambda state: state["drift"]["alarms"])["drift"]["alarms"]
    assert alarm["cause"] == "light"
    began = plant.changes("drift of line")[0]
    assert began["new"].startswith("light, from ") and began["who"] == "drift watch"
    assert "2027-06-0" <= began["time"] < "2027-08"  # by the calendar
    assert line.ask("drift", alarm=alarm["number"], new_normal=False, name="Ann").status == 200
    said = plant.changes("drift of line")[-1]
    assert said["new"] == "acknowledged" and said["who"].startswith("Ann")


def _twenty_verdicts_are_corrected(plant: Plant, line: PlayedLine) -> None:
    line.camera.at_s, line.camera.apart_s = day(9, 1), HOUR_S  # with a new lamp
    corrected = 0
    while corrected < CORRECTED:
        wrong = {one.name for one in line.play(plant.mixed(SUPPLIED)) if one.false_alarm}
        state = line.state(lambda state, wrong=wrong: wrong <= {one["name"] for one in state["anomalies"]})
        for one in [one for one in state["anomalies"] if one["name"] in wrong][: CORRECTED - corrected]:
            said = {"number": one["picture"], "kind": FALSE_ALARM, "reason": "another supplier", "name": "Ann"}
            assert line.ask("mark", **said).status == 200
            corrected += 1
    assert len(standing(plant.log)) == CORRECTED


def _better_engine(plant: Plant) -> None:
    """Half of the warm parts and all bad ones have never been marked, nor trained on: they are held."""
    words = ["--data", plant.folder / "cables", "--checkpoint", plant.folder / "cable.pt"]
    said = _improve(plant, plant.engine, *map(str, words))
    assert said[0]["false_alarms"] == CORRECTED
    assert any(one["kind"] == "renewed model" and "files" in one for one in said[1:])
    held = [plant.warm(which, 1000 + which) for which in range(len(plant.good) // 2, len(plant.good))]
    before, after = (_called(engine, [part.image for part in held]) for engine in (plant.engine, plant.renewed))
    assert len(before) >= len(held) / 2 and len(after) <= len(before) / 2
    found, found_after = (_called(engine, plant.bad) for engine in (plant.engine, plant.renewed))
    assert found and found <= found_after


def _improve(plant: Plant, engine: Path, *words: str, out: str = "better") -> list[dict[str, Any]]:
    """Return what `cflow improve` says, line by line."""
    given = ["--log", plant.log, "--engine", engine, "--out", plant.folder / out, "--json"]
    said = StringIO()
    with redirect_stdout(said):
        assert run_command(improve.main, [*map(str, given), *words]) in (0, 1)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def _called(engine: Path, images: Sequence[np.ndarray]) -> set[int]:
    """Return which of them the engine calls anomalous."""
    with runtime.load(engine, threads=1, backend="onnxruntime") as detector:
        return {number for number, image in enumerate(images) if detector(image).verdict == "anomalous"}


def _compare(plant: Plant, line: PlayedLine, frames: int) -> dict[str, Any]:
    """Let so many be judged by both, correct what the page shows and is wrong; return what it shows then."""
    for _ in range(frames // BATCH):
        line.play(plant.mixed(BATCH, bad=20))
        assert line.line.shadow is not None
        compared = line.line.shadow.shadow.ledger.counts.compared
        state = line.state(lambda state, n=compared: state["shadow"]["compared"] == n)
        for one in state["shadow"]["disagreements"]:
            kind = {("good", "anomalous"): FALSE_ALARM, ("bad", "good"): MISSED}.get(
                (one["name"].partition("_")[0], one["verdict"])
            )
            if kind and one["markable"]:
                line.ask("mark", number=one["picture"], kind=kind, name="Ann")  # 422: it is marked already
    assert state["shadow"]["compared"] == frames
    return line.state()["shadow"]


def _it_is_promoted(plant: Plant, line: PlayedLine) -> None:
    before = _compare(plant, line, COMPARED)
    old, new = (read_sidecar(path).artefact_of(path).sha256 for path in (plant.engine, plant.renewed))
    assert before["candidate_sha256"] == new and before["action"] == "promote"
    answer = line.ask("promote", candidate=new, name="Bob")
    assert answer.status == 200, answer.body
    later = line.play(plant.mixed(BATCH, bad=20))
    assert {one.engine_sha256 for one in later} == {new}
    records = line.records(day(9, 12))
    assert [one["engine_sha256"] for one in records] == [old] * COMPARED + [new] * BATCH
    [change] = plant.changes("engine of the line")
    assert change["who"].startswith("Bob") and change["new"].endswith(", promote")
    first, second = (one["learned"] for one in line.state()["drift"]["states"])
    assert first > PEACE / BLOCK and second == BATCH // BLOCK  # the new one has a state of its own


def _marks_of_the_engine_before_count_for_it_alone(plant: Plant, line: PlayedLine) -> None:
    old = read_sidecar(plant.engine).artefact_of(plant.engine).sha256
    earlier = {one.name for one in line.kept.seen if one.engine_sha256 == old and one.kind == BAD}
    one = next(one for one in line.state()["anomalies"] if one["name"] in earlier)
    answer = line.ask("mark", number=one["picture"], kind=FALSE_ALARM, name="Ann")
    assert answer.status == 200
    mark = standing(plant.log)[answer.json()["judgement"]]
    assert mark["about"]["engine_sha256"] == old
    told = _improve(plant, plant.renewed, out="later")[0]
    assert told["judgements"] == BATCH and told["false_alarms"] == told["missed"] == 0
    assert told["marks_left_out"] == {OTHER_ENGINE: len(standing(plant.log))}
    assert told["judges_now"] == ""
    assert _improve(plant, plant.engine, out="later")[0]["judges_now"] == "cable-renewed.onnx"
    counted = {name: count for name, count in line.state()["shadow"]["marks"].items() if name != "not_compared"}
    assert set(counted.values()) == {0}
    assert line.ask("withdraw", judgement=answer.json()["judgement"], name="Ann").status == 200


def _careless(plant: Plant) -> Path:
    """Return the engine in force with a threshold that half of the bad parts do not reach."""
    with runtime.load(plant.renewed, threads=1, backend="onnxruntime") as detector:
        value = float(np.median([detector(image).image_score for image in plant.bad]))
    careless = plant.renewed.with_name("careless.onnx")
    shutil.copyfile(plant.renewed, careless)
    shutil.copyfile(plant.renewed.with_suffix(".json"), careless.with_suffix(".json"))
    store_in_sidecar(careless, "careless", Threshold(value, "by somebody who was tired of alarms"), default=True)
    return careless


def _a_bad_one_is_refused(plant: Plant, line: PlayedLine) -> None:
    note = note_of(plant.engine).read_bytes()
    shown = _compare(plant, line, COMPARED)
    answer = line.ask("promote", candidate=shown["candidate_sha256"], name="Bob")
    reason = answer.json()["error"]
    assert answer.status == 409
    assert re.fullmatch(r"it calls good what the engine in force calls anomalous, [1-9]\d* times, .*", reason)
    line.state(lambda state: state["shadow"]["against"] == [reason])  # the page knows of the last marks in a moment
    assert note_of(plant.engine).read_bytes() == note and len(plant.changes("engine of the line")) == 1
    thresholds = {(one["engine"], one["threshold"]) for one in line.records(day(11, 1))}
    assert thresholds == {("cable-renewed.onnx", read_sidecar(plant.renewed).threshold.value)}


def _back_to_the_engine_before(plant: Plant, line: PlayedLine) -> None:
    shown = line.state()["shadow"]
    assert (shown["action"], shown["running"], shown["candidate"]) == ("rollback", "cable-renewed.onnx", "cable.onnx")
    assert line.ask("rollback", candidate=shown["candidate_sha256"], name="Eve").status == 200
    line.play(plant.mixed(BATCH))
    assert {one["engine"] for one in line.records(day(12, 1))} == {"cable.onnx"}
    assert not note_of(plant.engine).exists()
    change = plant.changes("engine of the line")[-1]
    assert change["who"].startswith("Eve") and change["new"].endswith(", rollback")
    assert change["time"] > "2027-12-01"


def _what_the_reports_say(plant: Plant) -> None:
    peace, autumn, winter = (plant.report(month) for month in ("2027-02", "2027-09", "2027-12"))
    assert "No drift in this period" in peace and "No change in this period" in peace
    assert re.search("light, from .{0,90}Ann, page.{0,90}values came back", autumn)
    marks = [one["kind"] for one in standing(plant.log).values() if one["about"]["time"].startswith("2027-09")]
    false, missed = marks.count(FALSE_ALARM), marks.count(MISSED)
    assert false > CORRECTED and f"Marked by operators: false alarms {false}, missed {missed}." in autumn
    assert "In shadow" in autumn and f" {COMPARED} " in autumn and ", promote" in autumn
    assert ", rollback" in winter and "cable.onnx" in winter
