from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.images.overlay import draw
from runtime.sinks.delivery import Delivery
from runtime.sinks.video import VideoOptions, VideoSink
from tests.support.judgements import judgement
from tests.support.small_disk import small_disk

RESERVE = 0  # these tests may run on a disk that is nearly full


def _options(**changes: float) -> VideoOptions:
    return VideoOptions(**{"reserve_bytes": RESERVE, **changes})  # type: ignore[arg-type]


def _frames(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, bgr = capture.read()
        if not ok:
            return frames
        frames.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _videos(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_video_holds_every_overlay_in_order(tmp_path: Path, suffix: str):
    options = _options(fps=10.0)
    with VideoSink(tmp_path / f"line{suffix}", 3.0, options) as sink:
        for i in range(12):
            one = judgement(i, 2.0 if i % 2 else 0.5, size=(120, 160))
            one.frame.image[:] = 20 * i
            sink.write(one)
        assert _videos(tmp_path) == []  # a video without its end has no name yet
    assert _videos(tmp_path) == [f"line_000001{suffix}"]
    frames = _frames(tmp_path / f"line_000001{suffix}")
    assert len(frames) == 12 and frames[0].shape == (120, 160, 3)
    for i, frame in enumerate(frames):
        one = judgement(i, 2.0 if i % 2 else 0.5, size=(120, 160))
        one.frame.image[:] = 20 * i
        # the codecs' own loss; 20 grey levels lie between two frames
        assert np.abs(frame.astype(int) - draw(one.frame.image, one.result, 3.0)).mean() < 9
    capture = cv2.VideoCapture(str(tmp_path / f"line_000001{suffix}"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)


def test_segments_end_by_time_and_a_later_run_goes_on_numbering(tmp_path: Path):
    for _ in range(2):
        with VideoSink(tmp_path / "line.mp4", 3.0, _options(fps=10.0, segment_s=0.4)) as sink:
            for i in range(10):
                sink.write(judgement(i))
    names = [f"line_{number:06d}.mp4" for number in range(1, 7)]
    assert _videos(tmp_path) == names
    assert [len(_frames(tmp_path / name)) for name in names] == [4, 4, 2, 4, 4, 2]


def test_segments_end_by_size_and_the_oldest_go(tmp_path: Path):
    options = _options(cap_bytes=1_000_000)  # segments of 250 kB, looked at every 25 frames
    with VideoSink(tmp_path / "line.mp4", 3.0, options) as sink:
        for i in range(400):  # noise
            sink.write(judgement(i, size=(120, 160)))
    names = _videos(tmp_path)
    assert names[0] != "line_000001.mp4" and len(names) >= 3
    assert sum((tmp_path / name).stat().st_size for name in names) <= 1_000_000
    for name in names[:-1]:
        assert len(_frames(tmp_path / name)) % 25 == 0


def test_a_frame_of_another_size_begins_a_segment_and_odd_sides_are_no_trouble(tmp_path: Path):
    with VideoSink(tmp_path / "line.mp4", 3.0, _options()) as sink:
        for i, size in enumerate([(60, 80), (60, 80), (61, 81), (1, 1)]):
            sink.write(judgement(i, size=size))
    shapes = [[frame.shape[:2] for frame in _frames(tmp_path / name)] for name in _videos(tmp_path)]
    assert shapes == [[(60, 80)] * 2, [(62, 82)], [(2, 2)]]


def test_every_source_has_its_own_video(tmp_path: Path):
    with VideoSink(tmp_path / "line.mp4", 3.0, _options(), by_source=True) as sink:
        for i in range(6):
            sink.write(judgement(i, source="left" if i % 3 else "right"))
    assert _videos(tmp_path) == ["line_left_000001.mp4", "line_right_000001.mp4"]
    assert [len(_frames(tmp_path / name)) for name in _videos(tmp_path)] == [4, 2]


def test_a_segment_ends_whole_before_the_disk_is_full(tmp_path: Path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        delivery = Delivery(
            VideoSink(disk / "line.avi", 3.0, _options(reserve_bytes=2_000_000)), say=lambda line: None, patience_s=60
        )
        for i in range(300):  # noise, about 15 kB a frame: 4.5 MB
            delivery.offer(judgement(i, size=(120, 160)))
        delivery.close()
        counts = delivery.counts()
        (name,) = _videos(disk)
        assert len(_frames(disk / name)) == counts.delivered < 300
        assert counts.failed == 300 - counts.delivered and "No space left" in counts.last_error


def test_frames_that_a_full_disk_took_are_missed(tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        said: list[str] = []
        delivery = Delivery(VideoSink(disk / "line.avi", 3.0, _options()), say=said.append, patience_s=60)
        for i in range(100):  # about 1.5 MB, which OpenCV writes without a word
            delivery.offer(judgement(i, size=(120, 160)))
        delivery.close()
        assert any("of 100 frames" in line for line in said)


def test_a_suffix_that_is_no_video_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"must end in one of \.mp4"):
        VideoSink(tmp_path / "line.gif", 3.0)
