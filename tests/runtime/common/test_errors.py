"""How a command ends: whatever it prints."""

import io
import os
import sys

import pytest

from runtime.common.errors import run_command


def test_names_that_are_not_utf_8_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", errors="strict"))

    def main(argv: object) -> None:
        print(os.fsdecode(b"K\xf6rper.png"), flush=True)

    assert run_command(main) == 0
    assert written.getvalue() == b"K\\udcf6rper.png\n"
