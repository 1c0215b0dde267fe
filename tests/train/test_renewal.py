"""A model renewed with frames that people marked: judged on marks that it has not seen, built as the old one was."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import runtime
from export import build_engine
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import Threshold, read_sidecar
from runtime.improve.evidence import read_evidence
from runtime.improve.proposal import Mistakes, Row
from runtime.improve.rejudge import UNFIT, rejudge
from runtime.improve.staging import staged
from runtime.records.log import Log
from runtime.records.marks import FALSE_ALARM, pictures_of
from tests.support.corrected_line import corrected_line, in_warm_light, read, train_and_build, write_cables
from tests.support.marked_log import MarkedLog, open_tiny, png, with_spots
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from train import improve
from train.data.open import open_dataset
from train.renewal.build_like import backend_like, build_like
from train.renewal.renew import Renewal, not_better, promises
from train.synthetic import write_dataset

MARKED, HELD = 20, 20  # good parts in another light: those that people correct, and those that nobody has marked


@dataclass(frozen=True)
class Improved:
    """What became of a line whose people corrected twenty verdicts."""

    data: Path
    engine: Path
    out: Path
    said: list[dict[str, Any]]
    later: list[Any]  # images of good parts in the new light that nobody has marked
    before: dict[str, bytes]


def _verdicts(engine: Path, images: list[Any]) -> list[str]:
    with runtime.load(engine, threads=1) as detector:
        return [detector(image).verdict for image in images]


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory) -> Improved:
    folder = tmp_path_factory.mktemp("year")
    data = write_cables(folder / "cables")
    engine = train_and_build(data, folder / "cable.pt")
    parts = write_cables(folder / "parts", seed=5, train=MARKED + HELD, test_good=0, per_defect=0)
    images = [in_warm_light(read(path), seed) for seed, path in enumerate(sorted((parts / "train/good").iterdir()))]
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "line").mkdir()
    log, out, printed = folder / "line" / "i.db", folder / "out", folder / "said.jsonl"
    with corrected_line(folder / "line", engine, log) as line:
        assert line.judge_good(images[:MARKED]) == MARKED
        words = ["--log", log, "--engine", engine, "--out", out, "--data", data, "--checkpoint", folder / "cable.pt"]
        with pytest.MonkeyPatch.context() as patch, printed.open("w") as file:  # while the line goes on
            patch.setattr("sys.stdout", file)
            assert run_command(improve.main, [*map(str, words), "--json"]) == 0
    said = [json.loads(text) for text in printed.read_text().splitlines()]
    return Improved(data, engine, out, said, images[MARKED:], before)


@pytest.mark.slow
def test_twenty_corrected_verdicts_halve_the_false_alarms_without_a_new_miss(improved: Improved) -> None:
    candidate = improved.out / "cable-renewed.onnx"
    now, then = (_verdicts(engine, improved.later).count("anomalous") for engine in (improved.engine, candidate))
    assert now >= HELD / 2 and then <= now / 2
    defects = [read(image.path) for image in open_dataset(improved.data).test if image.anomalous]
    found = [
        {index for index, verdict in enumerate(_verdicts(engine, defects)) if verdict == "anomalous"}
        for engine in (improved.engine, candidate)
    ]
    assert found[0] and found[0] <= found[1]


@pytest.mark.slow
def test_it_says_what_held_out_marks_and_known_parts_come_to(improved: Improved) -> None:
    evidence, *found = improved.said
    assert evidence["false_alarms"] == MARKED and evidence["known_parts"] == 18
    [renewed] = [one for one in found if one["kind"] == "renewed model"]
    marks, known = renewed["rows"]
    assert marks["now"]["false_alarms"]["count"] == marks["now"]["false_alarms"]["of"] == MARKED / 2
    assert marks["then"]["false_alarms"]["count"] <= MARKED / 2 - 5
    assert marks["then"]["false_alarms"]["interval"][1] > 0 and marks["now"]["misses"]["of"] == 0
    assert known["now"]["misses"]["of"] == 10 and known["now"]["false_alarms"]["of"] == 8
    assert any("nats a dimension likely" in note for note in renewed["notes"])
    assert any("promises of new good parts: nothing" in note for note in renewed["notes"])
    assert f"--shadow {improved.out / 'cable-renewed.onnx'}" in renewed["try_it"]


@pytest.mark.slow
def test_it_is_built_as_the_engine_in_force_was_which_stays_as_it_is(improved: Improved) -> None:
    assert {name: (improved.engine.parent / name).read_bytes() for name in improved.before} == improved.before
    names = {path.name for path in improved.out.iterdir()}
    made = {"json", "onnx", "pt", "suspects.jpg", "unfused.onnx"}
    assert names == {f"cable-renewed.{suffix}" for suffix in made}
    old, new = (
        load_checkpoint(path) for path in (improved.engine.with_suffix(".pt"), improved.out / "cable-renewed.pt")
    )
    assert new.model.config == old.model.config and new.data_sha256 != old.data_sha256
    assert read_sidecar(improved.out / "cable-renewed.onnx").name == "cable-renewed"
    dataset = open_dataset(improved.data)
    pictures = sorted((improved.engine.parent / "line" / "i.marks").iterdir())
    assert new.data_sha256 == replace(dataset, added=tuple(pictures[::2])).sha256()  # the others are held out


@pytest.mark.slow
def test_a_model_that_finds_held_out_good_images_less_likely_says_so(improved: Improved) -> None:
    checkpoint = improved.engine.with_suffix(".pt")
    dataset, sidecar = open_dataset(improved.data), read_sidecar(improved.engine)
    renewal = Renewal(improved.engine, sidecar, checkpoint, dataset, improved.data)
    renewal.check()
    new = load_checkpoint(checkpoint)
    assert not renewal.likelihoods(new)[0].startswith("worse")
    for parameter in new.model.decoders.parameters():
        parameter.data.mul_(0.9)
    [said] = renewal.likelihoods(new)
    assert said.startswith("worse: 8 held-out good images are")  # a fifth of forty, as in the old one's training


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, Path]:
    """A data set and a checkpoint of random weights, quick to build from."""
    write_dataset(tmp_path / "data", train=4, test_good=0, per_defect=0, size=64)
    good = sorted((tmp_path / "data/train/good").iterdir())
    return tmp_path / "data", write_tiny_checkpoint(tmp_path / "cable.pt", good, (32, 48))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "frame_size"), [("fp32", (64, 64)), ("fp16", None)])
def test_precision_and_frame_size_are_those_of_the_engine_in_force(
    precision: str, frame_size: tuple[int, int] | None, tiny: tuple[Path, Path], tmp_path: Path
) -> None:
    data, checkpoint = tiny
    words = [str(checkpoint), f"--{precision}", "--no-plan"]
    words += [] if frame_size is None else ["--frame-size", "64x64"]
    assert run_command(build_engine.main, words) == 0
    engine = checkpoint.with_suffix(".onnx" if precision == "fp32" else f".{precision}.onnx")
    old = read_sidecar(engine)
    (tmp_path / "out").mkdir()
    model = write_tiny_checkpoint(
        tmp_path / "out" / "cable-renewed.pt", sorted((data / "train/good").iterdir()), (32, 48)
    )
    new = build_like(old, old.artefact_of(engine), model, data / "train" / "good")
    built = tmp_path / "out" / engine.name.replace("cable", "cable-renewed")
    assert new.frame_size == old.frame_size == frame_size
    assert new.artefact_of(built).precision == precision
    if frame_size is not None:
        _check_sizes(engine, tmp_path, data)


def _check_sizes(engine: Path, folder: Path, data: Path) -> None:
    """An engine that resizes frames itself is asked its own size alone."""
    with runtime.load(engine, threads=1, threshold=0.001) as detector, Log(folder / "i.db") as writer:
        log = MarkedLog(folder / "i.db", writer)
        log.begin_as(engine, detector, "--camera", "0")
        images = [read(path) for path in sorted((data / "train/good").iterdir())]
        numbers = [log.judge(detector, image, FALSE_ALARM) for image in images]
        smaller = images[0][:32]
        (pictures_of(log.path) / f"{numbers[0]:09d}.png").write_bytes(png(smaller))
        frames = rejudge(detector, read_evidence(log.path, detector.hashes.engine))
    assert len(frames.false_alarms) == len(images) - 1 and frames.left_out == {UNFIT: 1}


class Small:
    """A tiny engine with marked frames, and a checkpoint that is not its own."""

    def __init__(self, folder: Path, log: MarkedLog, engine: Path) -> None:
        self.folder, self.log, self.engine = folder, log, engine

    def improve(self, data: Path, checkpoint: Path) -> int:
        words = ["--log", self.log.path, "--engine", self.engine, "--out", self.folder / "out"]
        return run_command(improve.main, [*map(str, words), "--data", str(data), "--checkpoint", str(checkpoint)])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    engine, detector = open_tiny(tmp_path)
    with Log(tmp_path / "i.db") as writer, detector:
        log = MarkedLog(tmp_path / "i.db", writer)
        log.begin_as(engine, detector, "--camera", "0")
        for column in range(4, 44, 4):
            log.judge(detector, with_spots((16, column)), FALSE_ALARM)
        yield Small(tmp_path, log, engine)


def test_a_checkpoint_of_another_engine_is_refused_before_anything_is_done(
    small: Small, tiny: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert small.improve(*tiny) == 2
    error = capsys.readouterr().err
    assert "--checkpoint must be what tiny.onnx was built from" in error and error.count("\n") == 1
    assert not (small.folder / "out").exists()


def _row(on: str, now: tuple[int, int], then: tuple[int, int], of: int = 10) -> Row:
    ways = [Mistakes.of([True] * f + [False] * (of - f), [False] * m + [True] * (of - m)) for f, m in (now, then)]
    return Row(on, ways[0], ways[1])


def test_what_helps_too_little_or_misses_more_is_not_proposed() -> None:
    assert not_better([_row("marked parts held out", (10, 4), (5, 4)), _row("known parts", (1, 0), (3, 0))]) == ""
    assert "of 10 held-out parts it still calls 6 anomalous" in not_better(
        [_row("marked parts held out", (10, 4), (6, 0))]
    )
    known = _row("known parts (--data)", (1, 0), (0, 1))
    assert "it misses 1 of 10" in not_better([_row("marked parts held out", (10, 4), (0, 4)), known])


def test_a_worse_promise_is_said() -> None:
    promised, less, nothing = (Threshold(1.0, "", rate) for rate in (0.01, 0.02, None))
    assert promises(promised, less) == [
        "worse: false alarms that its threshold promises of new good parts: at most 2.00%; "
        "the one before: at most 1.00%"
    ]
    assert (
        promises(promised, nothing)[0].startswith("worse: ")
        and "nothing; the one before" in promises(promised, nothing)[0]
    )
    for better in (promises(less, promised), promises(nothing, less), promises(nothing, nothing)):
        assert not better[0].startswith("worse")


def test_too_few_frames_are_said_before_any_training(small: Small, tiny: tuple[Path, Path]) -> None:
    sidecar = read_sidecar(small.engine)
    evidence = read_evidence(small.log.path, sidecar.artefacts[0].sha256)
    renewal = Renewal(small.engine, sidecar, tiny[1], open_dataset(tiny[0]), tiny[0])
    with runtime.load(small.engine, threads=1) as detector, staged(small.engine, small.folder / "out") as stage:
        frames = rejudge(detector, evidence)
        found = renewal.propose(replace(frames, judged=frames.judged[:9]), [], stage)
    assert "needs at least 10 parts that are false alarms" in found.fields()["why"]
    assert "found 9" in found.fields()["why"]


def test_a_plan_whose_builder_is_not_known_cannot_be_renewed(small: Small, tiny: tuple[Path, Path]) -> None:
    plan = replace(read_sidecar(small.engine).artefacts[0], kind="plan")
    with pytest.raises(UserError, match="must name the library that built it; found none"):
        backend_like(plan)
