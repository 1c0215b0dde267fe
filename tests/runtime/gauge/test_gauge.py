"""%GRR against AIAG's published example, a second formula, scikit-learn's kappa, and the command as it is run."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from runtime.common.errors import run_command
from runtime.gauge import main as command
from runtime.gauge.anova import gauge, kappa
from tests.support.paths import ROOT

# Measurement Systems Analysis (AIAG): 10 parts x 3 appraisers x 3 trials, by appraiser and trial
AIAG = """
0.29 -0.56 1.34 0.47 -0.80 0.02 0.59 -0.31 2.26 -1.36
0.41 -0.68 1.17 0.50 -0.92 -0.11 0.75 -0.20 1.99 -1.25
0.64 -0.58 1.27 0.64 -0.84 -0.21 0.66 -0.17 2.01 -1.31
0.08 -0.47 1.19 0.01 -0.56 -0.20 0.47 -0.63 1.80 -1.68
0.25 -1.22 0.94 1.03 -1.20 0.22 0.55 0.08 2.12 -1.62
0.07 -0.68 1.34 0.20 -1.28 0.06 0.83 -0.34 2.19 -1.50
0.04 -1.38 0.88 0.14 -1.46 -0.29 0.02 -0.46 1.77 -1.49
-0.11 -1.13 1.09 0.20 -1.07 -0.67 0.01 -0.56 1.45 -1.77
-0.15 -0.96 0.67 0.11 -1.45 -0.49 0.21 -0.49 1.87 -2.16
"""
SCORES = np.array([line.split() for line in AIAG.split("\n")[1:-1]], float).reshape(3, 3, 10).transpose(2, 0, 1)


def test_the_published_example_comes_out_as_published():
    found = gauge(SCORES)
    assert found.pooled and found.p_interaction == pytest.approx(0.974, abs=0.001)  # F 0.434 of (18, 60)
    assert found.repeatability == pytest.approx(0.199933, abs=2e-6)
    assert found.operators == pytest.approx(0.226838, abs=2e-6) and found.interaction == 0
    assert found.grr == pytest.approx(0.302373, abs=2e-6)
    assert found.parts == pytest.approx(1.042327, abs=2e-6)
    assert found.grr_percent == pytest.approx(27.9, abs=0.05) and found.ndc == 4


def test_an_interaction_is_found_and_counted_with_reproducibility():
    """Against sums of squares by naive loops; the interaction is made large."""
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 0.1, (6, 3, 4)) + rng.normal(0, 2, (6, 1, 1)) + rng.normal(0, 1, (6, 3, 1))
    found = gauge(scores)
    cells, parts, operators, mean = scores.mean(2), scores.mean((1, 2)), scores.mean((0, 2)), scores.mean()
    error = sum((scores[p, o, t] - cells[p, o]) ** 2 for p in range(6) for o in range(3) for t in range(4)) / (18 * 3)
    crossed = 4 * sum((cells[p, o] - parts[p] - operators[o] + mean) ** 2 for p in range(6) for o in range(3)) / 10
    of_parts = 12 * sum((parts[p] - mean) ** 2 for p in range(6)) / 5
    assert not found.pooled
    assert found.repeatability == pytest.approx(math.sqrt(error))
    assert found.interaction == pytest.approx(math.sqrt((crossed - error) / 4))
    assert found.parts == pytest.approx(math.sqrt(max(0, (of_parts - crossed) / 12)))


def test_one_operator_has_repeatability_only():
    found = gauge(SCORES[:, :1])
    assert found.p_interaction is None and found.reproducibility == 0
    assert found.repeatability == pytest.approx(math.sqrt(SCORES[:, 0].var(axis=1, ddof=1).mean()))


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    first = rng.choice(["good", "anomalous", "none"], 200).tolist()
    second = [word if rng.random() < 0.7 else "good" for word in first]
    assert kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert math.isnan(kappa(["good"] * 3, ["good"] * 3))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "operator", "trial", "score", "verdict"])
        for (p, o, t), score in np.ndenumerate(SCORES):
            writer.writerow([p + 1, "ABC"[o], t + 1, score, "anomalous" if score > 0.5 else "good"])
    return path


def test_the_command_prints_it_and_draws_it(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--csv", str(study), "--threshold", "2.5", "--plot", str(tmp_path / "g.svg")]
    assert run_command(command.main, words) == 0
    said = capsys.readouterr().out
    assert "%GRR 27.9: may do" in said and "ndc 4" in said and "kappa of A and B" in said
    share = 100 * 3 * 0.302373 / (2.5 - SCORES.mean())
    assert f"GRR by tolerance {share:.1f} %" in said
    assert (tmp_path / "g.svg").read_text().count('r="3"') == SCORES.size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("part,score\n1,0.5\n", "needs 2 parts and 2 trials"),
        ("part,operator,score\n1,A,1\n1,A,1\n2,A,1\n", "equally often"),
        ("part,score\n1,high\n", "line 2 must have a part and a score"),
        ("", "no score"),
    ],
)
def test_what_is_no_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str):
    (tmp_path / "s.csv").write_text(text)
    assert run_command(command.main, ["--csv", str(tmp_path / "s.csv")]) == 2
    assert said in capsys.readouterr().err


def test_without_scipy_the_cure_is_said(study: Path):
    program = "import sys; sys.modules['scipy'] = None\nfrom runtime.gauge.main import command\nsys.exit(command())"
    run = subprocess.run([sys.executable, "-c", program, "--csv", str(study)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "pip install 'cflow-edge[statistics]'" in run.stderr
