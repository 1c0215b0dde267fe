import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import capture, infer
from runtime.common.errors import run_command
from runtime.common.locks import one_writer
from runtime.sources.frame import Frame
from runtime.sources.naming import run_mark
from tests.support.fake_camera import FakeCamera


def _capture(*words: object) -> int:
    return run_command(capture.main, [str(word) for word in words])


def _pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_a_folder_is_taken_through_the_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for i, name in enumerate(("a.png", "b.bmp", "c.png")):
        Image.fromarray(frames[i]).save(tmp_path / "in" / name)
    words = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--roi", "2,3,10,8", "--rotate", 180)
    assert _capture(*words, "--limit", 2) == 0
    assert capsys.readouterr().out == f"2 images in {tmp_path / 'out'}\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.bmp.png"]
    np.testing.assert_array_equal(_pixels(tmp_path / "out" / "b.bmp.png"), frames[1, 3:11, 2:12][::-1, ::-1])

    assert _capture(*words) == 2  # replaces nothing
    assert "a.png must not be there yet" in capsys.readouterr().err


def test_a_cameras_frames_are_taken_apart_and_named_by_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    camera.put(50, None)
    assert _capture("--camera", 0, "--output", tmp_path, "--limit", 1, "--every", 3600) == 0
    [path] = tmp_path.iterdir()
    assert path.name.startswith("20") and path.name.endswith(f"Z_camera0_{run_mark()}_000000.png")
    assert _pixels(path)[0, 0].tolist() == [50, 50, 0]

    camera.put(*range(20), None)
    assert _capture("--camera", 0, "--output", tmp_path, "--limit", 2, "--every", 3600, "--no-reconnect") == 2
    assert len(list(tmp_path.iterdir())) == 2  # one of all these, then the camera ended


def test_a_clock_that_is_set_back_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    camera = FakeCamera().install(monkeypatch)
    seconds = itertools.count(1_700_000_000, -3600)

    def set_back() -> float:
        camera.put(60)
        return float(next(seconds))

    monkeypatch.setattr("runtime.sources.live.time.time", set_back)
    camera.put(50)
    assert _capture("--camera", 0, "--output", tmp_path, "--limit", 3, "--every", 0.001) == 0
    camera.put(None)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_image_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    assert _capture("--source", tmp_path / "in", "--output", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    assert "a.png must be a whole image" in capsys.readouterr().err


def test_a_name_holds_utc_to_the_millisecond():
    frame = Frame(np.zeros((1, 1, 3), np.uint8), "camera0_000007", 7, 1_700_000_000.25)
    assert capture.file_name(frame, live=True) == "20231114T221320.250Z_camera0_000007.png"


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert _capture("--camera", 0, "--camera", 1, "--output", tmp_path) == 2
    assert "one source at a time; found 2" in capsys.readouterr().err
    assert _capture("--camera", "csi:0", "--output", tmp_path, "--dry-run") == 0
    assert "nvarguscamerasrc" in capsys.readouterr().out


def test_two_runs_into_one_folder_are_not_possible(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    with one_writer(out / "run", str(out), ""):  # what runtime.infer --output holds, too
        assert _capture("--source", tmp_path / "in", "--output", out) == 2
    assert f"{out} must have one writer at a time" in capsys.readouterr().err and list(out.iterdir()) == []
    (out / ".b.png.part-x7k2m9qa.png").write_bytes(b"of a run that was killed")
    assert _capture("--source", tmp_path / "in", "--output", out) == 0
    assert [path.name for path in out.iterdir()] == ["a.png"]


@pytest.mark.parametrize("option", ["--source", "--watch"])
@pytest.mark.parametrize("main", [capture.main, infer.main])
def test_nothing_is_written_into_the_folder_that_is_read(tmp_path: Path, capsys, main, option: str):
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(tmp_path / "a.png")
    words = [option, str(tmp_path), "--output", f"{tmp_path}/../{tmp_path.name}"]
    engine = ["--engine", str(tmp_path / "none.onnx")] if main is infer.main else []
    assert run_command(main, [*words, *engine]) == 2
    assert "--output must be another folder than the source" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
