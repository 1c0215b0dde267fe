import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.sources.arguments import (
    add_arguments,
    describe_sources,
    names_from,
    options_from,
    sources_from,
    specs_from,
    views_from,
)
from runtime.sources.naming import unique_names
from runtime.sources.open import SourceKind, SourceSpec
from tests.support.fake_camera import FakeCamera
from tests.support.paths import ROOT


def _parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "0.png")
    return tmp_path


def test_several_sources_keep_their_order(folder: Path):
    assert specs_from(_parse("--camera", "1", "--camera", "csi:0")) == [
        SourceSpec(SourceKind.CAMERA, "1"),
        SourceSpec(SourceKind.CSI, "0"),
    ]
    words = ("--source", "rtsp://a/1", "--source", folder, "--source", "camera:2", "--source", f"watch:{folder}")
    kinds = [SourceKind.URL, SourceKind.FOLDER, SourceKind.CAMERA, SourceKind.WATCH]
    assert [spec.kind for spec in specs_from(_parse(*words))] == kinds
    assert specs_from(_parse("--watch", folder)) == [SourceSpec(SourceKind.WATCH, str(folder))]
    with pytest.raises(UserError, match="camera:1 twice"):
        specs_from(_parse("--camera", "1", "--camera", "01"))


def test_two_sources_of_one_name_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = [word for i in (1, 2, 3) for word in ("--source", f"rtsp://u:secret@cam/1?channel={i}")]
    assert names_from(_parse(*words)) == ["rtsp://u@cam/1", "rtsp://u@cam/1-2", "rtsp://u@cam/1-3"]
    said = capsys.readouterr().err
    assert said.count("two sources are called rtsp://u@cam/1") == 2 and "secret" not in said
    named = _parse(*words, "--name", "left", "--name", "right", "--name", "top")
    assert names_from(named) == ["left", "right", "top"] and capsys.readouterr().err == ""
    with pytest.raises(UserError, match="'LEFT' twice"):
        names_from(_parse(*words, "--name", "left", "--name", "LEFT", "--name", "top"))
    with pytest.raises(UserError, match="once for each source; found 1 for 3"):
        names_from(_parse(*words, "--name", "left"))
    assert unique_names(["a", "a", "a-2", "A"]) == ["a", "a-3", "a-2", "A-4"]
    with sources_from(_parse("--source", folder, "--name", "line 1"))[0] as source:
        assert source.name == "line 1" and [frame.name for frame in source] == ["0.png"]


def test_what_is_asked_of_cameras_and_borne_arrives():
    words = ("--camera-size", "1280x720", "--camera-fps", "29.97", "--exposure", "4", "--camera-format", "MJPG")
    options = options_from(_parse("--camera", 0, *words, "--stall-after", 3, "--wait-for-sources"))
    request = options.request
    assert (request.size, request.fps, request.exposure_ms, request.pixel_format) == ((1280, 720), 29.97, 4.0, "MJPG")
    assert options.live.backoff is not None and options.live.stall_after_s == 3 and options.live.wait
    plain = options_from(_parse("--camera", 0, "--no-reconnect", "--stall-after", 0, "--skip-existing", "--settle", 2))
    assert plain.live.backoff is None and plain.live.stall_after_s is None
    assert not plain.watch.existing and plain.watch.settle_s == 2
    with pytest.raises(UserError, match="--no-reconnect"):
        options_from(_parse("--camera", 0, "--no-reconnect", "--wait-for-sources"))


def test_sources_are_opened_in_order_and_none_stays_open_after_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    sources = sources_from(_parse("--source", "camera:0", "--source", folder))
    assert [source.name for source in sources] == ["camera:0", str(folder)]
    assert sources[0].state == "live" and not camera.released and sources[1].state == "file"
    camera.put(None)
    for source in sources:
        source.close()
    (folder / "empty").mkdir()
    camera.put(None)
    with pytest.raises(UserError, match="must hold images"):
        sources_from(_parse("--source", "camera:0", "--source", folder / "empty"))
    assert camera.released
    with pytest.raises(UserError, match="can be asked of a camera"):
        sources_from(_parse("--source", folder, "--exposure", 5))


def test_views_are_one_for_all_or_one_for_each(folder: Path):
    one = views_from(_parse("--camera", 0, "--camera", 1, "--roi", "1,2,3,4", "--rotate", 90))
    assert [view.describe() for view in one] == [{"roi": [1, 2, 3, 4], "rotate": 90}] * 2
    Image.fromarray(np.full((6, 8, 3), 255, np.uint8)).save(folder / "mask.png")
    words = ("--roi", "none", "--roi", "1,2,3,4", "--mask", folder / "mask.png", "--mask", "none", "--flip", "v")
    each = views_from(_parse("--camera", 0, "--camera", 1, *words))
    assert [view.describe() for view in each] == [{"mask": "mask.png", "flip": "v"}, {"roi": [1, 2, 3, 4], "flip": "v"}]
    with pytest.raises(UserError, match="may have 47 pixels"):  # a line-scan camera's mask is as large as its frames
        views_from(_parse("--camera", 0, "--mask", folder / "mask.png", "--max-pixels", 47))
    with pytest.raises(UserError, match="--roi must be given once, or once for each source; found 2 for 3"):
        views_from(_parse(*("--camera", 0, "--camera", 1, "--camera", 2), *("--roi", "none") * 2))


def test_a_dry_run_says_what_would_be_opened_and_opens_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    words = ("--source", "csi:0", "--source", "camera:3", "--source", "rtsp://u:secret@cam/1", "--source", folder)
    said = describe_sources(_parse(*words, "--camera-size", "640x480", "--dry-run", "--flip", "h")).splitlines()
    assert said[0].startswith("csi 0; GStreamer pipeline: nvarguscamerasrc sensor-id=0 ! ") and "width=640" in said[0]
    rest = [line for line in said[1:] if not line.startswith("would not open: it needs an OpenCV with GStreamer")]
    assert rest[0].startswith("camera 3; this machine shows ")
    assert rest[1:] == [
        "url rtsp://u@cam/1",
        f"folder {folder}",
        *(f"view of source {i}: {{'flip': 'h'}}" for i in range(4)),
    ]
    assert not camera.opened_with


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--camera", "front"),
        ("--camera", "-1"),
        ("--camera", "csi:x"),
        ("--camera", "0", "--source", "x"),
        ("--camera", "0", "--camera-size", "640"),
        ("--camera", "0", "--camera-size", "0x480"),
        ("--camera", "0", "--camera-fps", "0"),
        ("--camera", "0", "--exposure", "nan"),
        ("--camera", "0", "--camera-format", "M-PEG"),
        ("--camera", "0", "--genicam", "GainRaw"),
        ("--camera", "0", "--genicam", "=3"),
        ("--camera", "0", "--camera-trigger", ""),
        ("--camera", "0", "--stall-after", "-1"),
        ("--camera", "0", "--roi", "1,2,3"),
        ("--camera", "0", "--roi", "1,2,0,4"),
        ("--camera", "0", "--roi", "-1,2,3,4"),
        ("--camera", "0", "--rotate", "45"),
        ("--camera", "0", "--flip", "x"),
        ("--watch", "a", "--settle", "inf"),
        ("--camera", "0", "--name", ""),
        ("--camera", "0", "--name", "a\nb"),
    ],
)
def test_a_wrong_word_is_refused_by_the_parser(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        _parse(*words)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_what_only_some_cameras_have_is_asked_of_those(folder: Path):
    cases = [
        (("--camera", "0", "--genicam", "GainRaw=3"), "can be asked of a GenICam camera; found none"),
        (("--source", folder, "--camera-trigger", "software"), "can be asked of a camera; found no camera"),
        (("--camera", "0", "--camera-format", "Mono12p"), "a pixel format of four characters; found 'Mono12p'"),
    ]
    for words, message in cases:
        with pytest.raises(UserError, match=message):
            sources_from(_parse(*words))
    with pytest.raises(UserError, match="genicam:A twice"):
        specs_from(_parse("--camera", "genicam:A", "--camera", "genicam:A"))
    assert names_from(_parse("--camera", "genicam", "--camera", "genicam:Basler-1")) == ["genicam", "genicam:Basler-1"]


def test_without_the_library_one_line_says_how_to_install_it(folder: Path):
    """In a process of its own, whose Python has no GObject introspection."""
    program = "import sys; sys.modules['gi'] = None; from runtime.capture import command; sys.exit(command())"

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    refused = run("--camera", "genicam", "--output", folder / "out")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: GenICam cameras need Aravis 0.8 and PyGObject; found import of gi")
    assert "apt-get install gir1.2-aravis-0.8" in refused.stderr and "pip install '.[genicam]'" in refused.stderr
    listed = run("--list-cameras")
    assert listed.returncode == 0 and "GenICam cameras cannot be listed: GenICam cameras need" in listed.stdout
    described = run("--camera", "genicam:A", "--output", folder / "out", "--dry-run")
    assert described.returncode == 0 and "would not open: GenICam cameras need" in described.stdout


def test_help_needs_none_of_what_sources_need():
    program = (
        "import argparse, sys; from runtime.sources.arguments import add_arguments; p = argparse.ArgumentParser();"
        "add_arguments(p); p.format_help();"
        "print(sorted({'numpy', 'cv2', 'PIL', 'runtime.sources.open'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
