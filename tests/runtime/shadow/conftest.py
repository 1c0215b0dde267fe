"""What the tests of a candidate share."""

from pathlib import Path

import pytest

from runtime.shadow import standing
from tests.support.shadow_rig import engines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two engines."""
    engines(tmp_path)
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let four frames be enough."""
    monkeypatch.setattr(standing, "LEAST", 4)
