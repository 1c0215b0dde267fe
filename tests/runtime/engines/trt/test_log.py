from types import ModuleType, SimpleNamespace

import pytest

from runtime.common.errors import UserError
from runtime.engines.trt.log import KEPT_ENTRIES, library_log, make


@pytest.fixture
def log():
    library = ModuleType("tensorrt")
    library.ILogger = type("ILogger", (), {})
    created = library_log(library)
    assert library_log(library) is created  # a second logger would be ignored by the library
    return created


def say(log, severity, text):
    log.log(SimpleNamespace(name=severity), text)


def test_the_reason_is_the_last_error_that_is_one(log):
    assert log.reason() == "no reason given"
    say(log, "WARNING", "slow")
    say(log, "INTERNAL_ERROR", "first")
    say(log, "ERROR", "second")
    say(log, "ERROR", "CUDA driver version is insufficient for CUDA runtime version")
    assert log.reason() == "second"
    log.clear()
    assert log.reason() == "no reason given"


def test_only_errors_and_warnings_are_kept_and_not_for_ever(log):
    for index in range(3 * KEPT_ENTRIES):
        say(log, "WARNING", str(index))
        say(log, "INFO", "loading")
    assert len(log.entries) == KEPT_ENTRIES
    assert log.entries[-1] == ("WARNING", str(3 * KEPT_ENTRIES - 1))


def test_nothing_is_printed_unless_verbose(log, capsys):
    say(log, "ERROR", "refused")
    assert capsys.readouterr().err == ""
    log.verbose = True
    say(log, "INFO", "loading")
    assert capsys.readouterr().err == "[INFO] loading\n"


def test_a_builder_that_does_not_start_tells_why(log):
    def fails(given):
        say(given, "ERROR", "CUDA driver version is insufficient for CUDA runtime version")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    expected = r"tensorrt 8\.6\.0 must start; found CUDA driver version is insufficient.*; see nvidia-smi"
    with pytest.raises(UserError, match=expected):
        make(fails, log, "tensorrt 8.6.0")
    with pytest.raises(UserError, match="must start; found no reason given"):
        make(lambda given: None, log, "tensorrt 8.6.0")
    assert make(lambda given: (given,), log, "") == (log,)
