"""The file of recipes: what it may hold, and one line for everything else."""

import re
from pathlib import Path

import pytest

from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.recipes import arguments
from runtime.recipes.file import RecipeSpec
from tests.support.recipes import TWO, opened, parsed, write_recipes

PLAIN = '[[recipe]]\nname = "a"\nengine = "{folder}/low.onnx"\n'
ALIKE = PLAIN + '{one}\n[[recipe]]\nname = "b"\nengine = "{folder}/low.onnx"\n'


def _specs(folder: Path, text: str, *words: str) -> list[RecipeSpec]:
    return arguments.specs_from(parsed(write_recipes(folder, text), *words), infer.build_parser())


def test_a_recipe_is_the_command_line_with_some_options_changed(tmp_path: Path):
    text = ALIKE.replace("{one}", 'roi = "1,2,3,4"\nmask = ["none"]\nrotate = 90\nthreshold = 1.5\n')
    a, b = _specs(tmp_path, text, "--roi", "5,6,7,8", "--flip", "h")
    assert (a.args.roi, a.args.rotate, a.args.flip, a.inspects[0].threshold) == ([(1, 2, 3, 4)], [90], ["h"], 1.5)
    assert (b.args.roi, b.args.rotate, b.args.flip, b.inspects[0].threshold) == ([(5, 6, 7, 8)], None, ["h"], "")
    assert [spec.number for spec in (a, b)] == [1, 2]


def test_settings_of_the_camera_are_the_command_lines_with_a_recipes_own_in_their_place(tmp_path: Path):
    text = ALIKE.replace("{one}", 'genicam = ["GainRaw=5"]\n')
    a, b = _specs(tmp_path, text, "--genicam", "GainRaw=3", "--genicam", "Gamma=1")
    assert dict(a.args.genicam) == {"GainRaw": "5", "Gamma": "1"}
    assert dict(b.args.genicam) == {"GainRaw": "3", "Gamma": "1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"recipe must be written as \[\[recipe\]\]; found none"),
        ("[recipe]\nname = 'a'", r"written as \[\[recipe\]\]"),
        ("engine = 'x.onnx'\n" + PLAIN, r"must stand in a \[\[recipe\]\]"),
        ("[[recipe]]\nengine = 'x.onnx'", "recipe 1: name must be 1 to 64"),
        ("[[recipe]]\nname = 'a'", "recipe 'a' must name its engine"),
        (PLAIN + PLAIN, "name of its own; found 'a' twice"),
        (PLAIN + "number = 2\n[[recipe]]\nname = 'b'\nengine = 'x.onnx'", "number of its own"),
        (PLAIN + "number = 0", "number must be a whole number"),
        (PLAIN + "tresh = 1", "did you mean threshold"),
        (PLAIN + "camera-size = '8x8'", "camera-size cannot change while the line runs"),
        (PLAIN + "camera_format = 'Mono8'", "camera-format cannot change while the line runs"),
        (PLAIN + "roi = '1,2,3'", "roi: expected X,Y,W,H"),
        (PLAIN + "rotate = 45", "rotate must be one of"),
        (PLAIN + "threshold = true", "threshold must be a number"),
        (PLAIN + "exposure = 2\n[[recipe]]\nname = 'b'\nengine = 'x.onnx'", "'b' must say exposure too"),
        (PLAIN + "genicam = ['G=1']\n[[recipe]]\nname = 'b'\nengine = 'x.onnx'", "'b' must say genicam G too"),
        (
            PLAIN + "genicam = ['Width=8']\n[[recipe]]\nname = 'b'\nengine = 'x.onnx'\ngenicam = ['Width=16']",
            "genicam Width cannot change while the line runs",
        ),
        (PLAIN + "[[recipe.inspect]]\nroi = '0,0,8,8'", "inspect 1: name must be"),
        (PLAIN + "[[recipe.inspect]]\nname = 'l'\nrotate = 90", "rotate cannot change|must be one of"),
        ("nothing", "must be TOML"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(text: str, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said) as refused:
        _specs(tmp_path, text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("threshold = 'strict'", r"sidecar's \(good_quantile\)"),
        ("threshold = 7", "must be"),
        ("mask = 'no.png'", "no.png"),
    ],
)
def test_what_its_engine_cannot_do_is_refused_before_the_first_frame(line: str, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said), opened(tmp_path, PLAIN + line):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "c"], r"--recipe must be one of .*recipes.toml \(low, high\)"),
        (["--recipes", "none.toml"], "--recipes needs a file, none.toml"),
    ],
)
def test_a_name_or_a_file_that_is_not_there(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_recipes(tmp_path)
    recipes = [] if "--recipes" in words else ["--recipes", str(path)]
    assert run_command(infer.main, [*recipes, *words, "--source", str(tmp_path), "--dry-run"]) == 2
    error = capsys.readouterr().err

    assert re.search(said, error) and error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--engine", "a.onnx", "--recipe", "low"],
        ["--engine", "a.onnx", "--recipe-topic", "t"],
        ["--recipes", "r.toml", "--threshold", "1"],
        ["--recipes", "r.toml", "--recipe-topic", "t"],
        ["--recipes", "r.toml", "--engine", "a.onnx"],
    ],
)
def test_options_that_do_not_go_together(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        infer.main([*words, "--source", "."])
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err


def test_a_dry_run_shows_each_recipe_and_opens_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_recipes(tmp_path, TWO + 'roi = "0,0,8,8"\n[[recipe]]\nname = "gone"\nengine = "gone.onnx"\n')
    words = ["--recipes", str(path), "--recipe", "high", "--source", str(tmp_path), "--dry-run"]
    assert infer.main(words) is None
    low, high, gone = capsys.readouterr().out.splitlines()[-3:]
    assert low.startswith("recipe 1 low: engine ") and "at the start" not in low
    assert high.startswith("recipe 7 high: ") and "'roi': [0, 0, 8, 8]" in high and high.endswith(", at the start")
    assert "would not open: no such file" in gone


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_mask_and_an_engine_that_cannot_be_opened_are_told_with_their_recipe(
    dry: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"no picture")
    several = TWO + f'[[recipe.inspect]]\nname = "pins"\nmask = "{mask}"\n'
    for text, where in ((TWO + f'mask = "{mask}"\n', "recipe high"), (several, "recipe high, inspect pins")):
        words = ["--recipes", str(write_recipes(tmp_path, text)), "--source", str(tmp_path), *dry]
        assert run_command(infer.main, [*words, "--backend", "onnxruntime", "--threads", "1"]) == 2
        [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
        assert error.startswith(f"error: {where}: {mask}")


def test_a_plan_among_onnx_is_refused_with_its_recipe_where_nothing_can_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = TWO + '[[recipe]]\nname = "fast"\nengine = "{folder}/high.plan"\n'
    path = write_recipes(tmp_path, text)
    (tmp_path / "high.plan").write_bytes(b"a plan")
    assert run_command(infer.main, ["--recipes", str(path), "--source", str(tmp_path), "--threads", "1"]) == 2
    [error] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert error.startswith("error: recipe fast: ") and "high.plan" in error


def test_one_engine_of_several_recipes_is_loaded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    link = tmp_path / "link.onnx"
    text = ALIKE.replace("{one}", "threshold = 0.5") + f'[[recipe]]\nname = "c"\nengine = "{link}"\n'
    link.symlink_to(tmp_path / "low.onnx")
    (tmp_path / "link.json").symlink_to(tmp_path / "low.json")
    with opened(tmp_path, text) as recipes:
        detectors = [recipes[name].first.detector for name in "abc"]
        assert len({id(detector.session) for detector in detectors}) == 1
        assert [detector.threshold for detector in detectors] == [0.5, 1.0, 1.0]
    assert "recipes: 3 recipes, 1 engine loaded" in capsys.readouterr().err
