"""A candidate takes the place of the engine, and the old one comes back: on the page, on record, never half."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.checks.gate import Gate, limits_of
from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold
from runtime.engines.thresholds import store_in_sidecar
from runtime.recipes.promoted import note_of
from runtime.records.checks import Check, add_check
from runtime.records.marks import FALSE_ALARM
from runtime.records.read import audit
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from tests.support.recipes import TWO, write_recipes
from tests.support.shadow_rig import ASKED, BAD, BETWEEN, GOOD, ShadowRig, engines, note, shadowing
from tests.support.small_disk import fill, small_disk
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_sources import OnDemand
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("few")

ENGINES = {"cable.onnx": 1.0, "cable2.onnx": 2.0}
VERDICTS = {("cable.onnx", BETWEEN): "anomalous", ("cable2.onnx", BETWEEN): "good"}


def _mark_all(rig: ShadowRig) -> None:
    """Mark every disagreement that the page shows as a false alarm."""
    for one in rig.state()["disagreements"]:
        body = {"number": one["picture"], "kind": FALSE_ALARM}
        answer = rig.page.ask("/api/mark", "POST", body, **ASKED)
        assert answer.status == 200, answer.body


def test_marks_let_a_better_candidate_judge_and_the_old_one_comes_back(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD, BETWEEN, BETWEEN, BAD)
        refused = rig.change()
        assert refused.status == 409 and "anomalous, 2 times, and nobody marked" in refused.json()["error"]
        _mark_all(rig)
        answer = rig.change(name="Ann")
        assert (answer.status, answer.json()) == (200, {"engine": "cable2.onnx"})
        rig.judge(GOOD, BETWEEN, BAD)
        shown = rig.state()
        assert (shown["running"], shown["candidate"], shown["action"]) == ("cable2.onnx", "cable.onnx", "rollback")
        assert shown["threshold"] == 2.0 and shown["counts"]["candidate_only"] == 1
        assert rig.page.state()["engine"] == "cable2" and rig.page.state()["threshold"]["value"] == 2.0
        assert rig.change("rollback").status == 200
        rig.judge(BETWEEN)
        shown = rig.state()
        assert (shown["running"], shown["action"], shown["compared"]) == ("cable.onnx", "promote", 5)
        assert shown["marks"]["false_alarms_gone"] == 2 and not note_of(folder / "cable.onnx").exists()
        records = rig.records()
    found = [(record["engine"], record["threshold"], record["verdict"]) for record in records]
    first = [("cable.onnx", 1.0, "good"), *[("cable.onnx", 1.0, "anomalous")] * 3]
    second = [("cable2.onnx", 2.0, "good"), ("cable2.onnx", 2.0, "good"), ("cable2.onnx", 2.0, "anomalous")]
    assert found == [*first, *second, ("cable.onnx", 1.0, "anomalous")]
    changes = [change for change in audit(folder / "i.db") if change["what"] == "engine of the line"]
    assert [change["new"].split(", ", 1)[1] for change in changes] == ["rollback", "promote"]
    hashes = {record["engine"]: record["engine_sha256"] for record in records}
    promoted = changes[1]
    assert promoted["who"] == "Ann, page, open to all" and promoted["origin"] == "127.0.0.1"
    assert promoted["old"] == f"cable.onnx {hashes['cable.onnx']}"
    assert promoted["new"] == f"cable2.onnx {hashes['cable2.onnx']}, promote"


def test_in_spite_of_reasons_it_takes_the_word_which_is_on_record(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        assert "too few frames" in rig.change().json()["error"] and rig.change(override="yes").status == 400
        assert rig.recipes.in_force.engine == "cable.onnx" and not note_of(folder / "cable.onnx").exists()
        assert rig.change(override="anyway").status == 200
    [change] = [one for one in audit(folder / "i.db") if one["what"] == "engine of the line"]
    assert "promote, in spite of: too few frames were compared: expected 4, found 1" in change["new"]


def test_what_the_page_does_not_show_any_more_is_not_promoted(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        body = {"candidate": "0" * 64}
        assert rig.page.ask("/api/promote", "POST", body, **ASKED).status == 409
        assert rig.change("rollback").status == 409
        assert rig.change().status == 200
        assert rig.change().status == 409  # it judges by now


def test_every_record_has_the_engine_that_judged_under_running_frames(folder: Path):
    with shadowing(folder) as rig:
        stop, fed = threading.Event(), []

        def feed() -> None:
            while not stop.is_set():
                rig.feed(BETWEEN)
                fed.append(1)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            for action in ("promote", "rollback") * 3:
                seen = len(fed)
                wait_until(lambda seen=seen: len(fed) > seen + 20)
                assert rig.change(action, override="anyway").status == 200
        finally:
            stop.set()
            thread.join()
        records = rig.records()
    for record in records:
        assert record["threshold"] == ENGINES[record["engine"]]
        assert record["verdict"] == VERDICTS[record["engine"], BETWEEN]
    changes = [one["engine"] for one, before in zip(records[1:], records, strict=False) if one["run"] != before["run"]]
    assert changes == ["cable2.onnx", "cable.onnx"] * 3
    assert len({(one["run"], one["engine_sha256"]) for one in records}) == 7
    for one, record in zip(rig.judgements, records, strict=True):
        assert (one.run, one.engine_sha256) == (record["run"], record["engine_sha256"])


def test_a_part_is_judged_by_one_engine_on_all_its_cameras(folder: Path):
    cameras = [OnDemand("a", 0.001), OnDemand("b", 0.01)]
    orders = Orders(TriggerOptions(deadline_s=60.0, queue=500, skip=0))
    with shadowing(folder, "--source", str(folder), sources=cameras, orders=orders) as rig:
        for number in range(30):
            assert rig.running.ask(f"SN{number}") == ""
            if number % 10 == 5:
                action = ("promote", "rollback")[number // 10 % 2]
                assert rig.change(action, override="anyway").status == 200
        rig.running.wait(60)
    by_part: dict[str, set[str]] = {}
    for one in rig.judgements:
        by_part.setdefault(one.trigger.part, set()).add(one.engine_sha256)
    assert len(by_part) == 30 and {len(found) for found in by_part.values()} == {1}
    assert len(set().union(*by_part.values())) == 2


def test_a_candidate_of_the_same_engine_with_another_threshold(folder: Path):
    other = folder / "strict.onnx"
    other.write_bytes((folder / "cable.onnx").read_bytes())
    other.with_suffix(".json").write_bytes((folder / "cable.json").read_bytes())
    store_in_sidecar(other, "strict", Threshold(0.9, "tried"), default=True)
    with shadowing(folder, "--shadow", str(other)) as rig:
        rig.judge(GOOD, 80, BAD, GOOD)  # 80: score 0.94
        assert rig.state()["counts"]["candidate_only"] == 1 and rig.change().status == 200
        rig.judge(80)
        assert [one.result.threshold for one in rig.judgements[-2:]] == [1.0, 0.9]
        assert rig.state()["action"] == "rollback" and rig.change("rollback").status == 200
        rig.judge(80)
        assert rig.judgements[-1].result.threshold == 1.0


@pytest.mark.parametrize("what", ["engine", "threshold", "gone"])
def test_a_file_that_changed_since_it_was_opened_is_not_promoted(folder: Path, what: str):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        if what == "engine":
            write_tiny_engine(folder, "cable2", size=(16, 16), threshold=2.0)
        elif what == "threshold":
            store_in_sidecar(folder / "cable2.onnx", "manual", Threshold(1.5, "tried"), default=True)
        else:
            (folder / "cable2.onnx").unlink()
        for word in ({}, {"override": "anyway"}):
            answer = rig.change(**word)
            assert answer.status == 422 and "cable2.onnx must" in answer.json()["error"]
            assert str(folder) not in answer.json()["error"]
        rig.judge(BETWEEN)
        assert rig.judgements[-1].result.verdict == "anomalous" and not note_of(folder / "cable.onnx").exists()


def test_what_cannot_be_noted_beside_the_engine_is_not_done(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        engines(disk)
        with shadowing(disk) as rig:
            rig.judge(*[GOOD] * 4)
            filler = fill(disk)
            answer = rig.change()
            assert answer.status in (422, 507), answer.body
            rig.feed(GOOD)
            assert rig.judgements[-1].engine_sha256 == rig.judgements[0].engine_sha256
            filler.unlink()
            assert not note_of(disk / "cable.onnx").exists()
            assert rig.change().status == 200 and note(disk)["recipes"][""]["promoted"]


def test_what_the_log_does_not_take_is_not_done_and_the_note_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        log = rig.promotion._line.log
        with monkeypatch.context() as broken:
            broken.setattr(type(log), "promoted", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            answer = rig.change()
        assert answer.status == 507 and "No space left" in answer.json()["error"]
        assert not note_of(folder / "cable.onnx").exists() and rig.recipes.in_force.engine == "cable.onnx"
        assert rig.change().status == 200


def test_a_candidate_whose_reference_parts_were_not_checked_needs_the_word_and_gives_no_verdicts(folder: Path):
    with shadowing(folder) as rig:
        in_force = rig.recipes.in_force
        add_check(rig.log, Check("", in_force.engine_sha256, limits_of(in_force), True, (), "Ana", "files", 1.8e9))
        add_check(rig.log, _checked(rig, in_force.engine_sha256, limits_of(in_force)))
        with Gate(rig.log, rig.recipes, 3600.0) as gate:
            rig.recipes.withheld, rig.recipes.would_withhold = gate.withheld, gate.would_withhold
            rig.judge(*[GOOD] * 4)
            assert rig.judgements[-1].result.verdict == "good"
            refused = rig.change()
            assert (
                refused.status == 409
                and "its verdicts would be none: the check of reference" in refused.json()["error"]
            )
            other = rig.promotion.shadow.candidate
            add_check(rig.log, _checked(rig, other.sha256, '{"": [2.0, 2.0]}'))
            gate.look()
            assert gate.withheld(in_force) == ""  # the check of another engine takes nothing from the one that judges
            assert rig.change().status == 200
            rig.judge(GOOD)
            assert rig.judgements[-1].result.verdict == "good"


def _checked(rig: ShadowRig, engine: str, limits: str) -> Check:
    return Check("", engine, limits, True, (), "Ana", "files", time.time())


def test_without_its_own_check_a_promoted_engine_has_no_verdicts_until_it_is_checked(folder: Path):
    with shadowing(folder) as rig:
        in_force = rig.recipes.in_force
        add_check(rig.log, _checked(rig, in_force.engine_sha256, limits_of(in_force)))
        with Gate(rig.log, rig.recipes, 3600.0) as gate:
            rig.recipes.withheld, rig.recipes.would_withhold = gate.withheld, gate.would_withhold
            rig.judge(*[GOOD] * 4)
            assert rig.change(override="anyway").status == 200
            rig.feed(GOOD)
            assert rig.judgements[-1].result.verdict == "none"
            assert "another engine or threshold" in rig.judgements[-1].result.reason
            now = rig.recipes.in_force
            add_check(rig.log, _checked(rig, now.engine_sha256, limits_of(now)))
            gate.look()
            rig.feed(GOOD)
            assert rig.judgements[-1].result.verdict == "good"


def test_in_one_recipe_it_is_promoted_and_the_others_stay(folder: Path):
    words = ["--recipes", str(write_recipes(folder, TWO)), "--shadow-recipe", "high"]
    with shadowing(folder, *words) as rig:
        rig.feed(BETWEEN)
        assert rig.change(override="anyway").status == 200  # though `low` is in force
        rig.feed(BETWEEN)
        assert rig.recipes.use("high", "me", "test") == ""
        rig.feed(BETWEEN)
        records = rig.records()
    found = [(one["recipe"], one["engine"], one["threshold"]) for one in records]
    assert found == [("low", "low.onnx", 1.0), ("low", "low.onnx", 1.0), ("high", "cable2.onnx", 2.0)]
    whats = [change["what"] for change in audit(folder / "i.db")]
    assert whats.count("engine of high") == 1 and "engine" not in whats


def test_an_inspection_that_ends_promotes_nothing(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        rig.recipes.end()
        answer = rig.change()
        assert answer.status == 422 and "has stopped" in answer.json()["error"]
        assert not note_of(folder / "cable.onnx").exists()


def test_a_threshold_is_set_on_the_page_for_the_engine_that_was_promoted(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        assert rig.change().status == 200
        body = {"value": 1.7, "instead_of": 2.0}
        assert rig.page.ask("/api/threshold", "POST", body, **ASKED).status == 200
        rig.feed(BETWEEN)
        assert rig.judgements[-1].result.threshold == 1.7
        assert rig.change("rollback").status == 200
        assert rig.page.state()["threshold"]["value"] == 1.0
        assert rig.promotion.shadow.candidate.limits == (1.7, 1.7)
        assert rig.change(override="anyway").status == 200
        rig.feed(BETWEEN)
        assert rig.judgements[-1].result.threshold == 1.7


def test_what_raises_while_an_engine_is_replaced_leaves_the_old_one(folder: Path):
    with shadowing(folder) as rig:
        new = replace(rig.recipes.in_force, run="other")
        with pytest.raises(UserError, match="full"):
            rig.recipes.replace(new, lambda: (_ for _ in ()).throw(UserError("full")))
        assert rig.recipes.in_force is not new and rig.recipes[""] is rig.recipes.in_force


def test_an_action_of_another_site_and_a_body_that_asks_for_nothing_are_refused(folder: Path):
    with shadowing(folder) as rig:
        good = {"candidate": rig.promotion.shadow.candidate.sha256}
        assert rig.page.ask("/api/promote", "POST", good).status == 403
        for body in ({}, {"candidate": 1}, {**good, "name": "x" * 65}, {**good, "override": ""}, {**good, "more": 1}):
            answer = rig.page.ask("/api/promote", "POST", body, **ASKED)
            assert answer.status == 400 and "its SHA-256" in answer.body.decode()
        assert rig.page.server.troubles.counts() == {}


def test_no_folder_of_the_machine_is_in_a_refusal(folder: Path):
    (folder / "elsewhere").mkdir()
    other = write_tiny_engine(folder / "elsewhere", "cable2", size=(24, 40), threshold=2.0)
    with shadowing(folder, "--shadow", str(other)) as rig:
        rig.judge(*[GOOD] * 4)
        kept = other.read_bytes()
        other.unlink()
        answer = rig.change()
        assert answer.status == 422 and answer.json()["error"].startswith("cable2.onnx must exist")
        other.write_bytes(kept)
        note_of(folder / "cable.onnx").write_text("[]")
        answer = rig.change()
        assert answer.status == 422 and answer.json()["error"].startswith("cable.onnx.promoted.json must say")
        note_of(folder / "cable.onnx").unlink()
        assert rig.change().status == 200
    assert note(folder)["recipes"][""]["promoted"][0]["file"] == "elsewhere/cable2.onnx"
    with shadowing(folder, "--shadow", str(other)) as rig:
        assert rig.recipes.in_force.engine == "cable2.onnx" and rig.state()["action"] == "rollback"


def test_a_candidate_that_hangs_does_not_keep_its_place_after_a_promotion(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(*[GOOD] * 4)
        process = rig.promotion.shadow._keeper.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        rig.feed(GOOD, GOOD)
        assert rig.change().status == 200
        rig.judge(BETWEEN)
        assert rig.state()["counts"]["candidate_only"] == 1 and rig.state()["trouble"] == ""
