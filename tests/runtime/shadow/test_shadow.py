"""A candidate beside the line: what it says is compared and kept, and nothing that it does harms a verdict."""

import os
import signal
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Artefact, write_sidecar
from runtime.records.log import Log
from runtime.records.shadows import pictures_of
from runtime.shadow import beside
from runtime.sinks.judgement import Judgement
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from tests.support.controlled_source import ControlledSource
from tests.support.log_rows import asked
from tests.support.recipes import TWO, write_recipes
from tests.support.shadow_rig import BAD, BETWEEN, GOOD, shadowing
from tests.support.tiny_engine import tiny_model, tiny_sidecar, write_tiny_engine
from tests.support.triggered_sources import OnDemand
from tests.support.waiting import wait_until

LONG = TriggerOptions(deadline_s=60.0, queue=500, skip=0)


def test_a_candidate_of_another_size_is_compared_by_its_own_threshold(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD, BETWEEN, BAD, BAD)
        found = rig.state()
        assert (found["candidate"], found["threshold"], found["candidate_threshold"]) == ("cable2.onnx", 1.0, 2.0)
        counts = {name: found["counts"][name] for name in ("both_good", "both_anomalous", "running_only")}
        assert counts == {"both_good": 1, "both_anomalous": 2, "running_only": 1}
        assert (found["compared"], found["agree"], found["counts"]["candidate_only"]) == (4, 3, 0)
        [one] = found["disagreements"]
        assert one["verdict"] == "anomalous" and one["candidate_score"] == pytest.approx(3 * BETWEEN / 255, abs=1e-4)
        picture = rig.page.ask(f"/shadow/{one['picture']}.jpg")
        assert picture.status == 200 and Image.open(BytesIO(picture.body)).size == (48, 32)
        assert rig.page.ask("/shadow/7.jpg").status == 404
        metrics = rig.page.ask("/metrics").body.decode().splitlines()
        assert 'cflow_shadow_frames_total{result="both_anomalous"} 2.0' in metrics
        assert 'cflow_shadow_disagreements_total{result="running_only"} 1.0' in metrics
        assert "cflow_shadow_up 1.0" in metrics
        said = "cable2.onnx beside cable.onnx: 4 compared, 1 anomalous by cable.onnx only"
        assert said in rig.promotion.shadow.text()


def test_without_a_candidate_the_page_has_nothing_in_shadow(folder: Path):
    from tests.support.serve_rig import serving

    with serving(folder) as rig:
        assert rig.state()["shadow"] is None and b"cflow_shadow" not in rig.ask("/metrics").body
        body = {"candidate": "0" * 64}
        assert rig.ask("/api/promote", "POST", body, X_Requested_By="cflow-edge").status == 404


def test_a_restart_goes_on_with_counts_and_pictures(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD, BETWEEN, BAD)
    [kept] = pictures_of(folder / "i.db").iterdir()
    rows = asked(folder / "i.db", "SELECT verdict, candidate, event, picture FROM shadow ORDER BY frame")
    assert rows == [("good", "good", 0, ""), ("anomalous", "good", 1, kept.name), ("anomalous", "anomalous", 0, "")]
    with shadowing(folder) as rig:
        [one] = rig.state()["disagreements"]
        assert rig.state()["compared"] == 3 and not one["markable"]
        assert rig.page.ask(f"/shadow/{one['picture']}.jpg").body == kept.read_bytes()
        rig.before = -3
        rig.judge(BETWEEN)
        assert rig.state()["counts"]["running_events"] == 2


def test_without_a_log_it_is_kept_in_memory_alone(folder: Path):
    before = set(folder.iterdir())
    with shadowing(folder, kept=False) as rig:
        rig.judge(GOOD, BETWEEN)
        assert rig.state()["compared"] == 2 and "--log" in rig.state()["fixed"]
        answer = rig.change(override="anyway")
        assert answer.status == 422 and "start with --log" in answer.json()["error"]
    assert set(folder.iterdir()) == before


def test_a_threshold_that_is_moved_begins_another_comparison(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(BETWEEN)
        body = {"value": 1.8, "instead_of": 1.0}
        assert rig.page.ask("/api/threshold", "POST", body, X_Requested_By="cflow-edge").status == 200
        rig.before = 1
        rig.judge(BETWEEN)
        wait_until(lambda: rig.state()["threshold"] == 1.8 and rig.state()["compared"] == 1)  # not the one before
        assert rig.state()["compared"] == 1 and rig.state()["counts"]["both_good"] == 1
        assert rig.state()["disagreements"] == []
        rig.promotion.shadow.ledger.write()
        assert len(asked(folder / "i.db", "SELECT id FROM comparisons")) == 2


def test_what_the_line_gives_no_verdict_on_is_counted_and_not_compared(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        one: Judgement = rig.judgements[0]
        rig.promotion.shadow.offer(replace(one, result=one.result.without_verdict("frozen")))
        assert rig.state()["counts"]["unjudged"] == 1 and rig.state()["compared"] == 1


def test_a_candidate_that_is_too_slow_skips_frames_and_the_line_does_not_wait(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        process = rig.promotion.shadow._keeper.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            rig.feed(*[BETWEEN] * 60)  # none of them waits
            counts = rig.state()["counts"]
            assert counts["skipped"] >= 60 - beside.QUEUED - 1 and rig.state()["compared"] == 1
        finally:
            os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: rig.seen() == 61)
        assert rig.state()["compared"] == 61 - counts["skipped"]
    assert {one.result.verdict for one in rig.judgements[1:]} == {"anomalous"}
    assert "shadow: cable2.onnx: cannot keep up" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="a thread's policy is Linux's")
def test_every_thread_of_a_candidate_takes_what_is_idle(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        process = rig.promotion.shadow._keeper.process
        assert process is not None
        threads = [int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}


def test_a_candidate_rests_between_the_frames_of_a_camera(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(beside, "REST", 1e9)
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        rig.feed(*[GOOD] * (beside.QUEUED + 5))
        assert rig.state()["compared"] == 1 and rig.state()["counts"]["skipped"] == 5
    assert asked(folder / "i.db", "SELECT count(*) FROM shadow") == [
        (1 + beside.QUEUED,)
    ]  # at the end it rests no more


def test_a_candidate_whose_process_is_killed_is_said_counted_and_started_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    with shadowing(folder) as rig:
        rig.judge(GOOD)
        process = rig.promotion.shadow._keeper.process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        rig.judge(BAD, GOOD)
        found = rig.state()
        assert found["counts"]["failed"] == 2 and "its process ended with status -9" in found["trouble"]
        assert any("the candidate fails" in reason for reason in found["against"])
        assert "cflow_shadow_up 0.0" in rig.page.ask("/metrics").body.decode()
        wait_until(lambda: (rig.judge(GOOD), rig.state()["trouble"] == "")[1])
        assert rig.state()["compared"] >= 2
    assert [one.result.verdict for one in rig.judgements[:3]] == ["good", "anomalous", "good"]
    assert capsys.readouterr().err.count("its process ended") == 1


def _frame_sized(folder: Path) -> Path:
    """Write a candidate that takes frames of 64 x 96 and resizes them itself."""
    path = folder / "sized.onnx"
    model = tiny_model((64, 96), 3.0)
    graph = model.graph
    graph.node[2].output[0] = "large"
    for name, value in (("starts", [0, 0]), ("ends", [64, 96]), ("axes", [1, 2]), ("steps", [2, 2])):
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [2], value))
    graph.node.insert(3, helper.make_node("Slice", ["large", "starts", "ends", "axes", "steps"], [MAP_NAME]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info(MAP_NAME, TensorProto.FLOAT, ["batch", 32, 48]))
    assert graph.output[1].name == SCORE_NAME and graph.input[0].name == INPUT_NAME
    onnx.save(model, path)
    sidecar = tiny_sidecar(path, (32, 48), ("layer2", "layer3", "layer4"))
    kept = (Artefact("onnx", "fp32", sha256_of(path)),)
    write_sidecar(path, replace(sidecar, frame_size=(64, 96), artefacts=kept))
    return path


def test_frames_that_a_candidate_cannot_take_are_failures_of_its_own(folder: Path):
    words = ("--shadow", str(_frame_sized(folder)))
    with shadowing(folder, *words) as rig:  # frames of 32 x 48
        rig.judge(GOOD, BAD)
        assert rig.state()["counts"]["failed"] == 2 and "64x96" in rig.state()["trouble"]
        assert [one.result.verdict for one in rig.judgements] == ["good", "anomalous"]
    with shadowing(folder, *words, sources=[ControlledSource("cam", True, size=(64, 96))]) as rig:
        rig.before = -2
        rig.camera = rig.running.inspection.sources[0]
        rig.judge(GOOD, BAD)
        assert rig.state()["compared"] == 2 and rig.state()["trouble"] == ""


class Spotted(ControlledSource):
    """Frames that are dark but for their left half, which has the grey level."""

    def __iter__(self):
        for frame in super().__iter__():
            image = frame.image.copy()
            image[:, 24:] = 10
            yield replace(frame, image=image)


def test_each_source_has_its_own_mask_for_the_candidate_too(folder: Path):
    for name, seen in (("left", slice(0, 24)), ("right", slice(24, 48))):
        mask = np.zeros((32, 48), np.uint8)
        mask[:, seen] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    cameras = [Spotted("a", True), Spotted("b", True)]
    words = ["--source", str(folder), "--mask", str(folder / "left.png"), "--mask", str(folder / "right.png")]
    with shadowing(folder, *words, sources=cameras) as rig:
        for camera in cameras:
            camera.put(BAD)
        rig.running.wait(2)
        wait_until(lambda: rig.seen() == 2)
        assert rig.state()["counts"]["both_anomalous"] == 1 and rig.state()["counts"]["both_good"] == 1
    assert {one.source: one.result.verdict for one in rig.judgements} == {"a": "anomalous", "b": "good"}


def test_a_mask_that_leaves_the_candidate_nothing_ends_the_start(folder: Path):
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :1] = 255  # a column of the engine's map, and less than half of one of the candidate's
    Image.fromarray(mask).save(folder / "mask.png")
    write_tiny_engine(folder, "cable2", size=(4, 6), threshold=2.0)
    with pytest.raises(UserError, match="must leave at least"), shadowing(folder, "--mask", str(folder / "mask.png")):
        pass


def test_frames_under_another_recipe_are_not_compared(folder: Path):
    words = ["--recipes", str(write_recipes(folder, TWO)), "--shadow-recipe", "high"]
    with shadowing(folder, *words) as rig:
        rig.feed(BETWEEN, BAD)
        assert rig.recipes.use("high", "me", "test") == ""
        rig.before = 2
        rig.judge(GOOD, BAD)
        found = rig.state()
        assert (found["recipe"], found["running"], found["compared"], found["agree"]) == ("high", "high.onnx", 2, 2)
    rows = asked(folder / "i.db", "SELECT frame FROM shadow ORDER BY frame")
    assert rows == [(2,), (3,)]


def test_a_part_is_one_judgement_and_what_was_not_answered_is_not_compared(folder: Path):
    camera = OnDemand("a")
    camera.deaf = {2}
    orders = Orders(replace(LONG, deadline_s=1.0))
    with shadowing(folder, sources=[camera], orders=orders) as rig:
        assert rig.running.ask("SN1") == ""
        rig.running.wait(1)
        assert rig.running.ask("SN2") == ""
        rig.running.wait(2)
        wait_until(lambda: rig.seen() == 2)
        counts = rig.state()["counts"]
        assert counts["both_good"] == 1 and counts["unjudged"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shadow", "{}/missing.onnx"], "missing.onnx must exist"),
        (["--shadow", "{}/cable.onnx"], "must be another engine than the one that judges"),
        (["--shadow", "{}/broken.onnx"], "broken.onnx must be an ONNX"),
        (["--recipes", "{}/recipes.toml", "--shadow-recipe", "plug"], "--shadow-recipe must be one of low, high"),
        (["--recipes", "{}/several.toml"], "--shadow needs a recipe with one detector"),
    ],
)
def test_a_candidate_that_cannot_be_ends_the_start_in_one_line(folder: Path, words: list[str], said: str):
    write_recipes(folder, TWO)
    entry = '[[recipe]]\nname = "two"\nengine = "{f}/low.onnx"\n'
    inspects = '[[recipe.inspect]]\nname = "a"\n[[recipe.inspect]]\nname = "b"\n'
    (folder / "several.toml").write_text((entry + inspects).replace("{f}", str(folder)))
    broken = write_tiny_engine(folder, "broken")
    broken.write_bytes(b"no engine")
    sidecar = tiny_sidecar(broken, (32, 48), ("layer2",), 0.5)
    write_sidecar(broken, sidecar)
    with (
        pytest.raises(UserError, match=said) as raised,
        shadowing(folder, *(word.replace("{}", str(folder)) for word in words)),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_a_log_of_an_older_release_takes_what_is_compared(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from runtime.records import schema
    from runtime.records.database import open_to_write

    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:4])
        open_to_write(folder / "i.db").close()
    with shadowing(folder) as rig:
        rig.judge(GOOD)
    assert asked(folder / "i.db", "SELECT count(*) FROM shadow") == [(1,)]


def test_what_the_log_does_not_take_waits_and_is_written_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with shadowing(folder) as rig:
        with monkeypatch.context() as broken:
            broken.setattr(Log, "shadow", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            rig.judge(GOOD, BETWEEN)
            rig.promotion.shadow.ledger.write()
        assert rig.state()["compared"] == 2
        assert "the inspection goes on" in capsys.readouterr().err
    assert asked(folder / "i.db", "SELECT count(*) FROM shadow") == [(2,)]


def test_counts_go_into_each_new_file_of_the_log(folder: Path):
    with shadowing(folder) as rig:
        rig.judge(GOOD, BETWEEN)
        rig.promotion.shadow.ledger.write()
        wait_until(lambda: asked(folder / "i.db", "SELECT count(*) FROM inspections") == [(2,)])
        log = rig.promotion._line.log
        assert log is not None and log._connection is not None
        with log._lock:
            log._begin_piece(log._connection)
        assert asked(folder / "i.db", "SELECT count(*) FROM shadow") == [(0,)]
        rig.judge(GOOD)
    with shadowing(folder) as rig:
        assert rig.state()["compared"] == 3 and len(rig.state()["disagreements"]) == 1
    assert len(asked(folder / "i.db", "SELECT id FROM comparisons")) == 1


def test_a_dry_run_names_the_candidate(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--engine", str(folder / "cable.onnx"), "--source", str(folder), "--dry-run", "--shadow"]
    assert run_command(infer.main, [*words, str(folder / "cable2.onnx")]) == 0
    assert f"shadow: {folder / 'cable2.onnx'}\n" in capsys.readouterr().out
    assert run_command(infer.main, [*words, "missing.onnx"]) == 0
    assert "shadow: missing.onnx, would not open: no such file" in capsys.readouterr().out
