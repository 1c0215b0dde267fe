import os
import subprocess
import sys
import termios

import pytest

from runtime.common.keyboard import key_reader

PROGRAM = """
import fcntl, sys, termios, time
from runtime.common.keyboard import key_reader
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes the terminal this session's own
with key_reader() as pressed:
    print("ready", flush=True)
    deadline = time.monotonic() + 120
    seen = ""
    while "q" not in seen and time.monotonic() < deadline:
        seen += pressed()
        time.sleep(0.001)
print(seen, flush=True)
"""


def test_a_key_is_seen_without_enter_and_the_terminal_is_put_back():
    controller, terminal = os.openpty()
    before = termios.tcgetattr(terminal)
    program = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(program, stdin=terminal, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        os.write(controller, b"aq")
        assert child.stdout.readline() == "aq\n"
    assert child.returncode == 0
    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)


def test_without_a_terminal_no_key_is_pressed(monkeypatch: pytest.MonkeyPatch):
    with open(os.devnull) as nothing:  # noqa: PTH123 - the device, not a path of the project
        monkeypatch.setattr(sys, "stdin", nothing)
        with key_reader() as pressed:
            assert pressed() == ""
    monkeypatch.setattr(sys, "stdin", None)
    with key_reader() as pressed:
        assert pressed() == ""
