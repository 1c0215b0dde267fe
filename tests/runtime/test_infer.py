import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.common.errors import run_command
from runtime.engines.sidecar import read_sidecar, write_sidecar
from runtime.images.facts import ImageFacts
from runtime.sources.naming import run_mark
from tests.support.fake_camera import FakeCamera
from tests.support.paths import ROOT
from tests.support.snapshot_server import SnapshotServer
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until

GREYS = (10, 60, 100, 150, 220)  # scores 0.12, 0.71, 1.18, 1.76, 2.59 at a threshold of 1


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_tiny_engine(tmp_path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, grey in enumerate(GREYS):
        Image.fromarray(np.full((24, 36, 3), grey, np.uint8)).save(folder / f"{i}.png")
    return folder


def _infer(*arguments: object) -> int:
    return run_command(infer.main, [str(argument) for argument in arguments])


def _process(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "runtime.infer", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background may ignore Ctrl-C, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_a_folder_is_judged_image_by_image(engine: Path, images: Path, capsys: pytest.CaptureFixture[str]):
    assert _infer("--engine", engine, "--source", images) == 0
    (
        first,
        second,
        third,
        *_,
    ) = capsys.readouterr().out.splitlines()
    assert [first, second, third] == ["0.png  0.1176  good", "1.png  0.7059  good", "2.png  1.1765  anomalous"]
    assert not (images.parent / "frames.jsonl").exists()


def test_the_summary_has_counts_and_percentiles_of_every_stage(
    engine: Path, images: Path, capsys: pytest.CaptureFixture[str]
):
    assert _infer("--engine", engine, "--source", images, "--output", images.parent / "out") == 0
    summary = capsys.readouterr().out.splitlines()[len(GREYS) :]
    assert summary[0] == "5 frames: 2 good, 3 anomalous"
    assert "frames per second on OpenVINO" in summary[1]
    assert summary[2].split() == ["milliseconds", "p50", "p95", "p99"]
    assert [line.split()[0] for line in summary[3:]] == [
        "capture",
        "view",
        "preprocess",
        "execute",
        "total",
        "deliver",
    ]


def test_what_a_killed_run_left_among_overlays_and_events_goes(engine: Path, images: Path, tmp_path: Path):
    """Found by kill -9: only the folders themselves were swept, not those within."""
    out, events, name = tmp_path / "out", tmp_path / "events", ".0.png.part-abcd0123.png"
    left = [folder / name for folder in (out, out / "overlays", events, events / "1" / "frames", tmp_path / "other")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = ("--output", out, "--events", events, "--video", tmp_path / "other" / "line.avi")
    assert _infer("--engine", engine, "--source", images, *words) == 0
    assert [path for path in left if path.exists()] == []
    below = tmp_path / "other" / "somebody" / name  # beside a video there may be anything
    below.parent.mkdir()
    below.touch()
    assert _infer("--engine", engine, "--source", images, *words) == 0
    assert below.exists()


def test_threshold_limit_and_threads_are_obeyed(engine: Path, images: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("--engine", engine, "--source", images, "--threshold", 0.5, "--limit", 2, "--threads", 1)
    assert _infer(*arguments) == 0
    out = capsys.readouterr().out
    assert "2 frames: 1 good, 1 anomalous" in out and "1 thread\n" in out


def test_the_output_folder_holds_what_was_asked_for(engine: Path, images: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert _infer("--engine", engine, "--source", images, "--output", out, "--contact-sheet") == 0
    assert [line["verdict"] for line in _lines(out)] == ["good"] * 2 + ["anomalous"] * 3
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [f"{i}.png" for i in range(5)]
    assert (out / "contact_sheet.png").is_file()

    lines_only = tmp_path / "lines_only"
    assert _infer("--engine", engine, "--source", images, "--output", lines_only, "--no-overlays") == 0
    assert [path.name for path in lines_only.iterdir()] == ["frames.jsonl"]


@pytest.mark.parametrize(("rotate", "flip"), [(0, "none"), (90, "none"), (90, "h"), (180, "v"), (270, "h"), (270, "v")])
def test_boxes_are_told_in_the_cameras_own_pixels(engine: Path, tmp_path: Path, rotate: int, flip: str):
    frame = np.full((120, 200, 3), 20, np.uint8)  # neither the engine's size nor its aspect ratio
    x, y, width, height = 30, 10, 150, 96
    for top, left in ((20, 60), (70, 140)):
        frame[top : top + 12, left : left + 20] = 250
    Image.fromarray(frame).save(tmp_path / "frame.png")
    view = ("--roi", f"{x},{y},{width},{height}", "--rotate", rotate, "--flip", flip)
    source = ("--engine", engine, "--source", tmp_path / "frame.png", "--json-file", tmp_path / "lines.jsonl")
    assert _infer(*source, *view) == 0
    line = json.loads((tmp_path / "lines.jsonl").read_text())
    assert len(line["boxes"]) == len(line["camera_boxes"]) == 2
    found = np.zeros(frame.shape[:2], bool)
    for box, camera_box in zip(line["boxes"], line["camera_boxes"], strict=True):
        # back by turning a picture of the box: out of the mirror, then anticlockwise, then into its place
        judged = np.zeros((height, width) if rotate in (0, 180) else (width, height), bool)
        judged[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = True
        judged = {"none": judged, "h": judged[:, ::-1], "v": judged[::-1]}[flip]
        whole = np.zeros(frame.shape[:2], bool)
        whole[y : y + height, x : x + width] = np.rot90(judged, rotate // 90)
        rows, columns = np.nonzero(whole)
        assert camera_box == {
            "x": columns.min(),
            "y": rows.min(),
            "width": np.ptp(columns) + 1,
            "height": np.ptp(rows) + 1,
            "peak": box["peak"],
        }
        found |= whole
    assert found[frame[:, :, 0] == 250].all() and found.mean() < 0.1  # on the defects, and hardly beyond


def test_json_has_stdout_to_itself(engine: Path, images: Path):
    with _process("--engine", engine, "--source", images, "--json") as child:
        out, error = child.communicate(timeout=120)
    assert child.returncode == 0
    assert [json.loads(line)["name"] for line in out.splitlines()] == [f"{i}.png" for i in range(5)]
    assert error.startswith("5 frames: 2 good, 3 anomalous\n")


def test_results_of_a_file_that_a_sink_did_not_get_are_told_and_status_1(engine: Path, images: Path, tmp_path: Path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # a real refusal to write: two lines and a part of one

    lines = tmp_path / "lines.jsonl"
    program = [sys.executable, "-m", "runtime.infer", "--engine", str(engine), "--source", str(images)]
    child = subprocess.run(
        [*program, "--json-file", str(lines)], cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=limit
    )
    assert child.returncode == 1
    assert "5 frames: 2 good, 3 anomalous" in child.stdout
    written = len([json.loads(line) for line in lines.read_text().splitlines()])
    assert 0 < written < 5
    assert f"{lines}: {written} delivered, 0 lost, {5 - written} failed (" in child.stderr


@pytest.mark.parametrize("broken", ["0.png", "2.png"])
def test_an_unreadable_image_has_no_verdict_and_the_rest_is_judged(
    engine: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
):
    (images / broken).write_bytes(b"broken")
    assert _infer("--engine", engine, "--source", images, "--output", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert f"{broken} must be a whole image" in captured.err and captured.err.count("\n") == 1
    assert "5 frames: " in captured.out and "1 without a verdict" in captured.out
    lines = _lines(tmp_path / "out")
    assert [line["name"] for line in lines] == [f"{i}.png" for i in range(5)]
    [none] = [line for line in lines if line["verdict"] == "none"]
    assert none["name"] == broken and none["score"] is None and "must be a whole image" in none["reason"]
    assert (tmp_path / "out" / "overlays" / broken).is_file()


def test_a_video_that_ends_too_early_is_status_1(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (36, 24))
    for level in range(60):
        writer.write(np.full((24, 36, 3), level, np.uint8))
    writer.release()
    assert _infer("--engine", engine, "--source", clip) == 0
    assert "60 frames: 60 good" in capsys.readouterr().out
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert _infer("--engine", engine, "--source", clip) == 1
    captured = capsys.readouterr()
    assert "no verdict: the video is not whole (" in captured.out
    assert "the video is not whole (" in captured.err


def test_a_damaged_file_in_a_watched_folder_has_no_verdict(engine: Path, images: Path, tmp_path: Path):
    (images / "2.png").write_bytes(b"broken")
    words = ("--engine", engine, "--watch", images, "--settle", 0, "--limit", 5, "--output", tmp_path / "out")
    assert _infer(*words) == 1
    verdicts = {line["name"]: line["verdict"] for line in _lines(tmp_path / "out")}
    assert len(verdicts) == 5 and [name for name, verdict in verdicts.items() if verdict == "none"] == ["2.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "missing.onnx", "--source", "{images}"), "missing.onnx must exist"),
        (("--engine", "{images}/0.png", "--source", "{images}"), ".plan or .onnx"),
        (("--engine", "{engine}", "--source", "missing.png"), "no such file"),
        (("--engine", "{engine}", "--source", "{engine}"), "must end in one of"),
        (("--engine", "{engine}", "--source", "{images}", "--threshold", "nan"), "the score's scale"),
        (("--engine", "{engine}", "--source", "{images}", "--threshold", "3"), "must be below 3, the largest score"),
        (("--engine", "{engine}", "--source", "{images}", "--output", "{engine}"), "(" + "{engine}"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(
    engine: Path, images: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
):
    names = {"engine": engine, "images": images}
    assert _infer(*(argument.format(**names) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--engine", "e.onnx"),
        ("--source", "x"),
        ("--engine", "e.onnx", "--source", "x", "--camera", "0"),
        ("--engine", "e.onnx", "--camera", "-1"),
        ("--engine", "e.onnx", "--camera", "front"),
        ("--engine", "e.onnx", "--source", "x", "--limit", "0"),
        ("--engine", "e.onnx", "--source", "x", "--contact-sheet"),
        ("--engine", "e.onnx", "--source", "x", "--no-overlays"),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        infer.main(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_camera_ends_at_the_limit(engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    camera = FakeCamera().install(monkeypatch)
    camera.put(200, None)
    assert _infer("--engine", engine, "--camera", 2, "--limit", 1) == 0
    out = capsys.readouterr().out
    # red and green of 200 and no blue: 400 / 3 / 255 * 3
    assert out.startswith(f"camera2_{run_mark()}_000000  1.5686  anomalous\n1 frames: 0 good, 1 anomalous")
    assert camera.released


def test_after_a_restart_an_overlay_stays_that_of_its_line(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    camera = FakeCamera().install(monkeypatch)
    for level in (40, 200):
        camera.put(level, None)
        run_mark.cache_clear()  # what a new process has
        words = ("--engine", engine, "--camera", 0, "--limit", 1, "--output", tmp_path / "out")
        assert _infer(*words, "--events", tmp_path / "events") == 0
    lines = _lines(tmp_path / "out")
    overlays = [np.asarray(Image.open(tmp_path / "out" / "overlays" / f"{line['name']}.png")) for line in lines]
    assert [line["frame"] for line in lines] == [0, 0] and len(overlays) == 2
    assert overlays[1].mean() - overlays[0].mean() > 30  # the first is still that of the darker picture


def test_sources_of_one_name_have_files_of_their_own(engine: Path, images: Path, tmp_path: Path):
    words = ("--engine", engine, "--source", images, "--source", images, "--output", tmp_path / "out")
    assert _infer(*words, "--roi", "none", "--roi", "0,0,20,20", "--events", tmp_path / "events") == 0
    assert {line["source"] for line in _lines(tmp_path / "out")} == {str(images), f"{images}-2"}
    folders = list((tmp_path / "out" / "overlays").iterdir())
    assert [len(list(folder.iterdir())) for folder in folders] == [5, 5]
    events = [json.loads((path / "event.json").read_text())["source"] for path in (tmp_path / "events").glob("*Z_*")]
    assert sorted(events) == [str(images), f"{images}-2"]
    assert _infer(*words, "--name", "left", "--name", "right") == 0
    assert {line["source"] for line in _lines(tmp_path / "out")} >= {"left", "right"}


def test_whatever_befalls_one_source_the_others_are_judged(
    engine: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A lost camera, a folder with a small and a broken image, and a folder that is sound, in one process."""
    FakeCamera().install(monkeypatch).put(None)
    odd = tmp_path / "odd"
    shutil.copytree(images, odd)
    (odd / "0.png").write_bytes(b"broken")
    Image.fromarray(np.full((9, 9, 3), 10, np.uint8)).save(odd / "1.png")
    words = [word for source in ("camera:0", odd, images) for word in ("--source", source)]
    names = [word for name in ("cam", "odd", "sound") for word in ("--name", name)]
    assert _infer("--engine", engine, *words, *names, "--roi", "0,0,20,20", "--no-reconnect") == 2
    captured = capsys.readouterr()
    lines = [line.split()[:2] for line in captured.out.splitlines() if " no verdict: " in line]
    assert lines == [["odd", "0.png"], ["odd", "1.png"]]
    assert "  odd: 5 frames: 0 good, 3 anomalous, 2 without a verdict" in captured.out
    assert "  sound: 5 frames: 2 good, 3 anomalous" in captured.out
    assert "cam must keep delivering frames" in captured.err


def test_no_password_is_written_anywhere(engine: Path, tmp_path: Path):
    server = SnapshotServer("digest", "admin", "S[ecret/1")
    try:
        address = f"http://admin:S[ecret/1@127.0.0.1:{server.port}/snap"
        words = (
            "--engine",
            engine,
            "--source",
            address,
            "--camera-fps",
            20,
            "--limit",
            2,
            "--output",
            tmp_path / "out",
        )
        child = _process(*words, "--events", tmp_path / "events", "--json", "--frozen-after", 0)
        out, err = child.communicate(timeout=120)
    finally:
        server.close()
    assert child.returncode == 0 and f"http://admin@127.0.0.1:{server.port}/snap" in out, err
    written = "".join(path.read_text(errors="replace") + path.name for path in tmp_path.rglob("*") if path.is_file())
    assert "ecret" not in out + err + written


def test_a_camera_that_fails_still_has_a_summary(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    FakeCamera().install(monkeypatch).put(200, None)
    assert _infer("--engine", engine, "--source", "camera:0", "--no-reconnect") == 2
    captured = capsys.readouterr()
    assert "1 frames: 0 good, 1 anomalous" in captured.out and "keep delivering" in captured.err


ON_A_TERMINAL = """
import fcntl, itertools, sys, termios, threading, time
import pytest
from runtime import infer
from runtime.common.errors import run_command
from runtime.engines.sidecar import read_sidecar, write_sidecar
from runtime.images.facts import ImageFacts
from tests.support.fake_camera import FakeCamera
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes the terminal this session's own
camera = FakeCamera().install(pytest.MonkeyPatch())
def deliver():
    for i in itertools.count():
        camera.put(i % 100)
        time.sleep(0.005)
threading.Thread(target=deliver, daemon=True).start()
sys.exit(run_command(infer.main, ["--engine", sys.argv[1], "--camera", "0"]))
"""


def test_on_a_terminal_a_camera_has_one_status_line_and_ends_with_q(engine: Path):
    controller, terminal = os.openpty()
    program = [sys.executable, "-c", ON_A_TERMINAL, str(engine)]
    with subprocess.Popen(program, cwd=ROOT, stdin=terminal, stdout=terminal, start_new_session=True) as child:
        os.close(terminal)
        out = b""
        while out.count(b" fps ") < 5:
            out += os.read(controller, 4096)
        os.write(controller, b"q")
        with contextlib.suppress(OSError):  # Linux's end of a terminal
            while more := os.read(controller, 4096):
                out += more
    os.close(controller)
    assert child.returncode == 0
    status, summary = out.decode().split("\n", 1)  # all frames are on the first line
    assert status.count("camera0_") >= 5 and "(q ends)" in status
    assert " frames: " in summary and "camera0_" not in summary


def test_as_a_process_it_ends_with_status_0_or_2_and_one_line(engine: Path, images: Path):
    with _process("--engine", engine, "--source", images / "4.png") as child:
        out, error = child.communicate(timeout=120)
    assert child.returncode == 0 and error == "" and out.startswith("4.png  2.5882  anomalous\n")

    video = images / "broken.mp4"
    video.write_bytes(b"no video" * 100)
    with _process("--engine", engine, "--source", video) as child:
        out, error = child.communicate(timeout=120)
    assert child.returncode == 2 and out == ""
    assert "must be a video" in error and error.count("\n") == 1  # FFmpeg's own messages are off

    engine.write_bytes(b"no engine")
    with _process("--engine", engine, "--source", images) as child:
        out, error = child.communicate(timeout=120)
    assert child.returncode == 2 and out == ""
    assert error.startswith("error: tiny.onnx must be one of the files") and error.count("\n") == 1


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_with_its_status_a_summary_and_whole_files(
    engine: Path, images: Path, tmp_path: Path, number: signal.Signals, word: str
):
    for i in range(2000):  # far more than are judged before the signal arrives
        os.link(images / "3.png", images / f"more{i}.png")
    out_folder = tmp_path / "out"
    with _process("--engine", engine, "--source", images, "--output", out_folder, "--contact-sheet") as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(4)]
        child.send_signal(number)
        rest, error = child.communicate(timeout=120)
    assert child.returncode == 128 + number and word in error and "Traceback" not in error
    assert len(seen) == 4 and " frames: 2 good, " in rest
    text = (out_folder / "frames.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n") and 4 <= len(lines) < 2000
    for line in lines:
        with Image.open(out_folder / "overlays" / line["name"]) as overlay:
            overlay.load()
    left = [path.name for path in (*out_folder.iterdir(), *(out_folder / "overlays").iterdir())]
    assert not [name for name in left if name.startswith(".")]  # no temporary file
    assert "contact_sheet.png" in left


def test_a_picture_that_shows_nothing_has_no_verdict_and_the_command_says_so(tmp_path: Path):
    """Among three good pictures one that is black: judged as the others it would have a score like any."""
    path = write_tiny_engine(tmp_path, size=(32, 48))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(20, 60, (32, 48, 3)).astype(np.uint8) for _ in range(3)]
    write_sidecar(path, replace(read_sidecar(path), image_facts=ImageFacts.of(pictures)))
    (tmp_path / "parts").mkdir()
    for index, picture in enumerate([*pictures, np.zeros((32, 48, 3), np.uint8)]):
        Image.fromarray(picture).save(tmp_path / "parts" / f"{index}.png")
    words = ["--engine", str(path), "--source", str(tmp_path / "parts"), "--backend", "onnxruntime"]
    run = subprocess.run([sys.executable, "-m", "runtime.infer", *words], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "3.png  0.0000  no verdict: the frame is one grey all over (0 of 255)" in run.stdout
    assert "4 frames: 3 good, 0 anomalous, 1 without a verdict" in run.stdout


WRITTEN = [("--output", "out"), ("--events", "events"), ("--video", "line.mp4"), ("--json-file", "lines.jsonl")]


@pytest.mark.parametrize(("option", "place"), WRITTEN)
def test_a_second_run_into_one_place_is_refused(engine: Path, images: Path, tmp_path: Path, option: str, place: str):
    """It would replace the first one's pictures, or its pieces of lines."""
    watched = tmp_path / "watched"
    watched.mkdir()
    with _process("--engine", engine, "--source", f"watch:{watched}", option, tmp_path / place) as first:
        try:
            wait_until(lambda: any(tmp_path.rglob(".*.lock")), "the first run never began")
            second = _process("--engine", engine, "--source", images, option, tmp_path / place)
            _, error = second.communicate(timeout=120)
        finally:
            first.kill()
    assert second.returncode == 2
    assert "must have one writer at a time" in error and error.count("\n") == 1
    assert _infer("--engine", engine, "--source", images, option, tmp_path / place) == 0  # a lock ends with its process


def test_what_was_not_judged_is_status_1_beside_a_live_source_too(engine: Path, images: Path):
    """A damaged file is no less so because a camera is judged beside it."""
    (images / "9.png").write_bytes(b"broken")
    camera = SnapshotServer()
    address = f"http://127.0.0.1:{camera.port}/snapshot"
    sources = ("--source", address, "--source", images, "--camera-fps", 20)
    assert _infer("--engine", engine, *sources, "--limit", len(GREYS) + 6) == 1
    (images / "9.png").unlink()
    assert _infer("--engine", engine, *sources, "--limit", len(GREYS) + 6) == 0
    camera.close()


def test_a_live_result_that_a_sink_did_not_get_is_status_1(engine: Path):
    camera = SnapshotServer()
    address = f"http://127.0.0.1:{camera.port}/snapshot"
    words = ("--engine", engine, "--source", address, "--camera-fps", 20, "--limit", 2)
    assert _infer(*words, "--json-file", "/dev/full") == 1
    camera.close()


def test_a_camera_that_is_away_when_the_run_ends_is_status_1(engine: Path, images: Path):
    words = ("--wait-for-sources", "--source", "http://127.0.0.1:9/snapshot", "--source", images)
    assert _infer("--engine", engine, *words, "--limit", len(GREYS)) == 1


def test_a_signal_ends_a_run_that_waits_for_what_it_opens(engine: Path, images: Path, tmp_path: Path):
    pipe = tmp_path / "credentials"
    os.mkfifo(pipe)
    mqtt = ("--mqtt", "mqtt://127.0.0.1:9/x", "--mqtt-credentials", pipe, "--output", tmp_path / "out")
    with _process("--engine", engine, "--source", images, *mqtt) as child:
        wait_until((tmp_path / "out" / "frames.jsonl").exists, "it does not come to the sinks")
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 143
        assert child.stderr.read() == "\nterminated; what was written before is whole\n"


@pytest.mark.parametrize("option", ["--source", "--watch"])
def test_a_first_image_that_does_not_fit_is_not_the_end_of_the_others(
    engine: Path, images: Path, capsys: pytest.CaptureFixture[str], option: str
):
    """One stray file in a watched folder would else keep a service from starting, for ever."""
    Image.fromarray(np.full((9, 9, 3), 10, np.uint8)).save(images / "0.png")
    os.utime(images / "0.png", (1, 1))  # the oldest comes first
    assert _infer("--engine", engine, option, images, "--roi", "0,0,20,20", "--limit", len(GREYS)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0.png  no score  no verdict: the region 0,0,20,20") and lines[1].endswith("  good")


def test_a_mask_that_leaves_too_little_is_refused_before_anything_is_judged(
    engine: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of one source of several, too: it is not the end of the others in the middle of a run."""
    write_sidecar(engine, replace(read_sidecar(engine), score="deviation"))
    mask = np.zeros((24, 36), np.uint8)
    mask[4:6, 4:6] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masks = ("--mask", "none", "--mask", tmp_path / "mask.png")
    assert _infer("--engine", engine, "--source", images, "--source", images, *masks) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "must leave at least 15 of the map's 1536 positions" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", ""), "a source must be named"),
        (("--watch", ""), "a source must be named"),
        (("--camera", "9" * 20), "a camera is camera:N"),
    ],
)
def test_a_source_that_cannot_be_meant_is_one_line(engine: Path, capsys: pytest.CaptureFixture[str], words, message):
    assert _infer("--engine", engine, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("option", ["--source", "--watch"])
def test_a_file_larger_than_the_memory_has_no_verdict_and_the_rest_is_judged(
    engine: Path, images: Path, capsys: pytest.CaptureFixture[str], option: str
):
    os.truncate(images / "0.png", 1 << 40)  # holds a hole, and takes no room
    os.utime(images / "0.png", (1, 1))
    assert _infer("--engine", engine, option, images, "--limit", len(GREYS)) == 1
    assert "5 frames: 1 good, 3 anomalous, 1 without a verdict" in capsys.readouterr().out


def test_a_files_name_cannot_look_like_a_verdict(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Image.fromarray(np.full((24, 36, 3), 220, np.uint8)).save(tmp_path / "a\n1.png  0.1  good\x1b[2J.png")
    assert _infer("--engine", engine, "--source", tmp_path) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "a\\n1.png  0.1  good\\x1b[2J.png  2.5882  anomalous" and second == "1 frames: 0 good, 1 anomalous"
