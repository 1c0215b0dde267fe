import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.images.preprocess import ReadOptions
from runtime.sources.naming import run_mark
from runtime.sources.open import OpenOptions, SourceKind, SourceSpec, open_source
from tests.support.fake_camera import FakeCamera

LEVELS = (10, 60, 110, 160, 210)


def _write_images(folder: Path, count: int) -> None:
    for i in range(count):
        Image.fromarray(np.full((6, 8, 3), 10 * i, np.uint8)).save(folder / f"{i}.png")


def _write_video(path: Path, levels: tuple[int, ...]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for level in levels:
        bgr = np.zeros((48, 64, 3), np.uint8)
        bgr[:, :, 2] = level  # red
        writer.write(bgr)
    writer.release()
    return path


def test_a_spec_tells_the_kinds_apart(tmp_path: Path):
    _write_images(tmp_path, 1)
    video = tmp_path / "clip.AVI"
    video.touch()
    assert SourceSpec.parse("camera:12") == SourceSpec(SourceKind.CAMERA, "12")
    assert SourceSpec.parse(str(tmp_path)).kind is SourceKind.FOLDER
    assert SourceSpec.parse(str(tmp_path / "0.png")).kind is SourceKind.IMAGE
    assert SourceSpec.parse(str(video)).kind is SourceKind.VIDEO


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera:", "camera:N"),
        ("camera:-1", "camera:N"),
        ("camera:front", "camera:N"),
        ("camera:²", "camera:N"),
        ("missing.png", "no such file"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        SourceSpec.parse(text)


def test_an_unknown_suffix_is_refused_with_those_known(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"\.mp4.*\.png.*'\.txt'"):
        SourceSpec.parse(str(tmp_path / "notes.txt"))


def test_a_folder_yields_every_image_in_natural_order(tmp_path: Path):
    _write_images(tmp_path, 12)
    with open_source(SourceSpec.parse(str(tmp_path))) as source:
        frames = list(source)
        assert not source.live and source.dropped == 0 and source.name == str(tmp_path)
    assert [frame.name for frame in frames] == [f"{i}.png" for i in range(12)]
    assert [frame.index for frame in frames] == list(range(12))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [10 * i for i in range(12)]
    assert abs(frames[0].captured_s - time.time()) < 3600  # seconds since 1970, not since the machine started


def test_one_image_is_one_frame(tmp_path: Path):
    _write_images(tmp_path, 3)
    with open_source(SourceSpec.parse(str(tmp_path / "2.png"))) as source:
        assert [(frame.name, frame.index) for frame in source] == [("2.png", 0)]


def test_an_unreadable_image_is_a_frame_with_a_fault_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _write_images(tmp_path, 4)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "2.png").chmod(0)
    with open_source(SourceSpec.parse(str(tmp_path)), OpenOptions(read=ReadOptions(max_pixels=47))) as source:
        assert [bool(frame.fault) for frame in source] == [True] * 4  # 6 x 8 pixels are too many
    with open_source(SourceSpec.parse(str(tmp_path))) as source:
        frames = list(source)
        assert source.unreadable == sum(bool(frame.fault) for frame in frames)
    assert [frame.name for frame in frames] == ["0.png", "1.png", "2.png", "3.png"]
    assert "1.png" in frames[1].fault and not frames[1].image.any() and frames[1].image.shape == (6, 8, 3)
    assert not (frames[0].fault or frames[3].fault)
    assert "no verdict: " in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="must hold images"):
        open_source(SourceSpec.parse(str(tmp_path)))


def test_a_video_yields_every_frame_in_rgb(tmp_path: Path):
    path = _write_video(tmp_path / "clip.avi", LEVELS)
    with open_source(SourceSpec.parse(str(path))) as source:
        frames = list(source)
        assert source.dropped == 0
    assert [frame.name for frame in frames] == [f"clip_{i:06d}" for i in range(len(LEVELS))]
    for frame, level in zip(frames, LEVELS, strict=True):
        assert frame.image.shape == (48, 64, 3)
        # JPEG's colour conversion and quantisation move a flat colour by a few levels
        np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), (level, 0, 0), atol=6)


def test_a_video_without_frames_is_refused(tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(UserError, match=r"broken\.mp4 must be a video"):
        open_source(SourceSpec.parse(str(broken)))

    empty = _write_video(tmp_path / "empty.avi", ())
    with pytest.raises(UserError, match=r"empty\.avi must be a video"):
        for _ in open_source(SourceSpec.parse(str(empty))):
            pass


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the capture thread did not get there"
        time.sleep(0.001)


def test_a_camera_keeps_the_newest_frame_and_counts_the_dropped(monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    with open_source(SourceSpec.parse("camera:3")) as source:
        assert camera.opened_with == [3] and source.live and source.name == "camera:3"
        frames = iter(source)
        camera.put(10)
        first = next(frames)
        camera.put(20, 30, 40)
        _wait_until(lambda: source.dropped == 2)
        second = next(frames)
        camera.put(None)  # lets the capture thread see that it is to stop
    assert (first.index, first.name, first.image[0, 0].tolist()) == (0, f"camera3_{run_mark()}_000000", [10, 10, 0])
    assert (second.index, second.name, second.image[0, 0].tolist()) == (3, f"camera3_{run_mark()}_000003", [40, 40, 0])
    assert camera.released


def test_leaving_a_camera_ends_its_thread(monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    camera.put(*range(50))
    with open_source(SourceSpec.parse("camera:0")) as source:
        for frame in source:
            assert frame.image.shape == (24, 36, 3)
            break
        camera.put(None)
    assert camera.released and "camera:0" not in [thread.name for thread in threading.enumerate()]
    source.close()


def test_a_camera_that_does_not_open_is_refused(monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera(opens=False).install(monkeypatch)
    with pytest.raises(UserError, match=r"camera 7 must open.*/dev/video"):
        open_source(SourceSpec(SourceKind.CAMERA, "7"))
    assert camera.released


def test_a_camera_that_stops_is_an_error_after_its_last_frame(monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    with open_source(SourceSpec.parse("camera:0")) as source:
        camera.put(10, None)
        frames = iter(source)
        assert next(frames).index == 0
        with pytest.raises(UserError, match="keep delivering"):
            next(frames)
