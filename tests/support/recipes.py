"""Recipes over tiny engines: a frame of grey level v scores 3·v/255 by each of them."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import runtime
from runtime.infer import build_parser
from runtime.recipes import arguments
from runtime.recipes.book import Recipes
from runtime.recipes.opened import open_recipes
from runtime.records.options import settings_of
from runtime.sources.arguments import views_from
from tests.support.tiny_engine import write_tiny_engine

LOW, HIGH = 1.0, 2.0  # thresholds: grey level 85, and 170
TWO = """
[[recipe]]
name = "low"
engine = "{folder}/low.onnx"

[[recipe]]
name = "high"
number = 7
engine = "{folder}/high.onnx"
"""


def several(name: str) -> str:
    """Return a recipe with both engines, one as `left` and one as `right`."""
    return f"""
[[recipe]]
name = "{name}"
[[recipe.inspect]]
name = "left"
engine = "{{folder}}/low.onnx"
[[recipe.inspect]]
name = "right"
engine = "{{folder}}/high.onnx"
"""


def write_recipes(folder: Path, text: str = TWO) -> Path:
    """Write the engines `low` and `high` and the file of recipes that names them."""
    write_tiny_engine(folder, "low", threshold=LOW)
    write_tiny_engine(folder, "high", size=(24, 40), threshold=HIGH)
    path = folder / "recipes.toml"
    path.write_text(text.replace("{folder}", str(folder)), encoding="utf-8")
    return path


def parsed(path: Path, *words: str) -> argparse.Namespace:
    """Return the command line with these recipes."""
    return build_parser().parse_args(["--recipes", str(path), "--source", str(path.parent), *words])


@contextlib.contextmanager
def opened(folder: Path, text: str = TWO, *words: str) -> Iterator[Recipes]:
    """Write the recipes and open them as `runtime.infer` does."""
    write_recipes(folder, text)
    with opened_again(folder, *words) as recipes:
        yield recipes


@contextlib.contextmanager
def opened_again(folder: Path, *words: str) -> Iterator[Recipes]:
    """Open recipes that are there."""
    args = parsed(folder / "recipes.toml", *words)
    specs = arguments.specs_from(args, build_parser())
    with contextlib.ExitStack() as stack:
        recipes = open_recipes(
            specs,
            lambda file: runtime.load(file, threads=1, backend="onnxruntime"),
            views_from,
            lambda of: settings_of(of, ["a"]),
            stack,
        )
        yield Recipes(recipes, arguments.first_of(specs, args).name)
