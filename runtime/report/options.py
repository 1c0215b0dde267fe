"""What the command line of `python -m runtime.report` asks for."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.common.argument_types import output_folder
from runtime.common.errors import UserError
from runtime.common.program import program_name
from runtime.engines.backends import CPU_BACKENDS
from runtime.period.main import PERIODS
from runtime.report.rounds import MOST_ROUNDS
from runtime.report.tables import FORMATS
from runtime.report.worker import Subject

BATCHES = (1, 2, 4, 8, 16, 32)
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
BASE = Subject("", {}, (0, 0))  # to be filled in for each model
PLAN_LIBRARIES = ("auto", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class MeasureBudget:
    """How long to measure: about `seconds` for each encoder and size, at most `rounds` rounds."""

    seconds: float = 60.0
    rounds: int = MOST_ROUNDS


@dataclass(frozen=True)
class MeasureExtras:
    """What is measured beside the rows: other batches, other numbers of threads, layer by layer."""

    batches: tuple[int, ...] = ()
    sweep_threads: bool = False
    profile: bool = False


@dataclass(frozen=True)
class MeasureOptions:
    """How to measure.

    `base` has the threads (None: all cores) and the backend that run an `.onnx`; `accuracy` are files of
    `export.verify --json`, `torch_python` the interpreter that has torch where this one has not.
    """

    budget: MeasureBudget = MeasureBudget()
    extras: MeasureExtras = MeasureExtras()
    base: Subject = BASE
    precisions: tuple[str, ...] = ("fp32",)
    accuracy: tuple[Path, ...] = ()
    torch_python: Path | None = None
    command: str = "runtime.report"

    def __post_init__(self) -> None:
        """Raise `UserError` for numbers that measure nothing."""
        if not self.budget.seconds > 0:
            raise UserError("seconds must be above 0", str(self.budget.seconds))
        least_batch = min(self.extras.batches, default=1)
        for name, value in (("runs", self.budget.rounds), ("threads", self.base.threads), ("batch", least_batch)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more", str(value))


def options_of(arguments: argparse.Namespace, words: Sequence[str]) -> MeasureOptions:
    """Return the options that `arguments`, parsed from `words`, ask for. Raises `UserError` as they do."""
    is_table6 = arguments.table6 or not arguments.engines
    batches = tuple(arguments.batch or (BATCHES if is_table6 else ()))
    sweep_threads = is_table6 and not arguments.no_sweeps and arguments.threads is None
    return MeasureOptions(
        MeasureBudget(arguments.seconds, arguments.runs),
        MeasureExtras(() if arguments.no_sweeps else batches, sweep_threads, arguments.profile),
        replace(BASE, threads=arguments.threads, backend=arguments.backend),
        tuple(dict.fromkeys(("fp32", *(arguments.precision or ())))),
        tuple(arguments.accuracy or ()),
        arguments.torch_python,
        shlex.join(["python", "-m", "runtime.report", *words]),
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.report"),
        description="Measure the paper's Table 6 on this machine, or engines side by side.",
    )
    engines = ".onnx or .plan; ratios are to the first (default: Table 6)"
    parser.add_argument("engines", nargs="*", type=Path, metavar="ENGINE", help=engines)
    _add_table6(parser.add_argument_group("the paper's Table 6, with seeded random weights"))
    _add_measuring(parser.add_argument_group("how to measure"))
    output = parser.add_argument_group("what to print and write")
    output.add_argument("--compare", type=Path, metavar="OLD.json", help="say what changed since, and how surely")
    output.add_argument("--format", choices=tuple(FORMATS), default="text", help="what to print (default: %(default)s)")
    output.add_argument(
        "--output", type=output_folder, metavar="DIR", help="write report.json, .txt, .md and pictures here"
    )
    show = "measure nothing: print or write that report again"
    output.add_argument("--show", type=Path, metavar="OLD.json", help=show)
    periods = parser.add_argument_group("a report of the inspection log instead (with --help: its own options)")
    for name in PERIODS:  # `runtime.report.main` hands these over
        periods.add_argument(name, metavar=name.strip("-").upper(), help="what was judged, changed and checked then")
    return parser


def _add_table6(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--table6", action="store_true", help="its models, beside the engines that are named")
    group.add_argument("--encoder", action="append", metavar="NAME", help="repeat for several (default: the paper's)")
    group.add_argument("--size", action="append", type=int, metavar="PX", help="repeat for several (default: 256, 512)")
    plans = "compile our graphs with TensorRT on this machine and measure those (default: the CPU's engines)"
    group.add_argument("--plans", choices=PLAN_LIBRARIES, default="", help=plans)
    group.add_argument("--baselines", action="store_true", help="PaDiM and SPADE as well")
    forms = "our other forms: matrix products, a camera's frames, and of plans one stream and no CUDA graph"
    group.add_argument("--forms", action="store_true", help=forms)
    torch_python = "the Python that has torch (default: this one, if it has it)"
    group.add_argument("--torch-python", type=Path, metavar="FILE", help=torch_python)
    models = "where they are made, and found again (%(default)s)"
    group.add_argument("--models", type=Path, default=Path("report_models"), metavar="DIR", help=models)


def _add_measuring(group: argparse._ArgumentGroup) -> None:
    precision = "beside fp32; repeat for several (bf16: OpenVINO)"
    group.add_argument("--precision", action="append", choices=PRECISIONS, help=precision)
    backend = "what runs an .onnx (default: as runtime.infer)"
    group.add_argument("--backend", choices=CPU_BACKENDS, default="auto", help=backend)
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    seconds = "for each encoder and size (%(default)g)"
    group.add_argument("--seconds", type=float, default=MeasureBudget.seconds, metavar="S", help=seconds)
    group.add_argument("--runs", type=int, default=MeasureBudget.rounds, metavar="N", help="most rounds (%(default)s)")
    batch = "sweep these batches (Table 6: 1, 2, 4, ... 32)"
    group.add_argument("--batch", action="append", type=int, metavar="N", help=batch)
    group.add_argument("--no-sweeps", action="store_true", help="no other batch, no other number of threads")
    profile = "time by layer, too: encoder stage, decoder block, upsampling"
    group.add_argument("--profile", action="store_true", help=profile)
    accuracy = "of export.verify, for the engines that are named"
    group.add_argument("--accuracy", action="append", type=Path, metavar="JSON", help=accuracy)
