"""How a line stands with its checks, on the page and in its metrics."""

from pathlib import Path

import pytest

from runtime.recipes.book import Standing
from tests.support.recipes import opened
from tests.support.serve_rig import serving, until


def test_page_and_metrics_say_when_a_check_is_due(tmp_path: Path):
    with opened(tmp_path) as recipes, serving(tmp_path, recipes=recipes) as rig:
        assert rig.state()["check"] is None and b"cflow_check" not in rig.ask("/metrics").body
        recipes.checks = lambda: [Standing("low", "no check of reference parts yet", None), Standing("high", "", 600.5)]
        assert rig.state()["check"]["reason"] == "no check of reference parts yet"
        metrics = rig.ask("/metrics").body.decode().splitlines()
        assert 'cflow_check_valid{recipe="low"} 0.0' in metrics and 'cflow_check_valid{recipe="high"} 1.0' in metrics
        assert 'cflow_check_due_seconds{recipe="high"} 600.5' in metrics
        assert not any(line.startswith('cflow_check_due_seconds{recipe="low"') for line in metrics)
        assert recipes.use("high", "Ana", "page") == ""
        assert until(rig.state)["check"] == {"recipe": "high", "reason": "", "due_s": pytest.approx(600.5)}
