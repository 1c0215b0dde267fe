"""Every command of README's and the pages' sh blocks is executed as it stands, in order, in one empty folder.

The only thing given is what a machine with a network downloads: the encoder's ImageNet weights, under the name by which
torchvision keeps them. They come from beside the checkout; where there are none, random ones take their place, and
figures and verdicts are then not compared.

Not executed but parsed, because they need more than this machine has: `make demo` and `make test` (a virtual
environment and minutes; make tells what it would run), and what needs a camera or a network stream (its own --dry-run,
which the pages show, parses all options and opens nothing).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from tests.support.documentation import blocks, commands, example, module_of, options_in, options_of, read, words_of
from tests.support.paths import ROOT, SHARED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = (
    "README.md",
    "docs/training.md",
    "docs/precision.md",
    "docs/line.md",
    "docs/traceability.md",
    "docs/production.md",
)
WEIGHTS = SHARED / "weights" / "resnet18_in1k_conv1-layer3_bnfolded.pth"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="ImageNet weights beside the checkout")
NUMBER = r"[-+]?[\d.]+(?:e[-+]\d+)?"


def _torch_home(folder: Path) -> Path:
    """Put weights where torchvision looks before it downloads."""
    kept = folder / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    kept.parent.mkdir(parents=True)
    if WEIGHTS.is_file():
        shutil.copy(WEIGHTS, kept)
    else:
        torch.manual_seed(0)
        torch.save(resnet18(weights=None).state_dict(), kept)
    return folder


class Shell:
    """Runs command lines in one folder, as in an activated environment, and keeps what they print."""

    def __init__(self, folder: Path, torch_home: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}  # on stdout, by command line
        self.aside: dict[str, str] = {}  # on stderr
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        self._environment = {**os.environ, "TORCH_HOME": str(torch_home), "PYTHONPATH": paths}

    def run(self, line: str) -> None:
        """Run `line` unless it has been; `python` and `cflow` are those of this environment."""
        if line in self.said:
            return
        name, *words = shlex.split(line, comments=True)
        program = {"python": [sys.executable], "cflow": [sys.executable, "-m", "cflow"]}[name]
        ended = subprocess.run(
            [*program, *words], cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=1200
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        self.said[line] = ended.stdout
        self.aside[line] = ended.stderr


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("user"), _torch_home(tmp_path_factory.mktemp("torch")))
    shutil.copy(example("line.toml"), shell.folder)
    for page in PAGES:
        for line in commands(page):
            if not line.startswith("make "):
                shell.run(line)
    return shell


@pytest.mark.slow
@needs_weights
def test_the_five_commands_print_what_the_readme_shows(shell: Shell):
    printed = "\n".join([*shell.said.values(), *shell.aside.values()])
    [shown] = blocks("README.md", "text")
    lines = [line for line in shown.splitlines() if line.strip()]
    assert len(lines) > 10
    for line in lines:
        assert re.search(rf"^{_pattern(line)}", printed, re.MULTILINE), line


def _pattern(line: str) -> str:
    """Return what `line` looks like with any numbers and verdicts; dots stand for what was left out."""
    text = re.sub(r"\d+\.png", "@png", line)
    parts = re.split(rf"(\.\.\.|{NUMBER}|\s+|@png|good$|anomalous$)", text)
    kinds = {"...": ".*", "@png": r"\d+\.png", "good": "(?:good|anomalous)", "anomalous": "(?:good|anomalous)"}
    found = []
    for part in parts:
        if part in kinds:
            found.append(kinds[part])
        elif re.fullmatch(NUMBER, part):
            found.append(NUMBER)
        else:
            found.append(r"\s+" if part.isspace() else re.escape(part))
    return "".join(found)


def test_a_line_that_is_shown_is_compared_but_for_its_numbers():
    assert re.match(_pattern("000.png  1.7221  anomalous"), "003.png  0.02  good")
    assert not re.match(_pattern("6 frames: 0 good, 6 anomalous"), "6 pictures: 0 good, 6 anomalous")
    assert re.match(_pattern("wrote cable.json, ...; threshold 0.5"), "wrote cable.json, cable.onnx; threshold 0.7")


@pytest.mark.slow
@needs_weights
def test_the_detector_of_the_readme_separates_and_finds_the_defects(shell: Shell):
    evaluated = next(said for line, said in shell.said.items() if "train.evaluate" in line)
    image, pixel = (float(found) for found in re.findall(r"^cable\.pt +([\d.]+) +([\d.]+)", evaluated, re.M)[0])
    assert image >= 99 and pixel >= 95  # README: 100.00 and 97.62
    lines = [json.loads(line) for line in (shell.folder / "judged" / "frames.jsonl").read_text().splitlines()]
    assert lines and {line["verdict"] for line in lines} == {"anomalous"}  # missing_core, the largest defect


@pytest.mark.slow
def test_what_the_readme_names_is_written(shell: Shell):
    for name in ("cable.pt", "cable.html", "cable.json", "cable.onnx", "cable.fp16.onnx", "judged/overlays/000.png"):
        assert (shell.folder / name).stat().st_size > 0, name


@pytest.mark.slow
def test_python_in_five_lines(shell: Shell):
    [block] = blocks("README.md", "python")
    frame = 'import numpy as np\nfrom PIL import Image\nframe = np.asarray(Image.open("cables/test/good/000.png"))\n'
    (shell.folder / "five_lines.py").write_text(frame + block)
    shell.run("python five_lines.py")
    assert re.match(rf"(good|anomalous) {NUMBER} {NUMBER}\n$", shell.said["python five_lines.py"])


@pytest.mark.slow
def test_a_json_line_has_the_fields_that_the_page_shows(shell: Shell):
    [shown] = [json.loads(block) for block in blocks("docs/line.md", "json")]
    real = json.loads((shell.folder / "judged.jsonl").read_text().splitlines()[0])
    assert list(shown) == list(real)
    assert set(shown["boxes"][0]) == {"x", "y", "width", "height", "peak"}
    table = read("docs/line.md").split("## A JSON line")[1].split("## MQTT")[0]
    named = set(re.findall(r"^\| `([a-z0-9_]+)`", table, re.MULTILINE))
    of_parts = {"part", "trigger", "asked", "answer_ms", "late", "answer", "decision"}
    of_recipes = {"recipe", "parts", "engine_sha256"}  # its row names the sidecar's too
    assert named == {*real, "camera_s", "reason", "view", "camera_boxes", "tiles", *of_parts, *of_recipes}


@pytest.mark.slow
def test_cameras_and_streams_are_only_described(shell: Shell):
    said = {line: said for line, said in shell.said.items() if line.endswith("--dry-run")}
    assert len(said) == 7
    assert all(re.search(r"camera|genicam|rtsp", text) for text in said.values())


@pytest.mark.slow
def test_the_configuration_in_force_is_the_files(shell: Shell):
    shown = tomllib.loads(shell.said["cflow infer --config line.toml --show-config"])
    written = tomllib.loads(example("line.toml").read_text())
    assert written and {name: shown[name] for name in written} == written


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target: str):
    assert any(line.startswith(f"make {target} ") for line in commands("README.md"))
    told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0 and {"demo": "train.demo", "test": "pytest"}[target] in told.stdout


@pytest.mark.parametrize("page", [*PAGES, "docs/commands.md"])
def test_every_option_of_a_block_exists(page: str):
    for line in commands(page):
        words = words_of(line)
        if module := module_of(words):
            known = options_of(module)
            assert not [option for option in options_in(page, module, words) if option.name not in known], line
        else:
            assert line.startswith("make "), line
