"""The models that `runtime.report` measures for the paper's Table 6: python -m export.bench.models --out DIR.

Encoders, detectors and baselines with seeded random weights: what a graph computes takes the same time whatever its
weights. What stands in DIR already is kept, so that a second call only makes what is missing. Of each detector:

    encoder only     the fused graph up to its taps
    CFLOW-AD         the fused graph whole, and up to the taps' likelihoods, where the paper's clock stops
    unfused, eager   the same model as torch exports it, and as torch runs it
    other forms      its decoders as matrix products, and a camera's frames resized in the graph

`export.bench.plans` compiles them with TensorRT.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import onnx

from export.bench.detector import FLOAT_BYTES, FORM_PRECISIONS, detector_entries
from export.bench.products import CPU_SIDE, matrix_product
from export.bench.rivals import ANOMALIB_KINDS, anomalib_entry, baseline_entry
from export.graph.flops import weight_bytes
from export.model.encoder import ENCODERS
from runtime.common.argument_types import output_folder
from runtime.common.errors import UserError, run_command
from runtime.report.models import OPERANDS, ModelEntry, ModelFile, ModelList, read_list, write_list
from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Work

WEIGHTS = "seeded random"
SIDES = (256, 512)
STRIDE = 32  # of the coarsest tap
BASELINE_SIDE = 256  # the only one at which the paper has them, and anomalib's own: at 512 it unrolls 28,000 nodes
BASELINES = (("padim", "resnet18"), ("padim", "wide_resnet50_2"), ("spade", "wide_resnet50_2"))  # of Table 6

Identity = tuple[str, str, int, str]  # kind, encoder, side, precision


@dataclass(frozen=True)
class Wanted:
    """Which detectors (at `sides` in pixels), and whether also their other forms, the baselines, anomalib's models."""

    encoders: tuple[str, ...] = tuple(PAPER_NAMES)
    sides: tuple[int, ...] = SIDES
    precisions: tuple[str, ...] = ("fp32",)
    baselines: bool = False
    anomalib: bool = False
    forms: bool = False

    def __post_init__(self) -> None:
        """Raise `UserError` for what cannot be prepared."""
        for what, names, known in (
            ("encoder", self.encoders, tuple(ENCODERS)),
            ("precision", self.precisions, tuple(OPERANDS)),
        ):
            if unknown := [name for name in names if name not in known]:
                raise UserError(f"each {what} must be one of {', '.join(known)}", ", ".join(unknown))
        if wrong := [side for side in self.sides if side < STRIDE or side % STRIDE]:
            raise UserError(f"each side must be a multiple of {STRIDE} pixels", ", ".join(map(str, wrong)))


@dataclass(frozen=True)
class _Step:
    """Something to make: `entries` does it, and it can be left out where all that it `makes` is there."""

    title: str
    makes: set[Identity]
    entries: Callable[[], Iterable[ModelEntry]]


def prepare(folder: Path, wanted: Wanted, say: Callable[[str], None] = print) -> ModelList:
    """Make what `folder` lacks of `wanted` and return its list; what cannot be made here is said and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    models = replace(_present(folder), limits=tuple(_products(folder)), left_out=())
    have = {_identity(entry) for entry in models.entries}
    for step in _steps(folder, wanted):
        if step.makes <= have:
            continue
        say(f"preparing {step.title}")
        try:
            made = tuple(step.entries())
        except UserError as error:
            say(f"left out {step.title}: {error}")
            models = replace(models, left_out=(*models.left_out, f"{step.title}: {error}"))
            continue
        replaced = {_identity(entry) for entry in made}
        kept = (entry for entry in models.entries if _identity(entry) not in replaced)
        models = replace(models, entries=(*kept, *made))
        write_list(folder, models)  # after every step: what was made is not lost with what comes next
    write_list(folder, models)
    return models


def _present(folder: Path) -> ModelList:
    try:
        models = read_list(folder)
    except UserError:  # none yet, or of an earlier version: it is made anew
        return ModelList(WEIGHTS)
    whole = [entry for entry in models.entries if all(file.path.is_file() for file in entry.files)]
    return replace(models, entries=tuple(whole))


def _identity(entry: ModelEntry) -> Identity:
    return entry.kind, entry.encoder, entry.input_size[0], entry.precision


def _steps(folder: Path, wanted: Wanted) -> Iterator[_Step]:
    """Yield what is wanted, there or not."""
    for encoder in wanted.encoders:
        for side in wanted.sides:
            yield _detector(folder, encoder, side, wanted)
            if wanted.anomalib and side == BASELINE_SIDE and find_spec("anomalib"):
                for kind in ANOMALIB_KINDS:
                    yield _rival(folder, kind, encoder, anomalib_entry)
    for kind, encoder in BASELINES if wanted.baselines else ():
        if encoder in wanted.encoders:
            yield _rival(folder, kind, encoder, baseline_entry)


def _detector(folder: Path, encoder: str, side: int, wanted: Wanted) -> _Step:
    makes = {("cflow", encoder, side, precision) for precision in wanted.precisions}
    if wanted.forms:
        makes |= {("gemm", encoder, side, name) for name in wanted.precisions if name in FORM_PRECISIONS}
    title = f"{encoder} at {side}x{side} ({', '.join(wanted.precisions)})"
    return _Step(
        title, makes, partial(detector_entries, folder, encoder, (side, side), wanted.precisions, wanted.forms)
    )


def _rival(folder: Path, kind: str, encoder: str, entries: Callable[..., Iterable[ModelEntry]]) -> _Step:
    stem = folder / f"{kind}-{encoder}-{BASELINE_SIDE}"
    make = partial(entries, stem, kind, encoder, (BASELINE_SIDE, BASELINE_SIDE))
    return _Step(f"{kind} on {encoder}", {(kind, encoder, BASELINE_SIDE, "fp32")}, make)


def _products(folder: Path) -> Iterator[ModelEntry]:
    """Write large products to measure the machine with, and yield what they are."""
    sides = (CPU_SIDE, CPU_SIDE)
    for precision in ("fp32", "int8"):
        path, model = folder / f"product.{precision}.onnx", matrix_product(precision)
        onnx.save(model, str(path))
        work = Work(2 * CPU_SIDE**3, weight_bytes(model), 2 * FLOAT_BYTES * CPU_SIDE**2, OPERANDS[precision])
        file = ModelFile("graph", path, input_shape=sides)
        yield ModelEntry("product", "", sides, precision, path.stat().st_size, network=file, work=work)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.bench.models", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", type=output_folder, required=True, metavar="DIR", help="where the models go")
    add("--encoder", action="append", metavar="NAME", help="repeat for several (default: the paper's)")
    add("--size", action="append", type=int, metavar="PX", help="repeat for several (default: 256, 512)")
    add("--precision", action="append", default=[], metavar="NAME", help="fp16 or int8, beside fp32; repeat for both")
    add("--baselines", action="store_true", help="PaDiM and SPADE, too")
    add("--anomalib", action="store_true", help="anomalib's Cflow and EfficientAD, where it is installed")
    add("--forms", action="store_true", help="matrix products, and a camera's frames, too")
    arguments = parser.parse_args(argv)
    wanted = Wanted(
        tuple(arguments.encoder or PAPER_NAMES),
        tuple(arguments.size or SIDES),
        tuple(dict.fromkeys(("fp32", *arguments.precision))),
        baselines=arguments.baselines,
        anomalib=arguments.anomalib,
        forms=arguments.forms,
    )
    print(f"{len(prepare(arguments.out, wanted).entries)} models ready")


if __name__ == "__main__":
    sys.exit(run_command(main))
