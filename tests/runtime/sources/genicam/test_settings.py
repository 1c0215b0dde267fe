"""What a GenICam camera is asked for, on the library's own camera within the process."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.sources.camera import CameraRequest
from runtime.sources.genicam.aravis import aravis
from runtime.sources.genicam.nodes import value_of
from runtime.sources.live import Live
from runtime.sources.settings import CameraSettings
from tests.support.genicam import needs_aravis, opened, within_the_process
from tests.support.recipes import TWO, write_recipes
from tests.support.waiting import wait_until

pytestmark = needs_aravis
SMALL = CameraRequest(size=(33, 21), fps=50)
FORMATS = ("Mono8", "Mono16", "RGB8", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8")


def _value(source: Live, name: str) -> str:
    wait_until(lambda: source._reader is not None)
    return value_of(source._reader._capture._device, name)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_camera_becomes_rgb_of_the_asked_size(name: str):
    said: list[str] = []
    with opened(within_the_process(), replace(SMALL, pixel_format=name), said.append) as source:
        frames = list(itertools.islice(source, 3))
        assert source.encoding is not None and source.encoding.describe() in (
            f"camera {name}, 8 bits",
            f"camera {name}, 16 bits",
        )
    assert said == [f"genicam:Fake_1: 33x21, {name}, 50 fps"]
    for frame in frames:
        assert frame.image.shape == (21, 33, 3) and frame.image.dtype == np.uint8
        grey = (frame.image[:, :, 0] == frame.image[:, :, 2]).all()
        assert grey == name.startswith("Mono") and frame.image.std() > 0


def test_everything_asked_for_is_what_the_camera_has():
    request = CameraRequest((101, 51), 30, 4, "mono16", None, (("OffsetX", "13"), ("OffsetY", "8"), ("GainRaw", "3")))
    said: list[str] = []
    with opened(within_the_process(), request, said.append) as source:
        next(iter(source))
        names = ("Width", "Height", "OffsetX", "OffsetY", "PixelFormat", "GainRaw", "ExposureTimeAbs", "TriggerMode")
        assert [_value(source, name) for name in names] == ["101", "51", "13", "8", "Mono16", "3", "4000", "Off"]
    [line] = said
    assert line.startswith("genicam:Fake_1: 101x51, Mono16, 30") and line.endswith(", OffsetX 13, OffsetY 8, GainRaw 3")
    with opened(
        within_the_process(), CameraRequest(size=(2048, 51))
    ) as source:  # an offset of before would be in its way
        assert (_value(source, "Width"), _value(source, "OffsetX")) == ("2048", "0")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("Widht=64", r"name of a setting of this camera; found 'Widht'; did you mean Width"),
        ("ImageFormatControl=1", r"name of a setting of this camera; found 'ImageFormatControl'"),
        ("Qqqqqqqq=64", r"found 'Qqqqqqqq'; arv-tool-0\.8 features lists its settings"),
        ("Width=wide", r"Width must be a whole number from 1 to 2048; found 'wide'"),
        ("Width=3000", r"Width must be a number from 1 to 2048; found 3000"),
        ("GainRaw=-1", r"GainRaw must be a number from 0 to 10; found -1"),
        ("AcquisitionFrameRate=1e9", r"AcquisitionFrameRate must be a number from 0\.1 to 1000; found 1e9"),
        ("AcquisitionFrameRate=nan", r"from 0\.1 to 1000; found nan"),
        ("AcquisitionFrameRate=fast", r"from 0\.1 to 1000; found fast"),
        ("PixelFormat=Mono12p", r"PixelFormat must be one of BayerBG8, .*, RGB8; found 'Mono12p'"),
        ("SensorWidth=5", r"SensorWidth must be a setting that can be written; found one that can only be read"),
        ("DeviceID=x", r"DeviceID must be a setting that can be written"),
        ("TriggerSoftware=1", r"TriggerSoftware is a command; found '1'; --genicam TriggerSoftware=execute"),
    ],
)
def test_a_wrong_setting_is_one_line(nodes: str, message: str):
    name, _, value = nodes.partition("=")
    with pytest.raises(UserError, match=message):
        opened(within_the_process(), CameraRequest(nodes=((name, value),)))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (CameraRequest(size=(3000, 20)), "Width must be a number from 1 to 2048; found 3000"),
        (CameraRequest(fps=5000), r"--camera-fps must be a number from 0\.1 to 1000; found 5000"),
        (CameraRequest(exposure_ms=1e6), r"--exposure must be a number from 0\.01 to 10000; found 1e\+06"),
        (CameraRequest(pixel_format="MJPG"), "PixelFormat must be one of .*; found 'MJPG'"),
        (CameraRequest(trigger="line7"), "--camera-trigger must be off or .*'line7'; the camera has Line0, Software"),
    ],
)
def test_a_wrong_request_is_one_line(request_: CameraRequest, message: str):
    with pytest.raises(UserError, match=message):
        opened(within_the_process(), request_)


def test_a_refused_camera_is_free_again():
    for _ in range(3):
        with pytest.raises(UserError, match="PixelFormat must be"):
            opened(within_the_process(), CameraRequest(pixel_format="Foo"))
    with opened(within_the_process(), SMALL) as source:
        next(iter(source))


def test_frame_numbers_wrap_and_nothing_is_missing():
    """The camera within the process begins at 65400."""
    with opened(within_the_process(), CameraRequest(size=(8, 8), fps=500)) as source:
        frames = list(itertools.islice(source, 5))
        capture = source._reader._capture
        assert capture._ids._last > 60000
        while source._index < 400:
            frames.append(source.take(5))
        assert capture._ids._last < 1000
        assert (source.incomplete, source.missing) == (0, 0)
    times = [frame.camera_s for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


def test_a_trigger_set_by_its_own_settings_stays():
    nodes = (("TriggerMode", "On"), ("TriggerSource", "line0"), ("TriggerActivation", "risingedge"))
    with opened(within_the_process(), CameraRequest(nodes=nodes)) as source:
        assert [_value(source, name) for name, _ in nodes] == ["On", "Line0", "RisingEdge"]


def test_what_loads_stored_settings_comes_first(monkeypatch: pytest.MonkeyPatch):
    from runtime.sources.genicam import settings

    order: list[str] = []
    monkeypatch.setattr(settings, "set_node", lambda device, name, text: order.append(name))
    monkeypatch.setattr(settings, "_given", lambda camera, request: "")
    camera = aravis().Camera.new(within_the_process())
    nodes = (("GainRaw", "3"), ("UserSetSelector", "UserSet1"), ("UserSetLoad", "execute"))
    settings.apply(camera, CameraRequest(pixel_format="Mono8", nodes=nodes))
    assert order == ["UserSetSelector", "UserSetLoad", "PixelFormat", "GainRaw"]


def test_a_trigger_needs_a_camera_that_waits_for_it():
    with opened(within_the_process(), SMALL) as source:
        next(iter(source))
        with pytest.raises(UserError, match="must wait for a software trigger"):
            source.software_trigger()
    with pytest.raises(UserError, match="must be connected for a trigger"):
        source.software_trigger()


def test_a_camera_that_runs_is_set_anew_and_keeps_that_when_it_is_opened_again():
    request = CameraRequest((101, 51), 50, 4, nodes=(("GainRaw", "3"), ("OffsetX", "13")))
    names = ("ExposureTimeAbs", "GainRaw", "OffsetX")
    with opened(within_the_process(), request) as source:
        next(iter(source))
        assert source.adjustable
        source.adjust(CameraSettings(8.0, (("GainRaw", "5"),)))
        assert [_value(source, name) for name in names] == ["8000", "5", "13"]
        next(iter(source))
        with pytest.raises(UserError, match="GainRow"):
            source.adjust(CameraSettings(8.0, (("GainRow", "5"),)))
        with pytest.raises(UserError, match="--exposure must be a number"):
            source.adjust(CameraSettings(1e9))
        source.adjust(CameraSettings(2.0, (("GainRaw", "7"),)))
        assert source._reader is not None
        before = source._reader
        before._capture._lost.set()  # as a pulled cable does
        wait_until(lambda: source.reconnects == 1)
        next(iter(source))
        assert source._reader is not before
        assert [_value(source, name) for name in names] == ["2000", "7", "13"]


def test_a_run_sets_the_camera_with_its_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Both recipes are tried on the camera before the first frame; one that it refuses ends the start."""
    text = TWO.replace('name = "low"', 'name = "low"\nexposure = 4') + "exposure = {ms}\n"
    words = [
        "--camera",
        f"genicam:{within_the_process()}",
        "--backend",
        "onnxruntime",
        "--threads",
        "1",
        "--limit",
        "2",
    ]
    path = write_recipes(tmp_path, text.replace("{ms}", "8"))
    run_command(infer.main, ["--recipes", str(path), *words, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["recipe"] for line in lines] == ["low", "low"]
    path = write_recipes(tmp_path, text.replace("{ms}", "100000"))
    assert run_command(infer.main, ["--recipes", str(path), *words]) == 2
    assert "error: recipe high: --exposure must be a number from" in capsys.readouterr().err
