"""A model repository with a small engine, and servers of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from export import triton as command
from tests.support.tiny_engine import write_tiny_engine

KINDS = ("grpc", "http")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A small engine's file."""
    (tmp_path / "engine").mkdir()
    return write_tiny_engine(tmp_path / "engine", "cable")


@pytest.fixture
def repository(tmp_path: Path, engine: Path) -> Path:
    """The engine as `cflow triton` writes it, with room for several frames in a request."""
    command.main([str(tmp_path / "models"), str(engine), "--backend", "python", "--batch", "4"])
    return tmp_path / "models"


@pytest.fixture
def serve(repository: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a server of the repository; all are stopped at the end."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    from tests.support.kserve_models import Models
    from tests.support.kserve_server import SERVERS

    started = []

    def start(kind: str = "grpc", models: Any = None, port: int = 0, triton: bool = True, tls: Any = None) -> Any:
        started.append(SERVERS[kind](models or Models(repository, triton), port, tls))
        return started[-1]

    yield start
    for server in started:
        server.stop()
