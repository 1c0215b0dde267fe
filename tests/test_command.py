"""The one command: what it lists, runs, and says where something is missing."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cflow
from tests.support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _cflow(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cflow", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_list_is_grouped_and_whole():
    run = _cflow("--help")
    assert run.returncode == 0 and run.stderr == ""
    sections = re.split(r"\n\n(?=\w+:\n)", run.stdout)[1:]
    listed = {text.split(":")[0]: re.findall(r"^  (\S+)  +\S.*$", text, re.M) for text in sections}
    assert listed == {group: list(names) for group, names in cflow.GROUPS.items()}
    assert list(listed) == ["train", "export", "line", "measure"]
    assert max(map(len, run.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["infr"], []])
def test_the_list_needs_no_library(words: list[str]):
    program = f"""
import json, sys, cflow
cflow.main({words!r})
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(run.stdout.splitlines()[-1]))
    assert "cflow" in loaded and not loaded & {"torch", "numpy", "PIL", "cv2", "onnx", "train", "export"}


def test_every_subcommand_has_its_own_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", sys.argv)  # `main` sets it
    for name in cflow.SUBCOMMANDS:
        with pytest.raises(SystemExit) as ended:
            cflow.main([name, "--help"])
        out = capsys.readouterr().out
        assert ended.value.code == 0 and out.startswith(f"usage: cflow {name} "), name
        assert len(out.splitlines()) > 5


def test_a_module_run_by_itself_keeps_its_name():
    run = subprocess.run(
        [sys.executable, "-m", "runtime.infer", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("usage: python -m runtime.infer ")


def test_a_subcommand_runs_with_its_arguments_and_status(tmp_path: Path):
    out = tmp_path / "cables"
    run = _cflow("synthetic", f"--out={out}", "--train=2", "--test-good=1", "--per-defect=1", "--size=64")
    assert run.returncode == 0, run.stderr
    assert len(list((out / "train" / "good").iterdir())) == 2
    again = _cflow("infer", "--engine", str(tmp_path / "none.onnx"), "--source", str(out / "train" / "good"))
    assert again.returncode == 2 and "none.onnx must exist" in again.stderr and again.stderr.count("\n") == 1


def test_an_unknown_subcommand_names_the_nearest():
    run = _cflow("evalute", "cable.pt")
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr == "error: cflow needs one of its subcommands; found 'evalute'; did you mean cflow evaluate?\n"
    assert _cflow("xyz").stderr.endswith("found 'xyz'; see cflow --help\n")


def test_no_subcommand_is_status_2_and_the_list():
    run = _cflow()
    assert run.returncode == 2 and run.stdout == "" and run.stderr == _cflow("--help").stdout


@pytest.mark.parametrize(
    ("words", "library", "extra"),
    [
        (["train", "--help"], "torch", "train"),
        (["build", "--help"], "onnx", "train"),
        (["soak", "-h"], "numpy", "runtime"),
    ],
)
def test_a_missing_library_is_one_line_with_the_cure(tmp_path: Path, words: list[str], library: str, extra: str):
    # a real import that finds nothing: the finder of this process refuses the library, as one without it does
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
""")
    run = _cflow(*words, PYTHONPATH=str(tmp_path))
    expected = f"error: cflow {words[0]} needs the library {library}; found none; pip install 'cflow-edge[{extra}]'\n"
    assert (run.returncode, run.stderr) == (2, expected)


def test_a_module_of_our_own_that_is_missing_is_a_defect(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cflow.SUBCOMMANDS, "soak", cflow.Subcommand("runtime.no_such_module", ""))
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cflow.main(["soak"])


def test_the_version_is_the_installed_distributions(tmp_path: Path):
    assert _cflow("--version").stdout == f"cflow-edge {importlib.metadata.version('cflow-edge')}\n"
    # without site-packages, and without what an installation leaves beside the sources
    shutil.copy(ROOT / "cflow.py", tmp_path)
    shutil.copytree(ROOT / "runtime" / "common", tmp_path / "runtime" / "common")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import cflow; cflow.main(['--version'])"
    command = [sys.executable, "-I", "-S", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert run.stdout == "cflow-edge, a checkout that is not installed (pip install -e .)\n"


def test_scripts_and_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {subcommand.extra for subcommand in cflow.SUBCOMMANDS.values()} <= set(project["optional-dependencies"])
    aliases = {name.removeprefix("cflow-"): place for name, place in project["scripts"].items() if name != "cflow"}
    assert project["scripts"]["cflow"] == "cflow:command"
    assert aliases == {
        name: f"{cflow.SUBCOMMANDS[name].module}:command" for name in ("train", "build", "infer", "report")
    }
