"""`cflow check` as it is run, on tiny engines whose score is the picture's brightness."""

import io
import json
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import check, infer
from runtime.common.errors import run_command
from runtime.common.files import sha256_of
from runtime.common.pieces import pieces_of
from runtime.records.checks import add_check, checks, newest_checks
from runtime.records.log import Log
from runtime.records.read import audit
from tests.support.log_rows import asked, rows
from tests.support.recipes import write_recipes
from tests.support.snapshot_server import SnapshotServer, jpeg
from tests.support.tiny_engine import write_tiny_engine

DARK, BRIGHT = 40, 200  # the engine's threshold is at grey level 85


def picture(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 3, (32, 48, 3))
    Image.fromarray((level + noise).astype(np.uint8)).save(path)
    return path


def parts(folder: Path) -> Path:
    picture(folder / "good" / "g1.png", DARK)
    picture(folder / "good" / "g2.png", DARK + 20)
    picture(folder / "bad" / "b1.png", BRIGHT)
    return folder


class Bench:
    """A folder with an engine, parts and a log, and the command run on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.engine = write_tiny_engine(folder)
        self.parts = parts(folder / "parts")
        self.log = folder / "i.db"

    def check(self, *words: object, engine: object = None) -> tuple[int, str]:
        fixed = ["--golden", self.parts, "--log", self.log, "--backend", "onnxruntime"]
        named = ["--engine", engine or self.engine] if "--recipes" not in words else []
        self._capsys.readouterr()
        status = run_command(check.main, [str(word) for word in [*fixed, *named, *words]])
        said = self._capsys.readouterr()
        return status, said.out + said.err

    def kept(self) -> list[tuple]:
        return asked(self.log, "SELECT passed, who, origin, recipe, parts FROM checks ORDER BY id")


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_parts_that_come_out_as_recorded_pass_and_are_in_log_and_audit(bench: Bench):
    assert bench.check("--record", "--who", "Ana")[0] == 0
    status, said = bench.check("--who", "Ana Lopez")
    assert status == 0 and "passed, 3 parts" in said
    [(passed, who, origin, recipe, kept)] = bench.kept()
    assert (passed, who, origin, recipe) == (1, "Ana Lopez", "files", "")
    by_name = {part["name"]: part for part in json.loads(kept)}
    assert list(by_name) == ["good/g1", "good/g2", "bad/b1"]
    assert by_name["bad/b1"]["score"] == pytest.approx(3 * (BRIGHT + 1) / 255, abs=0.02)  # the engine's own formula
    changes = [(change["what"], change["new"], change["who"]) for change in audit(bench.log)]
    assert changes[0] == ("check", "passed, 3 parts", "Ana Lopez")
    assert changes[1] == ("reference parts", "3 recorded (files)", "Ana")


def test_a_score_that_moved_fails_though_the_verdict_is_right(bench: Bench):
    bench.check("--record")
    record = bench.parts / "reference.json"
    told = json.loads(record.read_text())
    told["recipes"][""]["files"]["parts"][0]["score"] += 0.2
    record.write_text(json.dumps(told))
    status, said = bench.check()
    assert status == 1 and "moved by -0.2000, more than 0.1" in said
    assert bench.kept()[0][0] == 0
    assert bench.check("--tolerance", "0.25")[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: picture(folder / "good" / "g1.png", DARK + 1), "its image is not the one that was recorded"),
        (lambda folder: (folder / "good" / "g2.png").unlink(), "it was recorded, and is not there"),
        (lambda folder: picture(folder / "good" / "new.png", DARK), "it was not recorded"),
    ],
)
def test_parts_that_are_not_the_recorded_ones_fail(bench: Bench, change, said: str):
    bench.check("--record")
    change(bench.parts)
    status, found = bench.check()
    assert status == 1 and said in found and bench.kept()[0][0] == 0


def test_a_moved_threshold_lets_a_bad_part_through_and_fails(bench: Bench):
    bench.check("--record")
    status, said = bench.check("--threshold", "2.9")
    assert status == 1 and "good instead of anomalous" in said


def test_a_part_that_comes_out_wrong_is_not_recorded(bench: Bench):
    picture(bench.parts / "bad" / "weak.png", DARK)
    status, said = bench.check("--record")
    assert status == 1 and "bad/weak must come out anomalous, found good" in said
    assert not (bench.parts / "reference.json").exists()


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda bench: None, "no record"),
        (lambda bench: (bench.parts / "reference.json").write_text("[]"), "must be a record of reference parts"),
        (lambda bench: (bench.parts / "bad" / "b1.png").unlink(), "no bad one"),
        (lambda bench: (bench.parts / "parts.csv").write_text("part,expected\nx,maybe\n"), "good or bad"),
    ],
)
def test_what_cannot_be_checked_is_one_line_and_no_record(bench: Bench, prepare, said: str):
    prepare(bench)
    status, found = bench.check()
    assert status == 2 and said in found and found.count("error:") == 1
    assert not bench.log.exists()


def test_another_engine_needs_a_record_of_its_own(bench: Bench):
    bench.check("--record")
    other = write_tiny_engine(bench.folder, "other", size=(24, 40))
    status, said = bench.check(engine=other)
    assert status == 2 and "with this engine" in said


def test_each_recipe_has_parts_and_a_record_of_its_own(bench: Bench):
    recipes = write_recipes(bench.folder)
    for name in ("low", "high"):
        parts(bench.parts / name)
    assert bench.check("--recipes", recipes, "--record")[0] == 0
    assert bench.check("--recipes", recipes)[0] == 0
    assert [(row[0], row[3]) for row in bench.kept()] == [(1, "low"), (1, "high")]
    status, _ = bench.check("--recipes", recipes, "--recipe", "high")
    assert status == 0 and [row[3] for row in bench.kept()] == ["low", "high", "high"]


def test_a_recipe_without_parts_is_named(bench: Bench):
    recipes = write_recipes(bench.folder)
    parts(bench.parts / "low")
    status, said = bench.check("--recipes", recipes, "--record")
    assert status == 0 and "recipe high: not checked" in said


def test_the_configuration_of_the_line_can_be_given(bench: Bench):
    config = bench.folder / "line.toml"
    text = f'engine = "{bench.engine}"\ncamera = [0]\nserve = "8080"\nmqtt = "mqtt://broker/a"\ncheck-every = "8h"\n'
    config.write_text(text)
    words = ["--golden", str(bench.parts), "--config", str(config), "--backend", "onnxruntime", "--log", str(bench.log)]
    assert run_command(check.main, [*words, "--record"]) == 0
    assert run_command(check.main, words) == 0


def test_parts_before_a_camera_are_asked_for_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    (bench.folder / "names").mkdir()
    (bench.folder / "names" / "parts.csv").write_text("part,expected\nmaster,good\nscratch,bad\n")
    bench.parts = bench.folder / "names"
    with closing(SnapshotServer()) as camera:

        class Person(io.StringIO):
            """Puts the part there that is asked for, and presses Enter."""

            shown = 0

            def readline(self, *_: object) -> str:
                camera.content = jpeg((20, 180)[self.shown % 2])
                self.shown += 1
                return "\n"

        monkeypatch.setattr(sys, "stdin", Person())
        words = ["--live", "--source", f"http://127.0.0.1:{camera.port}/", "--camera-fps", "50"]
        assert bench.check("--record", *words)[0] == 0
        status, said = bench.check(*words)
        assert status == 0 and "put the BAD part scratch before" in said
        assert bench.kept()[0][2] == "live"
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        status, said = bench.check(*words)
        assert status == 2 and "no more input" in said and len(bench.kept()) == 1


def test_live_wants_one_source(bench: Bench):
    status, said = bench.check("--live")
    assert status == 2 and "--live needs one camera or stream" in said


def test_checks_are_written_while_a_line_writes_and_begins_new_files(bench: Bench):
    bench.check("--record")
    bench.check()
    [first] = newest_checks(bench.log)
    stop, failed, many = threading.Event(), [], rows(0, 500)

    def write() -> None:
        try:
            with Log(bench.log, 16_000_000) as log:
                while not stop.wait(0.01):  # a line writes four times a second
                    log.append(many)
        except Exception as error:
            failed.append(error)

    line, written = threading.Thread(target=write), 1
    line.start()
    try:
        while len(pieces_of(bench.log)) < 4 and line.is_alive():
            add_check(bench.log, first[0])
            written += 1
            stop.wait(0.02)  # checks without a pause would fill the audit, which each new file takes over
    finally:
        stop.set()
        line.join()
    assert not failed and len(pieces_of(bench.log)) >= 4
    assert [one.id for one in checks(bench.log, 0, 1e12)] == list(range(1, written + 1))  # none lost, none twice
    assert sum(change["what"] == "check" for change in audit(bench.log)) == written
    for file in (bench.log, *pieces_of(bench.log)):
        assert asked(file, "PRAGMA integrity_check") == [("ok",)]


def test_a_line_without_checks_needs_no_log_and_checks_need_one(bench: Bench, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        infer.main(["--engine", str(bench.engine), "--source", str(bench.parts / "good"), "--check-every", "8h"])
    assert ended.value.code == 2 and "--check-every needs --log" in capsys.readouterr().err


def test_two_engines_are_recorded_and_checked_with_the_same_parts(bench: Bench):
    other = write_tiny_engine(bench.engine.parent, "other", size=(24, 40))
    assert bench.check("--record")[0] == 0 and bench.check("--engine", str(other), "--record")[0] == 0
    for words in ([], ["--engine", str(other)], []):
        status, said = bench.check(*words)
        assert status == 0 and "passed" in said
    assert bench.check("--engine", str(other), "--record")[0] == 0  # again: one record of each
    ways = json.loads((bench.parts / "reference.json").read_text())["recipes"][""]
    assert len(ways) == 2 and len({way["engine_sha256"] for way in ways.values()}) == 2
    newest = {check.engine_sha256: check.passed for check, _ in newest_checks(bench.log)}
    assert len(newest) == 2 and all(newest.values())


@pytest.mark.parametrize("several", [False, True], ids=["engine", "recipes"])
def test_a_candidate_is_checked_with_its_recipe_and_takes_nothing_from_what_judges(bench: Bench, several: bool):
    candidate = write_tiny_engine(bench.folder, "candidate", size=(16, 24))
    words = ["--recipes", write_recipes(bench.folder), "--recipe", "low"] if several else []
    of = [*words, "--shadow", candidate]
    for more in (words, [*of, "--candidate"]):
        assert bench.check(*more, "--record")[0] == 0
        status, said = bench.check(*more)
        assert status == 0 and "passed" in said
    found = {(check.recipe, check.engine_sha256): check.passed for check, _ in newest_checks(bench.log)}
    judges = bench.folder / "low.onnx" if several else bench.engine
    name = "low" if several else ""
    assert found == {(name, sha256_of(judges)): True, (name, sha256_of(candidate)): True}


def test_a_candidate_that_was_not_named_is_asked_for(bench: Bench):
    status, said = bench.check("--candidate")
    assert status == 2 and "found no --shadow FILE" in said
