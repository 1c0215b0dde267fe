"""The models of Table 6: made by the package `export`, which has torch, or found where another machine made them."""

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runtime.common.errors import INTERRUPTED_STATUS, USAGE_STATUS, UserError
from runtime.report.models import BASELINE_KINDS, FORM_KINDS, LIST_NAME, PLANS_FOLDER, ModelList, entry_of, read_list
from runtime.report.workers import project_environment

PRECISIONS_WITH_FILES = ("fp16", "int8")  # beside FP32


def models_of(arguments: argparse.Namespace) -> ModelList:
    """Return what to measure: the engines that are named, and Table 6's where none is or `--table6` asks for them."""
    named = tuple(entry_of(path) for path in arguments.engines)
    if named and not arguments.table6:
        return ModelList("as in the files", named)
    models = prepare_table6(arguments)
    weights = f"{models.weights}; of named files their own" if named else models.weights
    return replace(models, weights=weights, entries=(*models.entries, *named))


def prepare_table6(arguments: argparse.Namespace) -> ModelList:
    """Return the models of Table 6 in `--models`, made there first by the package that has torch, where it is.

    With `--plans` its graphs are then compiled, for which no torch is needed. Raises `UserError` where the models are
    neither there nor can be made.
    """
    folder: Path = arguments.models
    if arguments.plans:  # before minutes of work
        _compile(arguments, ["--check"])
    _make_graphs(arguments)
    if arguments.plans:
        read_list(folder)  # what is wrong with it is better told here
        _compile(arguments, _asked_words(arguments))
        folder = folder / PLANS_FOLDER
    return _asked_of(read_list(folder), arguments)


def _asked_words(arguments: argparse.Namespace) -> list[str]:
    """Return the encoders, sizes, precisions and forms that are asked for, as words of `export`'s commands."""
    words = [word for name in arguments.encoder or () for word in ("--encoder", name)]
    words += [word for side in arguments.size or () for word in ("--size", str(side))]
    precisions = ("fp32", *(name for name in arguments.precision or () if name in PRECISIONS_WITH_FILES))
    words += [word for name in precisions for word in ("--precision", name)]
    return words + (["--forms"] if arguments.forms else [])


def _make_graphs(arguments: argparse.Namespace) -> None:
    """Make what `--models` lacks, where torch is; raise `UserError` where neither torch nor the models are."""
    folder, baselines = arguments.models, ["--baselines"] if arguments.baselines else []
    has_torch = bool(arguments.torch_python or importlib.util.find_spec("torch"))
    if has_torch and importlib.util.find_spec("export"):
        words = ["export.bench.models", "--out", str(folder), "--anomalib", *_asked_words(arguments), *baselines]
        _run_module(str(arguments.torch_python or sys.executable), words)
    elif not (folder / LIST_NAME).is_file():
        raise UserError(
            f"{folder} must hold the models of Table 6, or torch must be installed to make them",
            "neither",
            f"copy a folder that another machine made: python -m export.bench.models --out {folder}, "
            "or name the Python that has torch: --torch-python FILE",
        )


def _compile(arguments: argparse.Namespace, words: Sequence[str]) -> None:
    _run_module(sys.executable, ["export.bench.plans", str(arguments.models), "--library", arguments.plans, *words])


def _run_module(python: str, words: Sequence[str]) -> None:
    """Run a module of the package `export`, which this one never imports, with its output on standard error."""
    try:
        ended = subprocess.run([python, "-m", *words], env=project_environment(), stdout=sys.stderr, check=False)
    except OSError as error:
        raise UserError("--torch-python must be a Python", str(error)) from None
    if ended.returncode in (USAGE_STATUS, INTERRUPTED_STATUS):  # it has said why
        sys.exit(ended.returncode)
    if ended.returncode:
        raise UserError("the models must be made", f"exit status {ended.returncode}", "see its own message above")


def _asked_of(models: ModelList, arguments: argparse.Namespace) -> ModelList:
    """Return what the command line names of a folder's models."""
    entries = [
        entry
        for entry in models.entries
        if (not arguments.encoder or entry.encoder in arguments.encoder)
        and (not arguments.size or entry.input_size[0] in arguments.size)
        and (arguments.baselines or entry.kind not in BASELINE_KINDS)
        and (arguments.forms or entry.kind not in FORM_KINDS)
    ]
    return replace(models, entries=tuple(entries))
