"""What tests of a triggered inspection begin with."""

import pytest

import runtime
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triggered_run import LONG, Running


@pytest.fixture
def detector(tmp_path):
    with runtime.load(write_tiny_engine(tmp_path), threads=1, backend="onnxruntime") as opened:
        yield opened


@pytest.fixture
def run(detector):
    """Return a function that starts an inspection of sources, which is stopped at the end."""
    started = []

    def start(sources, options=LONG, **more):
        started.append(Running(sources, more.pop("engine", detector), options, **more))
        return started[-1]

    yield start
    for running in started:
        running.stop()
