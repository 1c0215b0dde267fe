"""A GigE Vision camera over the loopback: its losses, its loss, its return, and who else has it."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from runtime import capture, infer
from runtime.common.errors import UserError, run_command
from runtime.sources.camera import CameraRequest
from runtime.sources.genicam import capture as capturing
from runtime.sources.genicam.aravis import aravis
from runtime.sources.losses import FrameIds
from runtime.sources.open import SourceSpec, open_source
from tests.support.genicam import gv_camera, needs_gv_camera, opened, within_the_process
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

pytestmark = needs_gv_camera
SERIAL = "CF01"
SMALL = CameraRequest(size=(64, 48), fps=50)


def _infer(*words: object) -> int:
    return run_command(infer.main, [str(word) for word in words])


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_camera_that_goes_and_returns_is_said_once_each_and_its_numbers_go_on():
    said: list[str] = []
    with gv_camera(SERIAL) as camera, opened(camera.id, SMALL, said.append, stall_after_s=1.0) as source:
        frames = iter(source)
        first = next(frames)
        for time_lost in (1, 2):
            camera.kill()
            wait_until(lambda: source.state.startswith("reconnecting"))
            camera.start()
            after = next(frame for frame in frames if source.reconnects == time_lost)
            assert after.index > first.index and after.image.shape == (48, 64, 3)
        assert source.missing == 0  # a camera that was started anew counts anew
    words = [line.removeprefix(f"genicam:{camera.id}") for line in said if "incomplete" not in line]
    assert [word.split(" (")[0].split(" after")[0] for word in words] == [
        ": 64x48, Mono8, 50 fps",
        *(" is lost", " is back") * 2,
    ]


def test_the_only_camera_stays_the_one_when_another_appears_while_it_is_lost():
    with gv_camera(SERIAL) as camera:
        aravis().disable_interface("Fake")
        with opened("", SMALL, stall_after_s=1.0) as source:
            frames = iter(source)
            next(frames)
            within_the_process()
            camera.kill()
            wait_until(lambda: source.state.startswith("reconnecting"))
            camera.start()
            next(frame for frame in frames if source.reconnects == 1)
            assert source._reader._capture._camera.is_gv_device()


def test_a_software_trigger_gives_one_frame_and_without_it_none_comes():
    request = CameraRequest(size=(32, 24), trigger="Software")
    with gv_camera(SERIAL) as camera:
        with opened(camera.id, request, stall_after_s=0.2) as source:
            assert source.take(0.6) is None and source.state == "live"  # silence is no loss where a trigger is awaited
            taken = []
            for _ in range(5):
                source.software_trigger()
                frame = source.take(10)
                assert frame is not None
                taken.append(frame.index)
            assert taken == [0, 1, 2, 3, 4] and source.take(0.3) is None
        with opened(camera.id, SMALL) as source:  # what the trigger was before is forgotten
            assert len(list(itertools.islice(source, 3))) == 3


def test_a_camera_that_waits_for_a_trigger_tells_its_loss_itself():
    request = CameraRequest(size=(64, 48), trigger="software")
    with gv_camera(SERIAL) as camera, opened(camera.id, request, stall_after_s=0.2) as source:
        source.software_trigger()
        assert source.take(10) is not None
        camera.kill()
        wait_until(lambda: source.state.startswith("reconnecting"), "the loss is not seen")
        assert "must answer" in source.state
        with pytest.raises(UserError, match=r"must be connected for a trigger|must take a trigger"):
            source.software_trigger()
        camera.start()
        wait_until(lambda: source._reader is not None and source._reader._capture is not None)
        source.software_trigger()
        assert source.take(10) is not None and source.reconnects == 1


def test_lost_packets_make_frames_incomplete_and_each_number_is_accounted_for():
    said: list[str] = []
    with gv_camera(SERIAL, "-r", "20") as camera:  # of a thousand packets; the camera sends none again
        request = CameraRequest(size=(128, 128), fps=50, nodes=(("GevSCPSPacketSize", "1400"),))
        with opened(camera.id, request, said.append) as source:
            frames = list(itertools.islice(source, 60))
            wait_until(lambda: source.incomplete > 3)
            picture = {frame.image.shape for frame in frames}
            assert picture == {(128, 128, 3)}
            # the camera draws a ramp: in a frame that is not whole a part of it would be another frame's
            for frame in frames:
                steps = np.diff(frame.image[:, :, 0].astype(np.int8), axis=0)
                assert (steps == 1).mean() > 0.95
    assert any("1 frames incomplete so far (missing-packets)" in line for line in said)


class Noted(FrameIds):
    """One connection's numbers, and how many frames without one are none of those that would be missing.

    So it is with the last frame where the packet with its number is lost: it is incomplete, and no number is missing.
    """

    connections: ClassVar[list["Noted"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.beyond = 0
        self.connections.append(self)

    def came(self, number: int) -> tuple[int, bool]:
        self.numbers.append(number)
        return super().came(number)

    def came_nameless(self) -> None:
        self.beyond += 1
        super().came_nameless()

    def _but_nameless(self, missing: int) -> int:
        rest = super()._but_nameless(missing)
        self.beyond -= missing - rest
        return rest

    def frames(self) -> int:
        """Return how many frames there were from the first number on, with those late ones that came from before it."""
        if not self.numbers:
            return self.beyond
        first = self.numbers[0]
        return max(self.numbers) - first + 1 + sum(number < first for number in self.numbers) + self.beyond


@pytest.mark.parametrize("words", [(), ("-r", "10")], ids=["whole packets", "lost packets"])
def test_every_number_of_the_camera_is_taken_dropped_incomplete_or_missing(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """A machine that does not come to reading has no buffer free, and whole frames are missing."""
    connections, decoded = list[Noted](), list[float]()
    monkeypatch.setattr(Noted, "connections", connections)
    monkeypatch.setattr(capturing, "FrameIds", Noted)
    decode = capturing.decode

    def slow_decode(*given: Any) -> Any:
        decoded.append(time.monotonic())
        if len(decoded) == 10:
            time.sleep(0.7)  # 35 frames
        return decode(*given)

    monkeypatch.setattr(capturing, "decode", slow_decode)
    with gv_camera(SERIAL, *words) as camera:
        with opened(camera.id, CameraRequest(size=(128, 128), fps=50)) as source:
            wait_until(lambda: source.missing > 10 and len(decoded) > 40)
            reader = source._reader
        assert reader.done.wait(30)  # what was awaited is missing once the camera is let go
        losses = source._origin.losses
        counted = len(decoded) + losses.replaced + losses.incomplete + losses.missing
    told = [(one.numbers, one.beyond) for one in connections]
    assert counted == sum(one.frames() for one in connections), (len(decoded), losses, told)


def test_a_camera_in_use_is_refused_and_free_after_its_user():
    with gv_camera(SERIAL) as camera:
        with opened(camera.id, SMALL) as source:
            next(iter(source))
            with pytest.raises(UserError, match=r"must be free; found another program has control of it; end that"):
                opened(camera.id, SMALL)
            next(iter(source))  # whom the attempt did not disturb
        for _ in range(3):
            with opened(camera.id, SMALL) as source:
                next(iter(source))


def test_after_a_program_that_was_killed_the_camera_opens():
    program = (
        "import sys; from runtime.sources.open import *; s = open_source(SourceSpec.parse(sys.argv[1])); "
        "next(iter(s)); print('open', flush=True); sys.stdin.read()"
    )
    with gv_camera(SERIAL) as camera:
        words = [sys.executable, "-c", program, f"genicam:{camera.id}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(words, cwd=ROOT, **pipes) as other:
            assert other.stdout is not None and other.stdout.readline() == b"open\n"
            os.kill(other.pid, signal.SIGKILL)
        with opened(camera.id, SMALL) as source:
            assert next(iter(source)).image.shape == (48, 64, 3)


def test_an_unknown_camera_is_one_line_with_those_that_answer():
    with gv_camera(SERIAL) as camera:
        with pytest.raises(UserError, match=rf"genicam:Nobody must be a camera that answers; .*{camera.id}.*name one"):
            open_source(SourceSpec.parse("genicam:Nobody"))
        with opened("127.0.0.1", SMALL) as source:  # an address will do
            next(iter(source))


def test_the_only_camera_needs_no_name_and_of_several_each_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    engine, lines = write_tiny_engine(tmp_path), tmp_path / "lines.jsonl"
    program = [sys.executable, "-m", "runtime.infer"]  # a process in which the library's own camera is not switched on
    with gv_camera(SERIAL) as camera:
        words = [
            "--engine",
            engine,
            "--camera",
            "genicam",
            "--limit",
            3,
            "--json-file",
            lines,
            "--camera-size",
            "64x48",
        ]
        ended = subprocess.run([*program, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        assert "genicam: 64x48" in ended.stderr and {line["source"] for line in _lines(lines)} == {"genicam"}
        fake = within_the_process()
        assert _infer("--engine", engine, "--camera", "genicam") == 2
        assert f"needs one GenICam camera; found {fake}, {camera.id}; name one" in capsys.readouterr().err


def test_list_cameras_names_what_can_be_opened(capsys: pytest.CaptureFixture[str]):
    with gv_camera(SERIAL) as camera:
        for command in (infer.main, capture.main):
            with pytest.raises(SystemExit) as ended:
                command(["--list-cameras"])
            assert ended.value.code in (0, None)
            assert f"--camera genicam:{camera.id}  Aravis, Fake" in capsys.readouterr().out


def test_two_cameras_region_and_mask_in_one_inspection(tmp_path: Path):
    from PIL import Image

    engine, lines = write_tiny_engine(tmp_path), tmp_path / "lines.jsonl"
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with gv_camera(SERIAL) as camera:
        cameras = ("--camera", f"genicam:{camera.id}", "--camera", f"genicam:{within_the_process()}")
        view = ("--roi", "none", "--roi", "8,8,40,32", "--mask", tmp_path / "mask.png", "--mask", "none")
        asked = ("--camera-size", "64x48", "--camera-fps", 50, "--camera-format", "Mono8")
        assert _infer("--engine", engine, *cameras, *view, *asked, "--limit", 40, "--json-file", lines) == 0
    found = _lines(lines)
    assert {line["source"] for line in found} == {f"genicam:{camera.id}", "genicam:Fake_1"}
    for line in found:
        own = "mask" if line["source"].endswith(camera.id) else "roi"
        assert line["view"].keys() == {own} and abs(line["camera_s"] - time.time()) < 3600


def test_frames_of_another_size_than_the_engines_are_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    engine = write_tiny_engine(tmp_path, size=(32, 48))
    with gv_camera(SERIAL) as camera:
        words = ("--engine", engine, "--camera", f"genicam:{camera.id}", "--camera-size", "64x48", "--limit", 3)
        assert _infer(*words, "--roi", "40,0,48,32") == 2
        assert "must lie within the camera's frame" in capsys.readouterr().err
        assert _infer(*words, "--roi", "0,0,48,32") == 0


def test_capture_and_calibration_take_its_frames_in_the_same_way(tmp_path: Path):
    from PIL import Image

    from export import calibration_data

    with gv_camera(SERIAL) as camera:
        words = ["--camera", f"genicam:{camera.id}", "--camera-size", "64x48", "--every", "0", "--limit", "3"]
        more = ["--output", str(tmp_path / "good"), "--camera-format", "BayerGB8", "--genicam", "GainRaw=2"]
        assert run_command(capture.main, [*words, *more]) == 0
        written = sorted((tmp_path / "good").glob("*.png"))
        assert len(written) == 3 and Image.open(written[0]).size == (64, 48)
        from_camera = ["--from", f"genicam:{camera.id}", "--count", "2", "--every", "0", "--out", str(tmp_path / "set")]
        assert run_command(calibration_data.main, from_camera) == 0
        from runtime.images.encoding import encoding_of

        stamped = encoding_of(written[0])
        assert stamped is not None and stamped.pixels == "BayerGB8"
    assert len(list((tmp_path / "set").glob("*.png"))) == 2


def test_the_summary_and_the_state_tell_what_was_lost_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    engine = write_tiny_engine(tmp_path)
    with gv_camera(SERIAL, "-r", "60") as camera:
        words = ("--engine", engine, "--camera", f"genicam:{camera.id}", "--camera-size", "128x128", "--limit", 40)
        assert _infer(*words, "--camera-fps", 50) == 0
        said = capsys.readouterr().err
        assert "frames incomplete, " in said and "missing, lost on the way from the camera" in said


@pytest.mark.slow
@pytest.mark.parametrize("packet", ["1400", "8192"])
def test_of_three_thousand_frames_at_fifty_a_second_none_is_lost(packet: str):
    """A minute; a busy machine's camera takes longer."""
    request = CameraRequest(size=(320, 240), fps=50, nodes=(("GevSCPSPacketSize", packet),))
    with gv_camera(SERIAL) as camera, opened(camera.id, request) as source:
        taken = 0
        while taken + source.dropped < 3000:
            taken += source.take(1) is not None
        assert (source.incomplete, source.missing, source.reconnects) == (0, 0, 0)
    assert taken > 1500
