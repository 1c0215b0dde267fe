import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.common.errors import Terminated, UserError, run_command
from runtime.common.interrupts import StopSignals, lasting_interrupt
from tests.support.paths import ROOT

PATIENCE_S = 30


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_the_first_signal_asks_and_the_second_ends(number, status, word, capsys):
    asked = []
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signals.call(lambda: asked.append(1))
        assert signals.status() is None
        os.kill(os.getpid(), number)
        assert asked == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert asked == [1]
    assert signal.getsignal(number) is before
    assert signals.status() == status
    assert capsys.readouterr().err == f"\n{word}; what was written before is whole\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("begun", [False, True])
def test_where_nothing_can_be_finished_a_signal_ends_at_once_with_its_own_status(number, status, begun):
    """While something is opened, which may wait for ever, and with the second one; whoever swallows the exception."""
    reached = []

    def main(argv):
        with StopSignals() as signals:
            if begun:
                signals.call(lambda: None)
                os.kill(os.getpid(), number)
            try:
                os.kill(os.getpid(), number)
                reached.append(1)
            except KeyboardInterrupt:
                raise UserError("a library took it for a failure of its own") from None

    assert run_command(main) == status
    assert not reached


class Interrupted:
    """Meets a Ctrl-C where Python cannot raise."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_a_destructor_swallows_is_raised_again(monkeypatch):
    lost = []
    monkeypatch.setattr("sys.unraisablehook", lambda event: lost.append(event.exc_type))
    before = signal.getsignal(signal.SIGINT)
    with lasting_interrupt() as check:
        check()
        Interrupted()
        assert lost == [KeyboardInterrupt]  # and this line was reached
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_is_raised_at_once_where_it_can_be():
    with lasting_interrupt(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    found = []
    other = threading.Thread(target=lambda: found.append(_checked()))
    other.start()
    other.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def _checked():
    with lasting_interrupt() as check:
        check()
        return signal.getsignal(signal.SIGINT)


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with StopSignals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys):
    before = signal.getsignal(signal.SIGTERM)
    left = []

    def main(argv):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE_S)
        finally:
            left.append("cleaned up")

    assert run_command(main) == 143
    assert (left, signal.getsignal(signal.SIGTERM)) == (["cleaned up"], before)
    assert capsys.readouterr().err == "\nterminated; what was written before is whole\n"


@pytest.mark.parametrize("status", [130, 143])
def test_a_signal_that_a_library_takes_for_its_own_failure_is_still_one(capsys, status):
    """Found by killing runtime.infer: OpenVINO's import said that its initialisation failed."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def main(argv):
        try:
            os.kill(os.getpid(), status - 128)
            time.sleep(PATIENCE_S)
        except KeyboardInterrupt:
            raise UserError("OpenVINO must be installed", "initialization failed") from None

    assert run_command(main) == status
    word = "terminated" if status == 143 else "interrupted"
    assert capsys.readouterr().err == f"\n{word}; what was written before is whole\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_lasting_interrupt_keeps_which_signal_it_was():
    with lasting_interrupt() as check:
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Terminated):
            check()


@pytest.mark.parametrize("module", ["train.fit", "export.build_engine", "runtime.infer"])
def test_ctrl_c_during_imports_is_one_line(module):
    """At moments from the interpreter's start to the end of the imports."""
    statuses = set()
    for delay_s in (0.05, 0.1, 0.2, 0.4, 0.9, 2.0):
        command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
            seen = _read_until(run, "runtime.common.interrupts")
            time.sleep(delay_s)
            run.send_signal(signal.SIGINT)
            seen += run.stderr.read()
        said = [line for line in seen.splitlines() if not line.startswith("import time:")]
        assert not [line for line in said if "Traceback" in line or "Error" in line], said
        statuses.add(run.returncode)
        # -2: the interpreter was ending already and had put the signal's own way back, which a shell shows as 130 too
        assert run.returncode in (0, 130, -signal.SIGINT), said
    assert module == "runtime.infer" or 130 in statuses


def _read_until(run, text):
    """Read stderr until it tells that module `text` is there: from then on the package answers for signals."""
    seen = ""
    for line in run.stderr:
        seen += line
        if text in line:
            break
    return seen


def test_only_a_command_that_was_called_runs(tmp_path: Path):
    """A decorator or any other call of a module that is still being read is not the command yet."""
    module = "import sys\nfrom runtime.common.interrupts import _runs\n"
    module += "def look():\n    print(_runs(sys._getframe()))\ndef command():\n    look()\n    return 0\n"
    module += "look()\nclass Late:\n    look()\nsys.exit(command())\n"
    (tmp_path / "program.py").write_text(module)
    command = [sys.executable, str(tmp_path / "program.py")]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (ran.stdout.split(), ran.stderr) == (["False", "False", "True"], "")
