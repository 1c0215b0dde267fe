"""How a command ends: whatever it prints."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime.common.errors import USAGE_STATUS, run_command
from tests.support.paths import ROOT


def test_names_that_are_not_utf_8_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", errors="strict"))

    def main(argv: object) -> None:
        print(os.fsdecode(b"K\xf6rper.png"), flush=True)

    assert run_command(main) == 0
    assert written.getvalue() == b"K\\udcf6rper.png\n"


def _command(code: str, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    program = f"import sys; from runtime.common.errors import run_command; sys.exit(run_command(lambda _: {code}))"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("code", ["print('one line')", "print('line\\n' * 100_000)"])
def test_a_reader_of_stdout_that_has_gone_ends_a_command_without_a_word(code: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = _command(code, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = _command("print('one line')", stdout=full, stderr=subprocess.PIPE)
    assert (
        ended.returncode == 2 and ended.stderr.startswith(b"error: the disk is full") and ended.stderr.count(b"\n") == 1
    )


def test_an_error_keeps_its_status_where_nobody_reads_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = _command("open('/no/such/file')", stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_too_little_memory_for_torch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        return torch.empty(1 << 50).numel()

    assert run_command(main) == USAGE_STATUS
    assert capsys.readouterr().err.startswith("error: more memory is needed than there is; close other programs")
