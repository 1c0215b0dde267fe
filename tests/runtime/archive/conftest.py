"""What tests of archives begin with."""

from pathlib import Path

import pytest

from tests.support.archives import write_pictures
from tests.support.tiny_engine import write_tiny_engine

pytest.importorskip("pyarrow", reason="pyarrow (extra archive)")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 21 pictures and one file that is none."""
    folder = write_pictures(tmp_path_factory.mktemp("archive"), 21)
    (folder / "below" / "broken.png").write_bytes(b"this is no picture")
    return folder
