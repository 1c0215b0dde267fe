import os
import signal
import threading

import pytest

from runtime.interrupts import StopSignals


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
