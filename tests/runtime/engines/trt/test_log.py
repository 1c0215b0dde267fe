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


def test_what_is_made_in_spite_of_an_error_is_not_trusted_where_that_is_asked_for(log):
    def made_with(severity):
        return lambda given: say(given, severity, "CUDA initialization failure with error: 35") or "dead"

    assert make(made_with("ERROR"), log, "tensorrt_rtx 1.7.1") == "dead"
    with pytest.raises(UserError, match=r"tensorrt_lean 11\.4 must start; found CUDA initialization failure"):
        make(made_with("ERROR"), log, "tensorrt_lean 11.4", errors_end_it=True)
    assert make(made_with("WARNING"), log, "tensorrt_lean 11.4", errors_end_it=True) == "dead"
