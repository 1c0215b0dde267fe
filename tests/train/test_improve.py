"""From marks to candidates on the command line: what is proposed, what is refused, and that nothing else changes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.common.errors import run_command
from runtime.common.locks import one_writer
from runtime.detector import Detector
from runtime.engines.sidecar import Threshold
from runtime.images.view import View, ViewOptions
from runtime.improve import rejudge
from runtime.records.log import Log
from runtime.records.marks import FALSE_ALARM, MISSED, WITHDRAWN, marks, pictures_of
from tests.support.marked_log import SIZE, MarkedLog, open_tiny, with_spots
from tests.support.paths import ROOT
from tests.support.small_disk import fill, small_disk
from train import improve

DIRT = (6, 40)  # where the lens is dirty: (row, column)
ELSEWHERE = [(25, column) for column in (4, 12, 20, 28, 36, 44)]


@dataclass
class Desk:
    """An engine, what its line wrote, and the command on both."""

    engine: Path
    detector: Detector
    log: MarkedLog
    out: Path
    capsys: pytest.CaptureFixture[str]

    def improve(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run the command; return its status, its JSON objects, and what it says aside."""
        given = ["--log", str(self.log.path), "--engine", str(self.engine), "--out", str(self.out), "--json", *words]
        status = run_command(improve.main, given)
        said = self.capsys.readouterr()
        return status, [json.loads(line) for line in said.out.splitlines()], said.err

    def kinds(self, *words: str) -> dict[str, dict[str, Any]]:
        """Run the command and return what it says of each kind."""
        return {found["kind"]: found for found in self.improve(*words)[1][1:]}


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    (tmp_path / "line").mkdir()
    engine, detector = open_tiny(tmp_path / "line")
    with Log(tmp_path / "line" / "i.db") as writer, detector:
        log = MarkedLog(tmp_path / "line" / "i.db", writer)
        log.begin_as(engine, detector, "--camera", "0")
        yield Desk(engine, detector, log, tmp_path / "out", capsys)


def _dirt(count: int, level: int = 200) -> list[np.ndarray]:
    """Return frames with a bright speck at one place, but for a pixel."""
    return [with_spots((DIRT[0] + index % 2, DIRT[1]), level=level) for index in range(count)]


def _false_alarms(desk: Desk, frames: list[np.ndarray], **of: Any) -> None:
    for frame in frames:
        desk.log.judge(desk.detector, frame, FALSE_ALARM, **of)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and ".db" not in path.name}


def test_a_threshold_comes_as_an_engine_beside_the_one_in_force(desk: Desk) -> None:
    _false_alarms(desk, [with_spots(place, level=95 + index) for index, place in enumerate(ELSEWHERE)])
    for level in (150, 160, 170, 180, 190):
        desk.log.judge(desk.detector, with_spots((16, 20), level=level))  # real alarms
    desk.log.judge(desk.detector, with_spots())
    before, said = _files(desk.engine.parent), marks(desk.log.path)
    status, (evidence, threshold, *others), _ = desk.improve()
    assert status == 0 and [found["kind"] for found in others] == ["mask", "renewed model"]
    assert (evidence["false_alarms"], evidence["missed"], evidence["judgements"]) == (6, 0, 12)
    [row] = threshold["rows"]
    assert row["now"]["false_alarms"]["count"] == 6 and row["now"]["false_alarms"]["of"] == 7
    assert row["then"]["false_alarms"]["count"] == row["then"]["misses"]["count"] == 0
    low, high = row["then"]["misses"]["interval"]
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 5))
    candidate = desk.out / "tiny-threshold.onnx"
    assert threshold["files"] == [str(desk.out / "tiny-threshold.json"), str(candidate)]
    assert f"--shadow {candidate}" in threshold["try_it"]
    with runtime.load(candidate) as detector:
        assert detector.threshold == pytest.approx(3 * (100 + 150) / 2 / 255)
        assert detector.map_threshold == desk.detector.map_threshold
        assert "from 6 marks" in detector.sidecar.threshold.method
    assert sorted(path.name for path in desk.out.iterdir()) == ["tiny-threshold.json", "tiny-threshold.onnx"]
    assert _files(desk.engine.parent) == before and marks(desk.log.path) == said


def test_a_mask_leaves_out_what_is_always_wrong_and_nothing_else(desk: Desk) -> None:
    _false_alarms(desk, _dirt(8))
    for place in ELSEWHERE:
        desk.log.judge(desk.detector, with_spots(place))
    found = desk.kinds()["mask"]
    file = desk.out / "tiny-mask.png"
    assert found["files"] == [str(file)] and found["rows"][0]["then"]["false_alarms"]["count"] == 0
    view = View(ViewOptions(mask=file))

    def verdict(frame: np.ndarray) -> str:
        return view.inspected(desk.detector(view(frame)), "paper").verdict

    assert {verdict(frame) for frame in _dirt(2)} == {"good"}
    assert {verdict(with_spots(place)) for place in [*ELSEWHERE, (16, 20), (6, 30)]} == {"anomalous"}
    assert np.mean(np.asarray(Image.open(file)) == 0) < 0.1


def test_a_mask_is_of_the_cameras_frame_and_leaves_out_what_the_one_before_did(desk: Desk, tmp_path: Path) -> None:
    camera = (60, 70)  # rows, columns; the region, turned and flipped, is what the engine is asked
    mask = np.full(camera, 255, np.uint8)
    mask[40:, 10:20] = 0
    Image.fromarray(mask).save(tmp_path / "old mask.png")
    seen = {"roi": (10, 5, SIZE[0], SIZE[1]), "rotate": 90, "flip": "h"}
    words = ["--roi", "10,5,32,48", "--rotate", "90", "--flip", "h", "--mask", str(tmp_path / "old mask.png")]
    desk.log.begin_as(desk.engine, desk.detector, "--camera", "0", *words)
    old = View(ViewOptions(**seen, mask=tmp_path / "old mask.png"))  # type: ignore[arg-type]

    def shown(*spots: tuple[int, int]) -> np.ndarray:
        return with_spots(*spots, (45, 14), size=camera)  # one of them under the old mask

    for index in range(8):
        frame = old(shown((12 + index % 2, 30)))
        result = old.inspected(desk.detector(frame), "paper")
        assert result.verdict == "anomalous"
        desk.log.add(result.image_score, FALSE_ALARM, result, frame)
    found = desk.kinds()["mask"]
    new = View(ViewOptions(**seen, mask=desk.out / "tiny-mask.png"))  # type: ignore[arg-type]
    assert found["files"] and np.asarray(Image.open(desk.out / "tiny-mask.png")).shape == camera

    def verdict(frame: np.ndarray) -> str:
        return new.inspected(desk.detector(new(frame)), "paper").verdict

    assert verdict(shown((12, 30))) == verdict(shown()) == "good"
    assert verdict(shown((30, 30))) == verdict(shown((12, 20))) == "anomalous"


def test_of_a_region_the_cameras_size_must_be_told(desk: Desk) -> None:
    desk.log.begin_as(desk.engine, desk.detector, "--camera", "0", "--roi", "10,5,48,32")
    _false_alarms(desk, _dirt(8))
    assert "--camera-size" in desk.kinds()["mask"]["why"]
    assert "would judge 48x7" in desk.kinds("--camera-size", "640x12")["mask"]["why"]
    assert desk.kinds("--camera-size", "640x480")["mask"]["files"]
    assert Image.open(desk.out / "tiny-mask.png").size == (640, 480)


@pytest.mark.parametrize("bad", ["missed", "alarm", "known"])
def test_a_mask_never_covers_where_something_bad_was(bad: str, desk: Desk, tmp_path: Path) -> None:
    _false_alarms(desk, _dirt(8))
    words = []
    if bad == "missed":
        desk.log.judge(desk.detector, with_spots(DIRT, level=80), MISSED)
    elif bad == "alarm":
        desk.log.judge(desk.detector, with_spots(DIRT, (DIRT[0] + 1, DIRT[1]), level=220))
    else:
        words = [
            "--data",
            str(_labelled(tmp_path / "data", with_spots((20, 20)), with_spots(DIRT, level=255, ground=0))),
        ]
    assert "lies a missed part, a known defect or an alarm not called false" in desk.kinds(*words)["mask"]["why"]
    assert not desk.out.exists()


def _labelled(root: Path, defect: np.ndarray, mask: np.ndarray) -> Path:
    """Write a data set with one defect, whose place is where `mask` is bright."""
    for name, image in (("train/good/0.png", with_spots()), ("test/dent/0.png", defect)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    (root / "ground_truth/dent").mkdir(parents=True)
    Image.fromarray((mask[..., 0] > 128).astype(np.uint8) * 255).save(root / "ground_truth/dent/0_mask.png")
    return root


def test_where_a_missed_part_is_bad_must_be_known_before_anything_is_masked(desk: Desk) -> None:
    _false_alarms(desk, _dirt(8))
    desk.log.add(0.3, MISSED)
    assert "of 1 missed parts of camera:0 no frame is known" in desk.kinds()["mask"]["why"]


def test_each_source_has_a_mask_of_its_own(desk: Desk, tmp_path: Path) -> None:
    for index in range(2):
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / f"mask{index}.png")
    own = [word for index in range(2) for word in ("--mask", str(tmp_path / f"mask{index}.png"))]
    words = ["--camera", "0", "--camera", "1", "--name", "left", "--name", "right", *own]
    desk.log.begin_as(desk.engine, desk.detector, *words)
    _false_alarms(desk, _dirt(8), source="right")
    _false_alarms(desk, [with_spots(place) for place in ELSEWHERE], source="left")
    found = [one for one in desk.improve()[1][1:] if one["kind"] == "mask"]
    assert found[0]["files"] == [str(desk.out / "tiny-mask-right.png")] and "for right" in found[0]["try_it"]
    assert "no place of left is wrong again and again" in found[1]["why"]
    (tmp_path / "mask1.png").write_bytes(b"another")
    status, _, error = desk.improve("--out", str(tmp_path / "other"))
    assert status == 2 and "mask1.png, the mask that right was judged with, must be there as it was" in error


def test_places_that_are_too_large_or_a_painted_mask_are_refused(desk: Desk, tmp_path: Path) -> None:
    _false_alarms(desk, [with_spots(*((row, column) for row in range(2, 30, 4) for column in range(2, 46, 4)))] * 8)
    assert "of the picture, more than 10%" in desk.kinds()["mask"]["why"]
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / "mask.png")
    desk.log.begin_as(desk.engine, desk.detector, "--camera", "0", "--mask", str(tmp_path / "mask.png"), "--mask-fill")
    _false_alarms(desk, _dirt(8))
    assert "paints over what its mask leaves out" in desk.kinds()["mask"]["why"]


def test_frames_that_prove_nothing_are_left_out_and_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _false_alarms(desk, _dirt(6))
    gone, damaged, other, size = (desk.log.judge(desk.detector, frame, FALSE_ALARM) for frame in _dirt(4))
    desk.log.add(1.5, FALSE_ALARM)
    taken_back = desk.log.judge(desk.detector, _dirt(1)[0], FALSE_ALARM)
    desk.log.say(taken_back, WITHDRAWN)
    folder = pictures_of(desk.log.path)
    (folder / f"{gone:09d}.png").unlink()
    (folder / f"{damaged:09d}.png").write_bytes((folder / f"{damaged:09d}.png").read_bytes()[:60])
    Image.fromarray(with_spots(level=90)).save(folder / f"{other:09d}.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{size:09d}.png")
    evidence = desk.improve()[1][0]
    assert evidence["marks_left_out"] == {"taken back": 1}
    assert evidence["frames_left_out"] == {rejudge.NO_FRAME: 1, rejudge.DAMAGED: 2, rejudge.OTHERWISE: 2}


def test_too_few_marks_are_said_and_nothing_is_written(desk: Desk) -> None:
    desk.log.judge(desk.detector, with_spots())
    status, said, error = desk.improve()
    assert status == 1 and len(said) == 1 and "needs at least 5 marks of this engine; found 0" in error
    _false_alarms(desk, _dirt(3))
    status, (_, threshold, mask, renewed), _ = desk.improve()
    assert status == 1 and not desk.out.exists()
    assert threshold["why"] == "it needs at least 5 marks at the threshold in force; found 3"
    assert "needs at least 5 parts of camera:0 that are false alarms, with their frames; found 3" in mask["why"]
    assert "--data, --checkpoint" in renewed["why"]


def test_a_person_reads_a_table(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    _false_alarms(desk, _dirt(8))
    words = ["--log", str(desk.log.path), "--engine", str(desk.engine), "--out", str(desk.out)]
    assert run_command(improve.main, words) == 0
    said = capsys.readouterr().out
    assert "marks that count: 8 false alarms, 0 missed" in said
    assert "threshold: none; " in said and "mask: " in said
    assert "marked frames  8 of 8 (63.1 to 100 %)  0 of 8 (0 to 36.9 %)  none known  none known" in said
    beside = f"--shadow {desk.engine} --shadow-mask {desk.out / 'tiny-mask.png'}"
    assert f"try it: add {beside} to the line's runtime.infer; then start it with --mask instead" in said


def test_the_mask_of_a_recipe_is_in_its_file_and_its_threshold_is_proposed(desk: Desk) -> None:
    desk.log.recipe = "small"
    _false_alarms(desk, _dirt(6, level=95))
    for level in (150, 160, 170, 180, 190):
        desk.log.judge(desk.detector, with_spots((16, 20), level=level))
    found = desk.kinds()
    assert "the masks of recipes are in their file" in found["mask"]["why"]
    assert found["threshold"]["files"]


def test_what_stands_is_never_replaced(desk: Desk) -> None:
    _false_alarms(desk, _dirt(8))
    assert desk.improve()[0] == 0
    before = _files(desk.out)
    status, _, error = desk.improve()
    assert status == 2 and "must hold no candidate of tiny.onnx yet" in error and "found tiny-mask.png" in error
    assert _files(desk.out) == before


WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
import cflow
sys.exit(cflow.main(["improve", *sys.argv[1:]]))
"""


def test_without_torch_a_threshold_and_a_mask_are_proposed_and_a_model_is_refused(desk: Desk, tmp_path: Path) -> None:
    _false_alarms(desk, _dirt(8))
    data = _labelled(tmp_path / "data", with_spots((20, 20)), with_spots((20, 20), level=255))
    words = ["--log", desk.log.path, "--engine", desk.engine, "--out", desk.out, "--data", data]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words), *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    heavy = run("--checkpoint", "cable.pt")
    assert heavy.returncode == 2 and heavy.stderr.startswith("error: cflow improve needs the library torch")
    assert not desk.out.exists()
    light = run()
    assert light.returncode == 0 and "mask: " in light.stdout and (desk.out / "tiny-mask.png").is_file(), light.stderr


def test_one_at_a_time_makes_candidates_and_what_a_killed_one_left_goes(desk: Desk) -> None:
    _false_alarms(desk, _dirt(8))
    leftover = desk.out / ".improving-tiny.abcd1234"
    others = desk.out / ".improving-tiny.x.abcd1234"  # of another engine, which may be at work
    for folder in (leftover, others):
        folder.mkdir(parents=True)
    with one_writer(desk.out / "improving-tiny", "the candidates", "wait"):
        status, _, error = desk.improve()
        assert status == 2 and "must have one writer at a time" in error and leftover.exists()
    assert desk.improve()[0] == 0
    assert not leftover.exists() and others.exists()


def test_the_threshold_that_the_line_judged_with_counts_and_not_the_sidecars(desk: Desk) -> None:
    desk.detector.use(Threshold(1.2, "on the command line"))
    desk.log.begin_as(desk.engine, desk.detector, "--camera", "0", "--threshold", "1.2")
    _false_alarms(desk, _dirt(6, level=110))
    evidence = desk.improve()[1][0]
    assert (evidence["threshold"], evidence["sidecar_threshold"]) == (1.2, 1.0)
    words = ["--log", str(desk.log.path), "--engine", str(desk.engine), "--out", str(desk.out / "again")]
    run_command(improve.main, words)
    assert "the sidecar says 1.0000: the line judged with another one" in desk.capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoint", "cable.pt"], "--checkpoint needs --data"),
        (["--engine", "none.onnx"], "needs none.json beside it"),
        (["--log", "none.db"], "must be an inspection log"),
        (["--recipe", "other"], "with the recipe other"),
        (["--data", "none"], "must be a folder of good images"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str, desk: Desk) -> None:
    _false_alarms(desk, _dirt(8))
    try:
        status, _, error = desk.improve(*words)
    except SystemExit as ended:  # of the parser
        status, error = ended.code, desk.capsys.readouterr().err  # type: ignore[assignment]
    assert status == 2 and said in error and "Traceback" not in error
    assert not desk.out.exists()


def test_on_a_full_disk_nothing_half_written_stays_and_the_next_run_works(desk: Desk, tmp_path: Path) -> None:
    _false_alarms(desk, _dirt(8, level=95))
    for level in (150, 160, 170, 180, 190):
        desk.log.judge(desk.detector, with_spots((16, 20), level=level))
    with small_disk(tmp_path / "disk") as disk:
        desk.out = disk / "out"
        filler = fill(disk)
        status, _, error = desk.improve()
        assert status == 2 and "the disk is full" in error
        assert [path.name for path in disk.iterdir()] == ["filler"]
        filler.unlink()
        assert desk.improve()[0] == 0
        assert {"tiny-threshold.json", "tiny-threshold.onnx"} <= {path.name for path in desk.out.iterdir()}
