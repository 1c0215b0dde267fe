"""Runs of `runtime.infer` with recipes: what is said, recorded and compared from start to start."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import infer
from runtime.common.errors import run_command
from runtime.records.read import Query, audit, judgements
from tests.support.recipes import TWO, write_recipes

BETWEEN = 128  # a grey level that is anomalous by "low" and good by "high"


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """Words of a run over one picture, with lines and a log."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((32, 48, 3), BETWEEN, np.uint8)).save(tmp_path / "images" / "a.png")
    words = ["--recipes", write_recipes(tmp_path, TWO + 'roi = "0,0,16,16"\n'), "--source", tmp_path / "images"]
    files = ["--json-file", tmp_path / "lines.jsonl", "--log", tmp_path / "i.db"]
    return [str(word) for word in [*words, *files, "--backend", "onnxruntime", "--threads", 1]]


def test_a_start_takes_the_first_recipe_or_the_one_named_and_the_audit_knows_the_difference(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert infer.main(line) is None
    said = capsys.readouterr().err
    assert "recipe: low at the start\n" in said and "recipes: 2 recipes, 2 engines loaded" in said
    assert infer.main([*line, "--recipe", "high"]) is None
    lines = [json.loads(text) for text in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(one["recipe"], one["verdict"]) for one in lines] == [("low", "anomalous"), ("high", "good")]
    assert "view" not in lines[0] and lines[1]["view"] == {"roi": [0, 0, 16, 16]}
    kept = [(one["recipe"], one["engine"], one["engine_sha256"]) for one in judgements(tmp_path / "i.db", Query())]
    assert kept == [(one["recipe"], f"{one['recipe']}.onnx", one["engine_sha256"]) for one in reversed(lines)]
    changes = {(one["what"], one["old"], one["new"]) for one in audit(tmp_path / "i.db")}
    assert {("recipe", "low", "high"), ("threshold", "1", "2"), ("roi", "", "0,0,16,16")} <= changes


SEVERAL = """
[[recipe]]
name = "sides"

[[recipe.inspect]]
name = "left"
engine = "{folder}/low.onnx"
threshold = 1.6
roi = "0,0,24,32"

[[recipe.inspect]]
name = "right"
engine = "{folder}/high.onnx"
"""


def test_the_audit_knows_the_threshold_of_each_of_several_and_what_a_single_entry_sees(line: list[str], tmp_path: Path):
    """The joint threshold is always 1, and must not hide that one of several was raised from start to start."""
    (tmp_path / "recipes.toml").write_text(SEVERAL.replace("{folder}", str(tmp_path)))
    assert infer.main(line) is None
    (tmp_path / "recipes.toml").write_text(SEVERAL.replace("{folder}", str(tmp_path)).replace("1.6", "2.9"))
    assert infer.main(line) is None
    [one] = [one for one in audit(tmp_path / "i.db") if "threshold" in one["what"]]
    assert (one["what"], one["old"], one["new"]) == ("inspect left threshold", "1.6", "2.9")
    alone = SEVERAL.partition('[[recipe.inspect]]\nname = "right"')[0].replace("{folder}", str(tmp_path))
    (tmp_path / "recipes.toml").write_text(alone)
    assert infer.main(line) is None
    changes = {(one["what"], one["old"], one["new"]) for one in audit(tmp_path / "i.db")}
    assert {("roi", "", "0,0,24,32"), ("inspect left threshold", "2.9", ""), ("threshold", "1", "1.6")} <= changes


def test_a_mask_that_is_not_there_is_told_with_its_recipe(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_recipes(tmp_path, TWO + f'mask = "{tmp_path}/none.png"\n')
    assert run_command(infer.main, line) == 2
    [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert error.startswith(f"error: recipe high: {tmp_path}/none.png")


def test_a_camera_that_takes_nothing_while_it_runs_has_no_recipes_that_set_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_recipes(tmp_path, TWO.replace('name = "low"', 'name = "low"\nexposure = 4') + "exposure = 8\n")
    words = ["--recipes", str(path), "--source", "gst: videotestsrc ! appsink", "--wait-for-sources"]
    assert run_command(infer.main, [*words, "--backend", "onnxruntime", "--threads", "1"]) == 2
    [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert "exposure" in error and "camera" in error
