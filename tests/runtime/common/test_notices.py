"""What is said on stdout and stderr neither raises nor waits, whoever reads it."""

import fcntl
import io
import os
import sys
from pathlib import Path

import pytest

from runtime.common import notices


def test_a_reader_that_stands_still_is_not_waited_for_and_hears_of_it_later(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb") as read:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(notices, "_unsaid", 0)
        os.write(writer, b"x" * size)
        notices.say("first")
        notices.say("second")
        assert len(os.read(reader, size)) == size
        notices.say("third")
        assert os.read(reader, size) == b"(2 lines before could not be written)\nthird\n"
        assert not notices.reader_gone(stream) and read.readable()


def test_a_reader_that_has_gone_and_a_closed_stream_raise_nothing(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        assert notices.write(stream, "line\n") is False and notices.reader_gone(stream)
        monkeypatch.setattr(sys, "stderr", stream)
        notices.say("line")
    notices.say("line")  # closed
    assert notices.write(stream, "line\n") is False and not notices.reader_gone(stream)
    monkeypatch.setattr(sys, "stderr", None)
    notices.say("line")


def test_streams_that_are_no_files_get_everything(tmp_path: Path):
    stream = io.StringIO()
    assert notices.write(stream, "Körper\n") and stream.getvalue() == "Körper\n"
    with (tmp_path / "latin").open("w", encoding="latin-1") as file:
        assert notices.write(file, "Körper 体\n")
    assert (tmp_path / "latin").read_bytes() == b"K\xf6rper \\u4f53\n"
    with (tmp_path / "log").open("w") as file:
        assert notices.write(file, "x" * 100_000)
    assert (tmp_path / "log").stat().st_size == 100_000
