"""What the report of a period says of a candidate: held to what the line compared."""

import re
from pathlib import Path

import pytest

from runtime.common.errors import run_command
from runtime.period import main as period
from runtime.period.facts import gather
from runtime.period.span import day, zone_of
from runtime.records.marks import FALSE_ALARM
from runtime.records.shadows import pictures_of
from tests.support.shadow_rig import ASKED, BAD, BETWEEN, GOOD, engines, shadowing

DAY = "2023-11-14"  # of the camera's frames, in UTC


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Six frames compared, two disagreements, one of them marked, and then one compared the other way round."""
    engines(tmp_path)
    with shadowing(tmp_path) as rig:
        rig.judge(GOOD, BETWEEN, BAD, BETWEEN, GOOD, GOOD)
        body = {"number": rig.state()["disagreements"][0]["picture"], "kind": FALSE_ALARM}
        assert rig.page.ask("/api/mark", "POST", body, **ASKED).status == 200
        assert rig.change(override="anyway").status == 200
        rig.judge(BETWEEN)
    return tmp_path / "i.db"


def _made(log: Path, *words: str) -> str:
    output = log.parent / "report.html"
    assert run_command(period.main, [*words, "--log", str(log), "--output", str(output), "--zone", "UTC"]) == 0
    return output.read_text(encoding="utf-8")


def test_the_report_compares_both_engines_with_pictures(log: Path):
    html = _made(log, "--day", DAY)
    section = html[html.index("<h2>In shadow</h2>") :].split("<h2>")[1]
    rows = re.findall(r"<tr><td>(.*?)</tr>", section)
    numbers = [re.findall(r'class="n">([^<]*)<', row) for row in rows]
    assert numbers == [["6", "4", "0", "2", "0.5"], ["1", "0", "1", "0", "1"]]
    assert "calls 1 of 1 marked false alarms good" in rows[0] and rows[0].startswith("cable2.onnx")
    assert section.count("data:image/jpeg") == 3 and "anomalous by cable.onnx only" in section


def test_pictures_that_are_gone_are_said_and_another_day_has_nothing(log: Path):
    for path in pictures_of(log).iterdir():
        path.unlink()
    assert _made(log, "--day", DAY).count("no picture kept") >= 3
    assert "In shadow" not in _made(log, "--day", "2023-11-15")


def test_it_is_counted_over_all_files_of_the_log(log: Path):
    log.rename(log.with_name("i.000001.db"))
    with shadowing(log.parent) as rig:  # cable2 judges by now
        assert rig.state()["compared"] == 1  # carried into the new file
        rig.before = -1
        rig.judge(GOOD)
    span = day(DAY, zone_of("UTC"))
    found = {of.running: one for of, one in gather(log, span).shadows.items()}
    assert {name: one.frames.total() for name, one in found.items()} == {"cable.onnx": 6, "cable2.onnx": 2}
