"""The runtime is what a device with nothing but NumPy, Pillow, simplejpeg, OpenCV and an inference library installs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine

FORBIDDEN = {"torch", "torchvision", "onnx", "onnx_graphsurgeon", "FrEIA", "scipy", "sklearn", "train", "export"}


def _modules_loaded_by(program: str, *arguments: str) -> set[str]:
    program += "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_judging_a_frame_loads_no_training_library(tmp_path: Path, library: str):
    program = """
import sys, numpy, runtime
from runtime import infer
from runtime.sinks import folder as sinks
from runtime.sources import open as sources
with runtime.load(sys.argv[1], backend=sys.argv[2]) as detector:
    detector(numpy.zeros((8, 8, 3), numpy.uint8))
"""
    loaded = _modules_loaded_by(program, str(write_tiny_engine(tmp_path)), library)
    assert library in loaded and not loaded & FORBIDDEN


def test_import_runtime_and_help_are_light():
    heavy = {"numpy", "cv2", "PIL", "onnxruntime", "openvino", *FORBIDDEN}
    assert not _modules_loaded_by("import runtime") & heavy
    assert not _modules_loaded_by("import runtime.infer; runtime.infer.build_parser().format_help()") & heavy


def test_a_run_without_a_log_does_not_ask_which_version_it_is(tmp_path: Path):
    """That is read from the installed package's facts by a parser of e-mail, in the time to the first verdict."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "frame.png")
    program = """
import sys
from runtime import infer
infer.main(["--engine", sys.argv[1], "--source", sys.argv[2], "--backend", "onnxruntime", *sys.argv[3:]])
"""
    arguments = [str(write_tiny_engine(tmp_path)), str(tmp_path / "frame.png")]
    assert "email" not in _modules_loaded_by(program, *arguments)
    assert "email" in _modules_loaded_by(program, *arguments, "--log", str(tmp_path / "log.db"))


@pytest.mark.parametrize("path", sorted((ROOT / "runtime").rglob("*.py")), ids=lambda path: path.name)
def test_no_file_imports_a_training_library_anywhere(path: Path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    allowed = {"scipy"} if path.parent.name in ("gauge", "improve") else set()  # at a desk; no line imports them
    assert not imported & FORBIDDEN - allowed
