"""The paper's Table 6 on this machine: `python -m runtime.report`; or engines of yours: `... MODELS`.

Every model runs in a process of its own, and all of a group take turns, round by round, so that a machine that grows
hot or busy slows all of them alike and the ratios stay.
"""

import argparse
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runtime.common.errors import INTERRUPTED_STATUS, USAGE_STATUS, UserError, run_command
from runtime.common.files import write_text
from runtime.common.notices import say
from runtime.common.program import program_name
from runtime.engines.backends import BACKENDS
from runtime.report import compare
from runtime.report.measure import MeasureOptions, make_report
from runtime.report.models import BASELINE_KINDS, FORM_KINDS, LIST_NAME, PLANS_FOLDER, ModelList, entry_of, read_list
from runtime.report.schema import Report, read_report
from runtime.report.tables import FORMATS, to_json_with_findings, to_markdown, to_text
from runtime.report.workers import project_environment

BATCHES = (1, 2, 4, 8, 16, 32)
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
TYPED = ("fp16", "int8")  # those that have files of their own
JSON_NAME, TEXT_NAME, MARKDOWN_NAME = "report.json", "report.txt", "report.md"


def prepare_table6(arguments: argparse.Namespace) -> ModelList:
    """Return the models of Table 6 in `--models`, made there first by the package that has torch, where it is.

    With `--plans` its graphs are then compiled, for which no torch is needed. Raises `UserError` where the models are
    neither there nor can be made.
    """
    folder: Path = arguments.models
    asked = [word for name in arguments.encoder or () for word in ("--encoder", name)]
    asked += [word for side in arguments.size or () for word in ("--size", str(side))]
    precisions = ("fp32", *(name for name in arguments.precision or () if name in TYPED))
    asked += [word for name in precisions for word in ("--precision", name)]
    asked += ["--forms"] if arguments.forms else []
    compiling = ["export.bench.plans", str(folder), "--library", arguments.plans]
    if arguments.plans:  # before minutes of work
        _make(sys.executable, [*compiling, "--check"])
    has_torch = bool(arguments.torch_python or importlib.util.find_spec("torch"))
    if has_torch and importlib.util.find_spec("export"):
        python = str(arguments.torch_python or sys.executable)
        baselines = ["--baselines"] if arguments.baselines else []
        _make(python, ["export.bench.models", "--out", str(folder), "--anomalib", *asked, *baselines])
    elif not (folder / LIST_NAME).is_file():
        raise UserError(
            f"{folder} must hold the models of Table 6, or torch must be installed to make them",
            "neither",
            f"copy a folder that another machine made: python -m export.bench.models --out {folder}, "
            "or name the Python that has torch: --torch-python FILE",
        )
    if arguments.plans:
        read_list(folder)  # what is wrong with it is better told here
        _make(sys.executable, [*compiling, *asked])
        folder = folder / PLANS_FOLDER
    return _asked_of(read_list(folder), arguments)


def _make(python: str, words: Sequence[str]) -> None:
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


def models_of(arguments: argparse.Namespace) -> ModelList:
    """Return what to measure: the engines that are named, and Table 6's where none is or `--table6` asks for them."""
    named = tuple(entry_of(path) for path in arguments.engines)
    if named and not arguments.table6:
        return ModelList("as in the files", named)
    models = prepare_table6(arguments)
    weights = f"{models.weights}; of named files their own" if named else models.weights
    return replace(models, weights=weights, entries=(*models.entries, *named))


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json, .txt, .md and, where matplotlib is installed, the pictures into `folder`; return the paths."""
    pictures: list[Path] = []
    write_text(folder / JSON_NAME, to_json_with_findings(report))  # first: the rest can be made from it again
    try:
        from runtime.report.charts import draw_charts

        pictures = draw_charts(report, folder)
    except UserError as error:
        say(f"no pictures: {error}")
    write_text(folder / TEXT_NAME, to_text(report))
    write_text(folder / MARKDOWN_NAME, to_markdown(report, [path.name for path in pictures]))
    return [*(folder / name for name in (JSON_NAME, TEXT_NAME, MARKDOWN_NAME)), *pictures]


def _parser() -> argparse.ArgumentParser:
    defaults = MeasureOptions()
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.report"),
        description="Measure the paper's Table 6 on this machine, or engines side by side.",
    )
    parser.add_argument(
        "engines",
        nargs="*",
        type=Path,
        metavar="ENGINE",
        help=".onnx or .plan; ratios are to the first (default: Table 6)",
    )
    table6 = parser.add_argument_group("the paper's Table 6, with seeded random weights")
    table6.add_argument("--table6", action="store_true", help="its models, beside the engines that are named")
    table6.add_argument("--encoder", action="append", metavar="NAME", help="repeat for several (default: the paper's)")
    table6.add_argument(
        "--size", action="append", type=int, metavar="PX", help="repeat for several (default: 256, 512)"
    )
    table6.add_argument(
        "--plans",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="",
        help="compile our graphs with TensorRT on this machine and measure those (default: the CPU's engines)",
    )
    table6.add_argument("--baselines", action="store_true", help="PaDiM and SPADE as well")
    table6.add_argument(
        "--forms",
        action="store_true",
        help="our other forms: matrix products, a camera's frames, and of plans one stream and no CUDA graph",
    )
    table6.add_argument(
        "--torch-python", type=Path, metavar="FILE", help="the Python that has torch (default: this one, if it has it)"
    )
    table6.add_argument(
        "--models",
        type=Path,
        default=Path("report_models"),
        metavar="DIR",
        help="where they are made and kept (%(default)s)",
    )
    parser.add_argument(
        "--precision", action="append", choices=PRECISIONS, help="beside fp32; repeat for several (bf16: OpenVINO)"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what runs an .onnx (default: as runtime.infer)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, metavar="S", help="for each encoder and size (%(default)g)"
    )
    parser.add_argument("--runs", type=int, default=defaults.rounds, metavar="N", help="most rounds (%(default)s)")
    parser.add_argument(
        "--batch", action="append", type=int, metavar="N", help="sweep these batches (Table 6: 1, 2, 4, ... 32)"
    )
    parser.add_argument("--no-sweeps", action="store_true", help="no other batch, no other number of threads")
    parser.add_argument(
        "--profile", action="store_true", help="time by layer, too: encoder stage, decoder block, upsampling"
    )
    parser.add_argument(
        "--accuracy",
        action="append",
        type=Path,
        metavar="JSON",
        help="of export.verify, for the engines that are named",
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what changed since, and how surely")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="what to print (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write report.json, .txt, .md and pictures here")
    parser.add_argument(
        "--show", type=Path, metavar="OLD.json", help="measure nothing: print or write that report again"
    )
    return parser


def _options(arguments: argparse.Namespace, words: Sequence[str]) -> MeasureOptions:
    is_table6 = arguments.table6 or not arguments.engines
    batches = () if arguments.no_sweeps else tuple(arguments.batch or (BATCHES if is_table6 else ()))
    return MeasureOptions(
        seconds=arguments.seconds,
        rounds=arguments.runs,
        threads=arguments.threads,
        backend=arguments.backend,
        precisions=tuple(dict.fromkeys(("fp32", *(arguments.precision or ())))),
        batches=batches,
        sweep_threads=is_table6 and not arguments.no_sweeps and arguments.threads is None,
        profile=arguments.profile,
        accuracy=tuple(arguments.accuracy or ()),
        torch_python=arguments.torch_python,
        command=shlex.join(["python", "-m", "runtime.report", *words]),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the report, and write it where `--output` says."""
    arguments = _parser().parse_args(argv)
    old = read_report(arguments.compare) if arguments.compare else None  # a wrong file ends it before the measuring
    if arguments.show:
        report = read_report(arguments.show)
    else:
        options = _options(arguments, sys.argv[1:] if argv is None else argv)
        report = make_report(models_of(arguments), options, say)
    print(FORMATS[arguments.format](report), end="")
    if old is not None:
        print(f"\n{compare.to_text(compare.compare(old, report), old, report)}", end="")
    if arguments.output:
        for path in write_report(report, arguments.output):
            say(f"wrote {path}")


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
