"""Real streams on loopback, their senders killed and started again under way."""

import http.server
import io
import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from runtime.common.addresses import without_secrets
from runtime.common.errors import UserError
from runtime.images.opencv import opencv
from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest
from runtime.sources.frame import Source
from runtime.sources.live import LiveOptions
from runtime.sources.naming import run_mark
from runtime.sources.open import OpenOptions, SourceKind, SourceSpec, open_source
from runtime.sources.streams import csi_pipeline, gstreamer_lack
from tests.support.waiting import wait_until

FAST = Backoff(first_s=0.05, cap_s=0.2)
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt-get install ffmpeg")


def _open(url: str, said: list[str], stall_after_s: float) -> Source:
    options = LiveOptions(FAST, stall_after_s, say=said.append)
    return open_source(SourceSpec.parse(url), OpenOptions(live=options))


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _send_mpeg_ts(port: int, colour: str) -> "subprocess.Popen[bytes]":
    """Send an endless picture of one colour, a key frame in five, at 25 frames per second.

    On a busy machine ffmpeg takes seconds to start: `_heard` says when it sends.
    """
    picture = ["-re", "-f", "lavfi", "-i", f"color={colour}:size=160x120:rate=25"]
    coding = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts"]
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    return subprocess.Popen(["ffmpeg", "-nostdin", "-loglevel", "quiet", *picture, *coding, target])


def _heard(port: int) -> None:
    """Return when something is sent to `port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", port))
        listener.settimeout(120)
        listener.recv(2048)


def _channel(image: np.ndarray) -> int:
    return int(image.mean(axis=(0, 1)).argmax())


@pytest.mark.slow
@needs_ffmpeg
def test_mpeg_ts_over_udp_survives_its_sender():
    port, said = _free_port(socket.SOCK_DGRAM), []
    sender = _send_mpeg_ts(port, "red")
    try:
        _heard(port)
        with _open(f"udp://127.0.0.1:{port}", said, stall_after_s=10.0) as source:
            frames = iter(source)
            first = [next(frames) for _ in range(5)]
            assert (
                first[0].image.shape == (120, 160, 3) and first[0].name == f"udp_127.0.0.1_{port}_{run_mark()}_000000"
            )
            assert {_channel(frame.image) for frame in first} == {0}
            assert source.live and source.state == "live"
            sender.kill()
            sender.wait()
            wait_until(lambda: said)
            assert "is lost" in said[0] and source.state.startswith("reconnecting")
            sender = _send_mpeg_ts(port, "blue")
            after = next(frame for frame in frames if _channel(frame.image) == 2)
            assert after.index > first[-1].index and source.reconnects == 1 and source.state == "live"
        wait_until(lambda: len(said) == 2)
        assert "is back after" in said[1]
    finally:
        sender.kill()
        sender.wait()


class MjpegServer:
    """MJPEG over HTTP as cameras serve it; it can fall silent, break off, and come back at the same port."""

    def __init__(self, level: int, port: int = 0) -> None:
        self._ending = threading.Event()
        self.silent = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                server._stream(self.wfile, level)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def _stream(self, out: io.BufferedIOBase, level: int) -> None:
        data = io.BytesIO()
        Image.fromarray(np.full((48, 64, 3), level, np.uint8)).save(data, "JPEG")
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {data.tell()}\r\n\r\n".encode()
        while not self._ending.wait(0.02):
            if not self.silent.is_set():
                try:
                    out.write(head + data.getvalue() + b"\r\n")
                except OSError:  # nobody listens any more
                    return

    def kill(self) -> None:
        self._ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[list[MjpegServer]]:
    running = [MjpegServer(50)]
    yield running
    running[-1].kill()


def test_mjpeg_over_http_survives_its_server(server: list[MjpegServer]):
    said: list[str] = []
    with _open(f"http://127.0.0.1:{server[0].port}/stream", said, stall_after_s=5.0) as source:
        frames = iter(source)
        first = list(itertools.islice(frames, 5))
        # flat grey through JPEG, whose range OpenCV's FFmpeg may take for the video's: a few levels
        assert all(frame.image.shape == (48, 64, 3) and abs(frame.image.mean() - 50) < 12 for frame in first)
        server[0].kill()
        wait_until(lambda: said)
        server[0] = MjpegServer(200, server[0].port)
        after = next(frame for frame in frames if frame.image.mean() > 150)
        assert after.index > first[-1].index and source.reconnects == 1
        indices = [after.index, *(frame.index for frame in itertools.islice(frames, 5))]
        assert indices == sorted(set(indices))
    assert len(said) == 2 and "is lost" in said[0] and "is back" in said[1]


def test_a_stream_that_falls_silent_is_lost_and_its_thread_does_not_stay(server: list[MjpegServer]):
    said: list[str] = []
    before = threading.active_count()
    with _open(f"http://127.0.0.1:{server[0].port}/stream", said, stall_after_s=1.0) as source:
        frames = iter(source)
        next(frames)
        reader = source._reader
        server[0].silent.set()
        wait_until(lambda: said)
        wait_until(reader.done.is_set)  # its read returned, though the server still says nothing
        assert "is lost" in said[0]
        server[0].silent.clear()
        wait_until(lambda: source.reconnects == 1)
        assert next(frames).image.shape == (48, 64, 3)
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("http")])
    assert threading.active_count() <= before + 2  # the server's own, one a connection


def test_a_frame_waits_for_nobody(server: list[MjpegServer]):
    """The newest frame wins: a slow reader skips, and what it skips is counted."""
    with _open(f"http://127.0.0.1:{server[0].port}/stream", [], stall_after_s=5.0) as source:
        frames = iter(source)
        seen = []
        for _ in range(3):
            seen.append(next(frames))
            wait_until(lambda: source.dropped >= seen[-1].index + 3)
        seen.append(next(frames))
        assert seen[-1].index + 1 - len(seen) <= source.dropped
        assert all(later.index - earlier.index > 2 for earlier, later in itertools.pairwise(seen[1:]))
        assert abs(seen[-1].captured_s - time.time()) < 3600


def test_a_url_that_leads_nowhere_is_refused_without_its_secrets():
    url = f"http://user:secret@127.0.0.1:{_free_port(socket.SOCK_STREAM)}/x?key=hidden"
    with pytest.raises(UserError, match=r"http://user@127\.0\.0\.1:\d+/x must open") as refused:
        open_source(SourceSpec.parse(url))
    assert "secret" not in str(refused.value) and "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:pa:ss@10.0.0.7:554/h264", "rtsp://admin@10.0.0.7:554/h264"),
        ("udp://@:5000", "udp://@:5000"),
        ("http://cam.local/mjpg?token=1#x", "http://cam.local/mjpg"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("rtsp://camera/1", SourceKind.URL, "rtsp://camera/1"),
        ("UDP://@:5000", SourceKind.URL, "UDP://@:5000"),
        ("csi:1", SourceKind.CSI, "1"),
        ("gst: videotestsrc ! appsink drop=true", SourceKind.PIPELINE, "videotestsrc ! appsink drop=true"),
        ("watch:in", SourceKind.WATCH, "in"),
    ],
)
def test_live_kinds_are_told_apart(text: str, kind: SourceKind, target: str):
    assert SourceSpec.parse(text) == SourceSpec(kind, target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/x.mp4", r"begin with one of http.*ftp://"),
        ("file:///tmp/x.mp4", "give its path"),
        ("gst: videotestsrc", "must end in ! appsink"),
        ("gst:", "must end in ! appsink"),
        ("csi:front", "csi:N"),
    ],
)
def test_what_no_stream_is_called_is_refused(text: str, message: str):
    with pytest.raises(UserError, match=message):
        SourceSpec.parse(text)


def test_the_pipeline_of_a_csi_camera():
    assert csi_pipeline(1, CameraRequest()) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM), width=1920, height=1080, format=NV12, framerate=30/1"
        " ! nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR"
        " ! appsink drop=true max-buffers=1 sync=false"
    )
    asked = csi_pipeline(0, CameraRequest(size=(1280, 720), fps=59.94, exposure_ms=2.5))
    assert 'exposuretimerange="2500000 2500000" aelock=true ' in asked  # nanoseconds
    assert "width=1280, height=720" in asked and "framerate=59940/1000" in asked


def test_without_gstreamer_a_pipeline_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opencv().videoio_registry, "hasBackend", lambda backend: False)
    for text in ("csi:0", "gst: videotestsrc ! appsink"):
        with pytest.raises(UserError, match=r"needs an OpenCV with GStreamer.*without.*python3-opencv"):
            open_source(SourceSpec.parse(text))


@pytest.mark.skipif(bool(gstreamer_lack()), reason="needs an OpenCV with GStreamer")
def test_a_pipeline_delivers_and_comes_back():
    pipeline = "gst: videotestsrc num-buffers=5 pattern=red ! video/x-raw,format=BGR,width=64,height=48 ! appsink"
    options = OpenOptions(live=LiveOptions(FAST, say=lambda line: None))
    with open_source(SourceSpec.parse(pipeline), options) as source:
        frames = iter(source)
        assert next(frames).image[0, 0].tolist() == [255, 0, 0]
        wait_until(lambda: source.reconnects >= 1)
