"""Options from a file, and back into one: checked against the real command line of `runtime.infer`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime import capture, infer
from runtime.common import config
from runtime.common.config_file import options_of
from runtime.common.errors import run_command
from runtime.recipes.arguments import BELONGS
from tests.support.tiny_engine import write_tiny_engine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NEEDED = 'engine = "cable.onnx"\nsource = ["images"]\n'
# a value of every option that takes one, as words of a command line; those that may be repeated have two
EXAMPLES = {
    "engine": ['a folder/cäble "7".onnx'],
    "recipes": ["recipes.toml"],
    "recipe": ["plug 7"],
    "recipe-topic": ["line1/recipe"],
    "threshold": ["1.25"],
    "limit": ["5"],
    "max-pixels": ["1000000"],
    "threads": ["2"],
    "frozen-after": ["0"],
    "backend": ["onnxruntime"],
    "camera": ["0", "csi:1"],
    "source": ["rtsp://10.0.0.7/line", "gst: videotestsrc ! appsink"],
    "watch": ["C:\\new\ttab", "\x7f\U0001f50d"],
    "name": ["line 1", "Anlage Süd"],
    "camera-size": ["1280x720"],
    "camera-fps": ["29.97"],
    "exposure": ["4"],
    "camera-format": ["MJPG"],
    "camera-trigger": ["software"],
    "genicam": ["GainRaw=3", "TriggerActivation=FallingEdge"],
    "stall-after": ["0"],
    "settle": ["1.5"],
    "roi": ["100,50,640,480", "none"],
    "mask": ["mask.png", "none"],
    "rotate": ["90", "0"],
    "flip": ["h", "none"],
    "output": ["out"],
    "json-file": ["-lines.jsonl"],
    "json-cap": ["500MB"],
    "log": ["inspections.db"],
    "log-cap": ["500MB"],
    "log-keep": ["30"],
    "video": ["line.mp4"],
    "video-fps": ["12.5"],
    "events": ["events"],
    "event-before": ["2s"],
    "event-after": ["20"],
    "disk-cap": ["750MB"],
    "check-every": ["8h"],
    "sidecar": ["cable.json"],
    "server-deadline": ["250"],
    "server-wait": ["60"],
    "server-in-flight": ["4"],
    "server-ca": ["ca.pem"],
    "server-cert": ["line.pem"],
    "server-key": ["line.key"],
    "server-token": ["token.txt"],
    "shadow": ["cable2.onnx"],
    "event-frames": ["crops"],
    "shadow-recipe": ["plug 7"],
    "shadow-mask": ["left.png", "none"],
    "drift": ["off"],
    "drift-rate": ["0.5"],
    "drift-state": ["drift.json"],
    "mqtt": ["mqtt://broker/line1"],
    "mqtt-credentials": ["credentials"],
    "mqtt-ca": ["ca.pem"],
    "webhook": ["http://host/hook"],
    "webhook-token": ["token"],
    "trigger": ["mqtt:line1/trigger", "opcua:ns=2;s=Line1.Trigger"],
    "part-from": ["modbus:100"],
    "deadline": ["80"],
    "trigger-queue": ["8"],
    "trigger-delay": ["12.5"],
    "trigger-skip": ["0"],
    "decide": ["3of5"],
    "debounce": ["2"],
    "serve": ["0.0.0.0:8080"],
    "token-file": ["token"],
    "health-after": ["30"],
    "opcua": ["0.0.0.0:4840"],
    "opcua-credentials": ["credentials"],
    "opcua-folder": ["opcua"],
    "opcua-certificate": ["certificate.pem"],
    "opcua-key": ["key.pem"],
    "modbus": ["0.0.0.0:502"],
    "modbus-allow": ["192.168.0.20", "10.0.0.0/28"],
    "safe-after": ["3"],
    "verdict-valid": ["60"],
}
ENGINES = {"engine", "recipes"}
SOURCES = {"camera", "source", "watch"}
OPTIONS = options_of(infer.build_parser())


def _parse(*words: object) -> dict[str, Any]:
    return vars(config.parse_args(infer.build_parser, [str(word) for word in words], BELONGS))


def _shown(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        _parse(*words, "--show-config")
    assert ended.value.code in (0, None)
    return capsys.readouterr().out


def _file(folder: Path, text: str) -> Path:
    path = folder / "line.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run_command(infer.main, [str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_goes_into_a_file_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    values = EXAMPLES[name] if OPTIONS[name].nargs != 0 else []
    words = [f"--{name}={value}" for value in values] or [f"--{name}"]
    words += [] if name in ENGINES else ["--engine=cable.onnx"]
    words += [] if name in SOURCES else ["--source=images"]
    wanted = _parse(*words)
    text = _shown(capsys, *words)
    path = _file(tmp_path, text)
    found = _parse("--config", path)
    assert {**found, "config": None} == wanted
    assert tomllib.loads(text)[name] is not False
    assert _shown(capsys, "--config", path) == text
    path.write_text(text.replace(f"{name} =", f"{name.replace('-', '_')} ="), encoding="utf-8")
    assert {**_parse("--config", path), "config": None} == wanted


def test_what_is_shown_has_the_defaults_and_the_types_of_toml(capsys: pytest.CaptureFixture[str]):
    shown = tomllib.loads(_shown(capsys, "--engine", "cable.onnx", "--camera", 0, "--camera", "csi:1", "--limit", 5))
    assert shown["camera"] == [0, "csi:1"] and shown["limit"] == 5
    assert shown["video-fps"] == 25.0 and shown["backend"] == "auto" and shown["json"] is False
    assert "threshold" not in shown and not set(shown) & {"help", "config", "show-config"}


def test_the_command_line_wins(tmp_path: Path):
    lines = 'limit = 5\nroi = ["0,0,8,8", "none"]\njson = true\nbackend = "openvino"\n'
    path = _file(tmp_path, 'engine = "a.onnx"\nsource = ["a", "b"]\n' + lines)
    args = _parse("--config", path, "--limit", 7, "--roi", "1,1,4,4", "--camera", 2)
    assert (args["limit"], args["backend"], args["json"]) == (7, "openvino", True)
    assert args["roi"] == [(1, 1, 4, 4)]  # instead of the file's, not after them
    assert args["camera"] == ["camera:2"] and args["source"] is None  # one excludes the other
    assert args["engine"] == Path("a.onnx")
    assert _parse("--config", path)["source"] == ["a", "b"]


def test_the_command_line_wins_with_what_belongs_to_its_engine_or_recipes(tmp_path: Path):
    file = 'source = ["a"]\nmqtt = "mqtt://host/a"\nrecipes = "r.toml"\nrecipe = "plug"\nrecipe-topic = "a/b"\n'
    path = _file(tmp_path, file)
    args = _parse("--config", path, "--engine", "a.onnx", "--threshold", 0.5)
    assert (args["engine"], args["threshold"], args["mqtt"]) == (Path("a.onnx"), 0.5, "mqtt://host/a")
    assert args["recipes"] is args["recipe"] is args["recipe_topic"] is None
    args = _parse("--config", path, "--recipes", "other.toml")
    assert (args["recipes"], args["recipe"]) == (Path("other.toml"), "plug")
    path.write_text('source = ["a"]\nengine = "a.onnx"\nthreshold = 0.5\n', encoding="utf-8")
    args = _parse("--config", path, "--recipes", "r.toml")
    assert args["engine"] is args["threshold"] is None and args["recipes"] == Path("r.toml")


def test_one_value_may_stand_without_its_list(tmp_path: Path):
    assert _parse("--config", _file(tmp_path, 'engine = "a.onnx"\nsource = "images"\n'))["source"] == ["images"]


def test_what_is_required_may_stand_in_either_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = _file(tmp_path, 'source = ["images"]\n')
    assert _parse("--config", path, "--engine", "a.onnx")["engine"] == Path("a.onnx")
    with pytest.raises(SystemExit) as ended:
        _parse("--config", path)
    assert ended.value.code == 2 and "--engine --recipes is required" in capsys.readouterr().err


def test_a_run_from_a_file_judges_and_counts_paths_from_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_tiny_engine(tmp_path)
    Image.fromarray(np.full((24, 36, 3), 200, np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "settings").mkdir()
    path = _file(tmp_path / "settings", 'engine = "tiny.onnx"\nsource = ["0.png"]\njson-file = "out/lines.jsonl"\n')
    monkeypatch.chdir(tmp_path)
    assert run_command(infer.main, ["--config", str(path)]) == 0
    assert "1 frames: 0 good, 1 anomalous" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "lines.jsonl").read_text())["name"] == "0.png"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("limmit = 5", "line 3: a name must be that of an option; found 'limmit'; did you mean limit?"),
        ("json_fille = 'a'", "found 'json-fille'; did you mean json-file?"),
        ("zzz = 5", "line 3: a name must be that of an option; found 'zzz'; see --help"),
        ("config = 'other.toml'", "found 'config'"),
        ("[sinks]\njson = true", "line 3: a name must be that of an option; found 'sinks'; write all options without"),
        ("[serve]\nport = 1", "line 3: serve must be a number or a text in quotes; found a section"),
        ("limit = 'ten'", "line 3: limit: expected a whole number from 1 up, found 'ten'"),
        ("limit = true", "line 3: limit must be a number or a text in quotes; found true"),
        ("limit = [1]", "line 3: limit must be a number or a text in quotes; found a list"),
        ("threshold = 'high'", "line 3: threshold: expected a number, found 'high'"),
        ("json = 'yes'", "line 3: json must be true or false; found 'yes'; write it without quotes"),
        ("json = 1", "line 3: json must be true or false; found 1"),
        ("output = 5", "line 3: output must be a text in quotes; found 5"),
        ("camera = [0, [1]]", "camera must be a number or a text in quotes, or a list of them; found a list"),
        ("rotate = [45]", "line 3: rotate must be one of 0, 90, 180, 270; found 45"),
        (
            "backend = 'tensorrt'",
            "backend must be one of auto, onnxruntime, openvino, onnxruntime-rtx; found 'tensorrt'",
        ),
        ("json_cap = '1MB'\njson-cap = '2MB'", "line 4: an option must be there once; found json-cap twice"),
        ("limit = ", "must be TOML; found Invalid value (at line 3"),
        ("limit = 1\nlimit = 2", "must be TOML; found Cannot overwrite a value"),
        ("engine = 'b.onnx'", "must be TOML"),
    ],
)
def test_a_wrong_line_is_named(line: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = _file(tmp_path, f"{NEEDED}{line}\n")
    error = _refused(capsys, "--config", path)
    assert str(path) in error and found in error


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "found no such file" in _refused(capsys, "--config", tmp_path / "none.toml")
    assert "found a folder" in _refused(capsys, "--config", tmp_path)
    path = tmp_path / "line.toml"
    path.write_text(NEEDED, encoding="utf-16")
    assert "must be a text file (UTF-8); found other bytes" in _refused(capsys, "--config", path)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path):
    path = tmp_path / "line.toml"
    path.write_text(NEEDED, encoding="utf-8-sig")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf") and _parse("--config", path)["source"] == ["images"]


def test_passwords_and_keys_are_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        "--engine=a.onnx",
        "--webhook=https://host/hook?key=SECRET",
        "--source=rtsp://me:SECRET@10.0.0.7/1?k=SECRET",
    ]
    words += ["--source=gst: rtspsrc location=rtsp://me:SECRET@host ! appsink"]
    text = _shown(capsys, *words)
    shown = tomllib.loads(text)
    assert "SECRET" not in text and text.startswith("# *** stands for a password or key")
    assert shown["source"] == ["rtsp://me:***@10.0.0.7/1?***", "gst: rtspsrc location=rtsp://me:***@host ! appsink"]
    assert shown["webhook"] == "https://host/hook?***"
    error = _refused(capsys, "--config", _file(tmp_path, 'engine = "a"\njson = "rtsp://me:SECRET@host"\n'))
    assert "SECRET" not in error


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://me:SE/CRET@10.0.0.7/1",
        "rtsp://me:SE?CRET#@10.0.0.7/1",
        "rtsp://me:a@SECRET@10.0.0.7/1",
        "rtsp:/me:SECRET@10.0.0.7/1",
        "me:SECRET@10.0.0.7/1",
        "gst: rtspsrc location=rtsp://h/1 user-id=me user-pw=SECRET ! appsink",
        'gst: rtspsrc location="rtsp://me:SE/CRET@h/1" ! appsink',
        "http://h/picture?key=SECRET",
    ],
)
def test_no_form_of_a_password_is_printed_and_the_mark_is_not_taken_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
):
    text = _shown(capsys, "--engine=a.onnx", f"--source={source}")
    assert "CRET" not in text and "***" in tomllib.loads(text)["source"][0]
    error = _refused(capsys, "--config", _file(tmp_path, text))
    assert "must hold the password or key itself" in error and "write it in by hand" in error


def test_a_text_that_no_file_can_hold_is_refused(capsys: pytest.CaptureFixture[str]):
    words = ["--engine", "a\udcff.onnx", "--source", "images", "--show-config"]  # a name of other bytes than UTF-8
    assert "holds Unicode only" in _refused(capsys, *words)


def test_help_still_has_every_option_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _parse("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert all(f"--{name} " in out for name in OPTIONS)
    assert "(default: 10; 0: never" in out and "count from the folder that the command runs in" in out


def test_a_wrong_command_line_ends_as_ever(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        _parse("--engine", "a.onnx", "--source", "images", "--limit", "none")
    assert ended.value.code == 2
    assert "argument --limit: expected a whole number from 1 up, found 'none'" in capsys.readouterr().err


def test_capture_takes_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "0.png")
    output, source = json.dumps(str(tmp_path / "out")), json.dumps(str(tmp_path / "0.png"))
    path = _file(tmp_path, f"output = {output}\nsource = {source}\n")
    assert run_command(capture.main, ["--config", str(path)]) == 0
    assert (tmp_path / "out" / "0.png").is_file() and "1 images" in capsys.readouterr().out


def test_options_that_take_a_value_are_all_tried():
    taking = {name for name, action in OPTIONS.items() if action.nargs != 0}
    assert taking == set(EXAMPLES) and len(OPTIONS) > 40
    repeatable = {name for name, action in OPTIONS.items() if isinstance(action, argparse._AppendAction)}
    assert repeatable == {name for name, texts in EXAMPLES.items() if len(texts) > 1}
