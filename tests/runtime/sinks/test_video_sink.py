import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.common.files import safe_name
from runtime.images.overlay import draw
from runtime.sinks.delivery import Delivery
from runtime.sinks.video import VideoSink
from runtime.sinks.video_segment import VideoOptions
from tests.support.judgements import judgement
from tests.support.paths import ROOT
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until

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


def _bytes(folder: Path) -> int:
    """Of all segments, the hidden ones too."""
    return sum(path.stat().st_size for path in folder.iterdir() if not path.name.startswith(".cflow-edge"))


def test_segments_end_by_time_and_a_later_run_goes_on_numbering(tmp_path: Path):
    for _ in range(2):
        with VideoSink(tmp_path / "line.mp4", 3.0, _options(fps=10.0, segment_s=0.4)) as sink:
            for i in range(10):
                sink.write(judgement(i))
    names = [f"line_{number:06d}.mp4" for number in range(1, 7)]
    assert _videos(tmp_path) == names
    assert [len(_frames(tmp_path / name)) for name in names] == [4, 4, 2, 4, 4, 2]


def test_segments_end_by_size_and_the_oldest_go(tmp_path: Path):
    options = _options(cap_bytes=2_000_000)  # segments of 500 kB
    with VideoSink(tmp_path / "line.mp4", 3.0, options) as sink:
        for i in range(400):  # noise
            sink.write(judgement(i, size=(120, 160)))
            assert _bytes(tmp_path) <= 2_000_000
    names = _videos(tmp_path)
    assert names[0] != "line_000001.mp4" and len(names) >= 3
    for name in names[:-1]:
        # and what FFmpeg holds back until it is 256 KiB, or the end
        assert 500_000 <= (tmp_path / name).stat().st_size < 500_000 + (256 << 10) + 50_000
        assert len(_frames(tmp_path / name)) > 10


def test_a_frame_of_another_size_begins_a_segment_and_odd_sides_are_no_trouble(tmp_path: Path):
    with VideoSink(tmp_path / "line.mp4", 3.0, _options()) as sink:
        for i, size in enumerate([(60, 80), (60, 80), (61, 81), (1, 1)]):
            sink.write(judgement(i, size=size))
    shapes = [[frame.shape[:2] for frame in _frames(tmp_path / name)] for name in _videos(tmp_path)]
    assert shapes == [[(60, 80)] * 2, [(62, 82)], [(2, 2)]]


def test_every_source_has_its_own_video(tmp_path: Path):
    with VideoSink(tmp_path / "line.mp4", 3.0, _options(sources=2)) as sink:
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
        counts = delivery.counts()
        kept = sum(len(_frames(disk / name)) for name in _videos(disk))
        assert counts.delivered == kept and counts.failed == 100 - kept > 0 and counts.lost == 0
        assert any(f"{counts.failed} frames are missing" in line for line in said)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("room", [0, 20_000])
def test_what_a_cut_file_says_of_its_own_length_is_not_believed(tmp_path: Path, suffix: str, room: int):
    """The index of an AVI or MKV may name 16 frames, or a length that is none, where a part of them can be played."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        sink = VideoSink(disk / f"line{suffix}", 3.0, _options(reserve_bytes=100_000))
        delivery = Delivery(sink, say=lambda line: None, patience_s=60)
        for i in range(4):
            delivery.offer(judgement(i, size=(480, 640)))
        wait_until(lambda: delivery.counts().delivered == 4)
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - room)
        for i in range(4, 16):
            delivery.offer(judgement(i, size=(480, 640)))
        delivery.close()
        counts = delivery.counts()
        kept = sum(len(_frames(disk / name)) for name in _videos(disk))
        assert counts.delivered == kept < 16 and counts.failed == 16 - kept and counts.lost == 0


@pytest.mark.parametrize("how", ["removed", "folder removed"])
def test_frames_whose_file_was_removed_are_missed_and_the_next_have_one(tmp_path: Path, how: str):
    delivery = Delivery(VideoSink(tmp_path / "out" / "line.mp4", 3.0, _options()), say=lambda line: None)
    for i in range(10):
        delivery.offer(judgement(i))
    wait_until(lambda: delivery.counts().delivered == 10)
    if how == "removed":
        (tmp_path / "out" / ".line_000001.ismv").unlink()
    else:
        shutil.rmtree(tmp_path / "out")
    for i in range(10, 20):
        delivery.offer(judgement(i))
    delivery.close()
    # the eleventh is what shows that the file is gone
    assert (delivery.counts().delivered, delivery.counts().failed) == (9, 11)
    assert [len(_frames(tmp_path / "out" / name)) for name in _videos(tmp_path / "out")] == [9]


def test_many_sources_share_the_cap_and_no_open_segment_goes(tmp_path: Path):
    sources = [f"camera:{i}" for i in range(6)]
    options = _options(cap_bytes=6_000_000, sources=len(sources))  # segments of 250 kB
    delivery = Delivery(VideoSink(tmp_path / "line.mp4", 3.0, options), patience_s=60)
    for i in range(150):  # noise, about 2 MB a source
        for source in sources:
            delivery.offer(judgement(i, source=source, size=(120, 160)))
        wait_until(lambda: not delivery.counts().queued)
        assert _bytes(tmp_path) <= 6_000_000
        opened = [path for path in tmp_path.glob(".*.ismv") if path.stat().st_size]
        assert len(opened) == len(sources)
    delivery.close()
    assert delivery.counts().delivered == 150 * len(sources)
    for source in sources:
        names = [name for name in _videos(tmp_path) if name.startswith(f"line_{safe_name(source)}_")]
        frames = [len(_frames(tmp_path / name)) for name in names]
        assert len(frames) >= 2 and sum(frames) > 25, f"{source} has {frames}"


def test_a_cap_that_is_too_small_for_so_many_sources_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="at least 1MB for each source; found 4999999 bytes for 5 sources"):
        VideoSink(tmp_path / "line.mp4", 3.0, _options(cap_bytes=4_999_999, sources=5))


KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.sinks.video import VideoSink
from runtime.sinks.video_segment import VideoOptions
from tests.support.judgements import judgement
sink = VideoSink(Path(sys.argv[1]), 3.0, VideoOptions(reserve_bytes=0, sources=2))
for i in range(int(sys.argv[2])):
    for source in ("left", "right"):
        sink.write(judgement(i, source=source, size=(120, 160)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill_after(path: Path, frames: int) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(frames)], cwd=ROOT, timeout=120)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_segments_of_a_killed_run_can_be_played_and_get_their_names(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / f"line{suffix}"
    _kill_after(path, 200)
    assert _videos(tmp_path) == []
    with VideoSink(path, 3.0, _options(sources=2)) as sink:
        names = [f"line_left_000001{suffix}", f"line_right_000001{suffix}"]
        assert _videos(tmp_path) == names and capsys.readouterr().err.count("of a run that was killed") == 2
        for name in names:
            frames = _frames(tmp_path / name)
            # what FFmpeg held back is less than 256 KiB, and in an MP4 than a group of 12 frames
            a_frame = (tmp_path / name).stat().st_size / len(frames)
            assert 0 <= 200 - len(frames) <= (256 << 10) / a_frame + 12
            for i in (0, 100, len(frames) - 1):
                drawn = draw(judgement(i, size=(120, 160)).frame.image, judgement(i).result, 3.0)
                other = draw(judgement(i + 1, size=(120, 160)).frame.image, judgement(i).result, 3.0)
                assert np.abs(frames[i].astype(int) - drawn).mean() < np.abs(frames[i].astype(int) - other).mean()
        sink.write(judgement(source="left", size=(120, 160)))
    assert _videos(tmp_path) == [names[0], f"line_left_000002{suffix}", names[1]]
    again = VideoSink(path, 3.0, _options(sources=2))  # a third run leaves them as they are, and counts them
    assert again._cap._used == _bytes(tmp_path)
    again.close()


def test_what_a_killed_run_left_without_a_frame_goes_and_nothing_of_another_video_does(tmp_path: Path):
    _kill_after(tmp_path / "line.mp4", 1)  # FFmpeg holds back what it has
    _kill_after(tmp_path / "line_left.mp4", 100)  # in the same folder, and perhaps still being written
    before = sorted(path.name for path in tmp_path.glob(".*.ismv"))
    assert len(before) == 4
    VideoSink(tmp_path / "line.mp4", 3.0, _options(sources=2)).close()
    assert sorted(path.name for path in tmp_path.glob(".*.ismv")) == [
        name for name in before if "left_left" in name or "left_right" in name
    ]
    assert _videos(tmp_path) == []


def test_a_suffix_that_is_no_video_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"must end in one of \.mp4"):
        VideoSink(tmp_path / "line.gif", 3.0)
