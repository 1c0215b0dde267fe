"""A mask is tried in shadow: the same engine, or another, sees the line's frames with a mask of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import check
from runtime.common.errors import UserError, run_command
from runtime.infer import build_parser
from runtime.shadow import arguments
from tests.support.controlled_source import ControlledSource
from tests.support.log_rows import asked
from tests.support.shadow_rig import BAD, GOOD, shadowing


class LeftHalf(ControlledSource):
    """Frames that are dark but for their left half, which has the grey level."""

    def __iter__(self):
        for frame in super().__iter__():
            image = frame.image.copy()
            image[:, 24:] = 10
            yield replace(frame, image=image)


def _mask(folder: Path, name: str, seen: slice, size: tuple[int, int] = (32, 48)) -> str:
    mask = np.zeros(size, np.uint8)
    mask[:, seen] = 255
    Image.fromarray(mask).save(folder / name)
    return str(folder / name)


def test_the_engine_itself_is_compared_with_a_mask_and_cannot_be_promoted(folder: Path):
    camera = LeftHalf("cam", True)
    words = ["--shadow", str(folder / "cable.onnx"), "--shadow-mask", _mask(folder, "right.png", slice(24, 48))]
    with shadowing(folder, *words, sources=[camera]) as rig:
        rig.camera = camera
        rig.judge(GOOD, BAD)
        found = rig.state()
        assert (found["candidate"], found["candidate_threshold"]) == ("cable.onnx with right.png", 1.0)
        assert found["counts"]["both_good"] == 1 and found["counts"]["running_only"] == 1
        assert "start it with the mask" in found["fixed"]
        answer = rig.change(override="anyway")
        assert answer.status == 422 and "a mask is not promoted" in answer.json()["error"]
        assert [one.result.verdict for one in rig.judgements] == ["good", "anomalous"]


def test_it_takes_the_place_of_the_line_s_mask_for_each_source(folder: Path):
    left, right = _mask(folder, "left.png", slice(0, 24)), _mask(folder, "right.png", slice(24, 48))
    cameras = [LeftHalf("a", True), LeftHalf("b", True)]
    words = ["--source", str(folder), "--mask", right]
    shadow = ["--shadow", str(folder / "cable.onnx"), "--shadow-mask", left, "--shadow-mask", "none"]
    with shadowing(folder, *words, *shadow, sources=cameras) as rig:
        for camera in cameras:
            camera.put(BAD)
        rig.running.wait(2)
        rig.judge()
        counts = rig.state()["counts"]
        assert counts["candidate_only"] == 2  # the line sees neither: the one by another mask, the other by none


def test_another_picture_of_the_same_name_begins_another_comparison(folder: Path):
    words = ["--shadow", str(folder / "cable.onnx"), "--shadow-mask", _mask(folder, "m.png", slice(0, 40))]
    for seen in (slice(0, 40), slice(0, 30)):
        _mask(folder, "m.png", seen)
        with shadowing(folder, *words) as rig:
            rig.judge(GOOD)
            assert rig.state()["compared"] == 1
    assert len(asked(folder / "i.db", "SELECT id FROM comparisons")) == 2


def test_a_mask_that_does_not_fit_the_camera_is_a_failure_of_the_candidate_alone(folder: Path):
    mask = _mask(folder, "large.png", slice(0, 40), (64, 96))
    with shadowing(folder, "--shadow", str(folder / "cable.onnx"), "--shadow-mask", mask) as rig:
        process = rig.promotion.shadow._keeper.process
        rig.judge(GOOD, BAD)
        assert rig.state()["counts"]["failed"] == 2 and "as large as the camera's frame" in rig.state()["trouble"]
        assert rig.promotion.shadow._keeper.process is process  # another one would fail as well
        assert [one.result.verdict for one in rig.judgements] == ["good", "anomalous"]


def test_a_mask_that_leaves_nothing_ends_the_start(folder: Path):
    mask = _mask(folder, "black.png", slice(0, 0))
    words = ["--shadow", str(folder / "cable.onnx"), "--shadow-mask", mask]
    with pytest.raises(UserError, match=r"black\.png"), shadowing(folder, *words):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shadow-mask", "m.png"], "--shadow-mask needs --shadow FILE"),
        (["--shadow", "x.onnx", "--shadow-mask", "m.png", "--mask-fill"], "without --recipes and without --mask-fill"),
    ],
)
def test_what_cannot_be_tried_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    parser = build_parser()
    args = parser.parse_args(["--engine", "cable.onnx", "--source", ".", *words])
    with pytest.raises(SystemExit) as ended:
        arguments.check_arguments(parser, args)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_reference_parts_are_not_checked_with_a_mask_that_cannot_judge(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    mask = _mask(folder, "m.png", slice(0, 40))
    line = ["--engine", str(folder / "cable.onnx"), "--source", str(folder), "--log", str(folder / "i.db")]
    shadow = ["--shadow", str(folder / "cable2.onnx"), "--shadow-mask", mask, "--candidate", "--golden", str(folder)]
    assert run_command(check.main, [*line, *shadow]) == 2
    assert "--shadow-mask" in capsys.readouterr().err
