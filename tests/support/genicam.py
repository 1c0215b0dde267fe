"""Aravis' own cameras: one within the process, and one that speaks GigE Vision over the loopback."""

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.sources.backoff import Backoff
from runtime.sources.camera import CameraRequest
from runtime.sources.genicam.aravis import aravis, aravis_lack, found_cameras
from runtime.sources.live import Live, LiveOptions
from runtime.sources.open import OpenOptions, SourceSpec, open_source
from tests.support.waiting import wait_until

PROGRAM = "arv-fake-gv-camera-0.8"
LACK = aravis_lack()
needs_aravis = pytest.mark.skipif(bool(LACK), reason=LACK)
needs_gv_camera = pytest.mark.skipif(
    bool(LACK) or shutil.which(PROGRAM) is None, reason=LACK or f"needs {PROGRAM}: apt-get install aravis-tools"
)
FAST = Backoff(first_s=0.05, cap_s=0.2)


def within_the_process() -> str:
    """Return the id of the camera that is nothing but a thread here; it is listed from now on."""
    aravis().enable_interface("Fake")
    return "Fake_1"


class GvCamera:
    """A program that answers on the loopback as a GigE Vision camera does; it can be killed, and started again."""

    def __init__(self, serial: str, *words: str) -> None:
        self.id = f"Aravis-Fake-{serial}"
        self._words = [PROGRAM, "-i", "127.0.0.1", "-s", serial, *words]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.id in [camera.id for camera in found_cameras()], "the camera does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def gv_camera(serial: str, *words: str) -> Iterator[GvCamera]:
    """Run a camera of that serial number; one at a time on a machine, for GigE Vision has one port."""
    with (Path(tempfile.gettempdir()) / "cflow-test-gige-vision.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        camera = GvCamera(serial, *words)
        try:
            yield camera
        finally:
            camera.kill()


def opened(
    camera_id: str,
    request: CameraRequest,
    say: Callable[[str], None] = lambda line: None,
    stall_after_s: float = 10.0,
    backoff: Backoff | None = FAST,
) -> Live:
    """Return the camera as the inspection opens it."""
    options = OpenOptions(LiveOptions(backoff, stall_after_s, say=say), request)
    source = open_source(SourceSpec.parse(f"genicam:{camera_id}"), options)
    assert isinstance(source, Live)
    return source
