import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.sinks.arguments import add_arguments, check_arguments, sinks_from
from runtime.sinks.delivery import Deliveries
from tests.support.judgements import judgement
from tests.support.paths import ROOT

MAXIMUM = 3.0  # the largest score of an engine with three taps


def _parse(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([str(argument) for argument in arguments])
    check_arguments(parser, args)
    return args


def test_nothing_asked_for_is_nothing_opened():
    assert sinks_from(_parse(), MAXIMUM) == []


def test_every_file_sink_writes_what_it_should(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    args = _parse("--output", tmp_path / "out", "--contact-sheet", "--json", "--json-file", tmp_path / "all.jsonl",
                  "--video", tmp_path / "line.mp4", "--video-fps", 10, "--events", tmp_path / "events",
                  "--event-before", 1, "--event-after", "0.05s", "--disk-cap", "100MB")  # fmt: skip
    with Deliveries(sinks_from(args, MAXIMUM), patience_s=60) as deliveries:
        for i in range(8):
            deliveries.offer(judgement(i, 2.0 if i == 4 else 0.5))
    assert [counts.delivered for counts in deliveries.counts()] == [8] * 5
    printed = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["frame"] for line in printed] == list(range(8))
    for path in (tmp_path / "all.jsonl", tmp_path / "out/frames.jsonl"):
        assert path.read_text().splitlines() == printed
    assert len(list((tmp_path / "out/overlays").glob("*.png"))) == 8 and (tmp_path / "out/contact_sheet.png").is_file()
    assert (tmp_path / "line_000001.mp4").is_file()
    (event,) = (path for path in (tmp_path / "events").iterdir() if path.is_dir())
    assert sorted(path.name for path in (event / "frames").iterdir()) == ["f000003.jpg", "f000004.jpg", "f000005.jpg"]


def test_network_sinks_open_with_nobody_there():
    pytest.importorskip("paho.mqtt.client")
    args = _parse("--mqtt", "mqtt://127.0.0.1:9/a", "--webhook", "http://127.0.0.1:9/", "--webhook-all")
    with Deliveries(sinks_from(args, MAXIMUM), close_timeout_s=0.1, say=lambda line: None) as deliveries:
        deliveries.offer(judgement())
    assert [counts.name for counts in deliveries.counts()] == ["MQTT 127.0.0.1:9/a", "webhook http://127.0.0.1:9/"]
    assert [counts.undelivered for counts in deliveries.counts()] == [1, 1]


def test_one_that_cannot_open_leaves_none_open(tmp_path: Path):
    args = _parse("--json-file", tmp_path / "a.jsonl", "--webhook", "ftp://host/")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(UserError, match="a webhook is http"):
        sinks_from(args, MAXIMUM)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(UserError, match="frames or of seconds"):
        sinks_from(_parse("--events", tmp_path / "events", "--event-before", "x"), MAXIMUM)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5k", 1500), ("7", 7), ("1tb", 10**12)]
)
def test_sizes_are_read(text: str, size: int):
    assert _parse("--disk-cap", text).disk_cap == size


@pytest.mark.parametrize(
    "arguments",
    [
        ("--disk-cap", "0"),
        ("--disk-cap", "-1GB"),
        ("--disk-cap", "much"),
        ("--json-cap", "1XB"),
        ("--video-fps", "0"),
        ("--video-fps", "nan"),
        ("--no-overlays",),
        ("--contact-sheet",),
        ("--mqtt-ca", "x"),
        ("--webhook-all",),
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        _parse(*arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_the_options_load_no_library_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch):
    program = """
import argparse, sys
from runtime.sinks.arguments import add_arguments
parser = argparse.ArgumentParser()
add_arguments(parser)
parser.format_help()
sys.exit(bool({"numpy", "cv2", "PIL", "paho", "http"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(UserError, match=r"--mqtt needs paho-mqtt.*cflow-edge\[mqtt\]"):
        sinks_from(_parse("--mqtt", "mqtt://127.0.0.1:9/a"), MAXIMUM)


@pytest.mark.parametrize("content", [b"x" * 70_000, b"\xff\xfe"])
def test_a_file_that_is_no_secret_is_refused_and_not_read_for_ever(tmp_path: Path, content: bytes):
    (tmp_path / "secret").write_bytes(content)
    for words in (("--webhook", "http://h/", "--webhook-token"), ("--mqtt", "mqtt://h/t", "--mqtt-credentials")):
        with pytest.raises(UserError, match="must be a text"):
            sinks_from(_parse(*words, tmp_path / "secret"), MAXIMUM)
