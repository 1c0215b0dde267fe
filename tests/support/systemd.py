"""Units of docs/deploy, as systemd itself reads them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze")


def verify(name: str, text: str, folder: Path, programs: tuple[str, ...] = ()) -> str:
    """Return what systemd says of the unit `name`, whose `programs` stand for one that this machine has."""
    for program in programs:
        assert f"={program} " in text
        text = text.replace(program, sys.executable)
    unit = folder / name
    unit.write_text(text)
    ended = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    said = [line for line in ended.stderr.splitlines() if unit.name in line]
    return "\n".join(said) or ("" if ended.returncode == 0 else ended.stderr)
