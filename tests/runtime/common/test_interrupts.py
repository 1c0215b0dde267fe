import os
import signal
import threading

import pytest

from runtime.common.interrupts import StopSignals, lasting_interrupt


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


def test_a_signal_that_came_before_there_was_anything_to_stop():
    asked = []
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.call(lambda: asked.append(1))
    assert asked == [1]


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
