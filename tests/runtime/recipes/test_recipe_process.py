"""A whole line that is ended by a signal while its recipe changes again and again."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from runtime.records.read import Query, audit, judgements
from tests.support.log_rows import asked
from tests.support.paths import ROOT
from tests.support.recipes import write_recipes
from tests.support.snapshot_server import SnapshotServer, jpeg

CHANGES = 40
THRESHOLDS = {"low": 1.0, "high": 2.0}


def _change(page: str, name: str) -> None:
    body = json.dumps({"recipe": name}).encode()
    headers = {"Content-Type": "application/json", "X-Requested-By": "cflow-edge"}
    urllib.request.urlopen(urllib.request.Request(f"{page.rstrip('/')}/api/recipe", body, headers), timeout=60)


def _line(folder: Path, camera: SnapshotServer, *words: str) -> list[str]:
    command = [sys.executable, "-m", "runtime.infer", "--recipes", str(write_recipes(folder)), "--threads", "1"]
    source = ["--source", f"http://127.0.0.1:{camera.port}/", "--camera-fps", "100", "--frozen-after", "0"]
    return [*command, *source, "--backend", "onnxruntime", "--log", str(folder / "i.db"), "--json", *words]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_line_that_is_ended_while_its_recipe_changes_leaves_right_records(tmp_path: Path, number: int, status: int):
    with closing(SnapshotServer()) as camera:
        camera.content = jpeg(80)  # between the two thresholds
        command = _line(tmp_path, camera, "--serve", "0")
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as line:
            assert line.stderr is not None
            address = next(re.match(r"page: (http://\S+)", text) for text in line.stderr if text.startswith("page: "))
            assert address
            try:
                for change in range(CHANGES):
                    _change(address[1], ("high", "low")[change % 2])
            except OSError:
                line.kill()
                raise
            line.send_signal(number)
            said = line.communicate(timeout=120)[1]
        assert line.returncode == status and "Traceback" not in said, said
        log = tmp_path / "i.db"
        assert asked(log, "PRAGMA integrity_check") == [("ok",)]
        found = list(judgements(log, Query()))
        assert found and all(record["threshold"] == THRESHOLDS[record["recipe"]] for record in found)
        told = [change["new"] for change in audit(log) if change["what"] == "recipe" and change["origin"] != "start"]
        # a kill may come between the last change and its entry
        assert len(told) in ((CHANGES,) if number != signal.SIGKILL else (CHANGES - 1, CHANGES)) and set(told) == set(
            THRESHOLDS
        )
        again = subprocess.run(
            _line(tmp_path, camera, "--limit", "1"), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert again.returncode == 0 and json.loads(again.stdout.splitlines()[0])["recipe"] == "low"
        newest = next(change for change in audit(log) if change["what"] == "recipe")
        assert newest["new"] == "low"
