"""Video files that real FFmpeg wrote: whole ones raise no alarm, cut and damaged ones do."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.sources.video import VideoFile
from runtime.sources.video_check import VideoCheck

FRAMES = 60
NOISE = "testsrc2=size=160x120:rate=25,noise=alls=10:allf=t"
NEEDS_FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
VARIABLE = "setpts='if(lt(N,30),N,N*3)/25/TB'"


def _ffmpeg(*words: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def _make(path: Path, codec: str, *more: object) -> Path:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    words = ("-f", "lavfi", "-i", NOISE, "-frames:v", FRAMES, "-pix_fmt", pixels, "-c:v", codec, *more)
    _ffmpeg(*words, path)
    return path


def _by_opencv(path: Path, codec: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (160, 120))
    random = np.random.default_rng(0)
    for _ in range(FRAMES):
        writer.write(np.kron(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8)))
    writer.release()
    return path


def _read(path: Path) -> tuple[list, list[str]]:
    said: list[str] = []
    with VideoFile(path, checked=True, say=said.append) as video:
        frames = list(video)
        assert video.unreadable == sum(bool(frame.fault) for frame in frames)
    return frames, said


def _cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[: int(share * len(data))])
    return cut


@NEEDS_FFMPEG
@pytest.mark.parametrize(
    ("name", "codec", "more"),
    [
        ("a.mp4", "libx264", ()),
        ("fragments.mp4", "libx264", ("-movflags", "frag_keyframe+empty_moov")),
        ("a.mov", "mjpeg", ()),
        ("a.m4v", "mpeg4", ()),
        ("a.avi", "mpeg4", ("-bf", "2")),
        ("a.avi", "mjpeg", ()),
        ("a.avi", "rawvideo", ()),
        ("a.mkv", "libx264", ("-bf", "8")),
        ("a.webm", "libvpx", ()),
        ("a.ts", "libx264", ()),
        ("a.mpg", "mpeg1video", ()),
        ("a.mpg", "mpeg2video", ()),
        ("variable.mkv", "libx264", ("-vf", VARIABLE, "-vsync", "vfr")),
        ("variable.mp4", "libx264", ("-vf", VARIABLE, "-vsync", "vfr")),
    ],
)
def test_a_whole_video_raises_no_alarm(tmp_path: Path, name: str, codec: str, more: tuple[str, ...]):
    frames, said = _read(_make(tmp_path / name, codec, *more))
    assert len(frames) == FRAMES and said == [] and not any(frame.fault for frame in frames)


@NEEDS_FFMPEG
def test_odd_but_whole_videos_raise_no_alarm(tmp_path: Path):
    """A Matroska that was written to a pipe states no length, a trimmed MP4 shows fewer frames than it holds."""
    whole = _make(tmp_path / "a.mp4", "libx264")
    streamed = tmp_path / "streamed.mkv"
    streamed.write_bytes(_ffmpeg("-i", whole, "-c", "copy", "-f", "matroska", "-"))
    _ffmpeg("-ss", "1.3", "-i", whole, "-c", "copy", tmp_path / "trimmed.mp4")
    _ffmpeg("-i", whole, *("-f", "lavfi", "-i", "sine=duration=5", "-c:v", "copy"), tmp_path / "long_sound.mkv")
    for name, least in (("streamed.mkv", FRAMES), ("trimmed.mp4", 20), ("long_sound.mkv", FRAMES)):
        frames, said = _read(tmp_path / name)
        assert len(frames) >= least and said == [], name


@NEEDS_FFMPEG
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
@pytest.mark.parametrize(
    ("name", "codec", "more"),
    [
        ("a.mp4", "libx264", ("-movflags", "+faststart")),
        ("fragments.mp4", "libx264", ("-movflags", "frag_keyframe+empty_moov", "-g", "12")),
        ("a.mkv", "libx264", ()),
        ("a.mkv", "mjpeg", ()),
        ("a.avi", "mjpeg", ()),
        ("a.avi", "mpeg4", ()),
        ("a.avi", "rawvideo", ()),
    ],
)
def test_a_video_that_was_cut_off_ends_with_a_frame_that_says_so(
    tmp_path: Path, name: str, codec: str, more: tuple[str, ...], share: float
):
    frames, said = _read(_cut(_make(tmp_path / name, codec, *more), share))
    assert len(frames) < FRAMES + 1
    assert frames[-1].fault and "no verdict on" in said[0]
    assert not frames[0].fault, "what lies long before the cut can be trusted"


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.avi", "XVID")])
def test_what_the_decoder_reports_reaches_every_frame_that_is_spoilt(tmp_path: Path, name: str, codec: str):
    path = _by_opencv(tmp_path / name, codec)
    sound = [frame.image for frame in _read(path)[0]]
    assert len(sound) == FRAMES
    data, random = path.read_bytes(), np.random.default_rng(1)
    for share in (0.3, 0.5, 0.7):
        place = int(share * len(data))
        path.write_bytes(data[:place] + random.bytes(64) + data[place + 64 :])
        frames, said = _read(path)
        assert said and any(not frame.fault for frame in frames)
        wrong = {i for i, image in enumerate(sound) if np.abs(frames[i].image.astype(int) - image).mean() > 2}
        assert wrong and wrong <= {frame.index for frame in frames if frame.fault}


def test_a_frame_that_the_container_states_and_does_not_hold_is_missed(tmp_path: Path):
    path = _by_opencv(tmp_path / "a.avi", "MJPG")
    whole = path.read_bytes()
    index = whole.rindex(b"idx1")
    last = [place for place in range(len(whole) - 4) if whole[place : place + 4] == b"00dc" and place < index][-10]
    path.write_bytes(whole[:last])  # between two frames, so that no decoder sees half of one
    frames, said = _read(path)
    assert frames[-1].fault.startswith("the video is not whole (") and "of 60 frames" in frames[-1].fault
    assert len(said) == 1


@NEEDS_FFMPEG
def test_an_interlaced_video_is_read_or_has_no_verdict(tmp_path: Path):
    """OpenCV 5.0.0 repeats one picture (findings/opencv_repeats_interlaced.sh)."""
    frames, _ = _read(_make(tmp_path / "a.ts", "libx264", "-x264-params", "interlaced=1"))
    different = len({frame.image.tobytes() for frame in frames})
    assert len(frames) >= FRAMES and (different == FRAMES or all(frame.fault for frame in frames))


def test_a_check_that_dies_is_no_clean_bill(tmp_path: Path):
    path = _by_opencv(tmp_path / "a.avi", "MJPG")
    with VideoCheck(path) as check:
        check.close()
        assert "could not be checked" in check.end()
        assert check.fault(10**6) == ""  # and nobody waits for it
