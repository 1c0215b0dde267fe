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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import onnx

from export.bench.cpu_peak import FLOPS, SIDE, product
from export.bench.detector import FORM_PRECISIONS, detector_entries
from export.bench.rivals import anomalib_entry, anomalib_models, baseline_entry
from export.graph.flops import weight_bytes
from export.model.encoder import ENCODERS
from runtime.common.errors import UserError, run_command
from runtime.report.models import OPERANDS, ModelEntry, ModelFile, ModelList, read_list, write_list
from runtime.report.paper_table import PAPER_NAMES
from runtime.report.schema import Work

WEIGHTS = "seeded random"
SIDES = (256, 512)
STRIDE = 32  # of the coarsest tap
BASELINE_SIDE = 256  # the only one at which the paper has them, and anomalib's own: at 512 it unrolls 28,000 nodes
BASELINES = (("padim", "resnet18"), ("padim", "wide_resnet50_2"), ("spade", "wide_resnet50_2"))  # of Table 6

Say = Callable[[str], None]
Step = Callable[[], list[ModelEntry]]


@dataclass(frozen=True)
class Wanted:
    """What to prepare: detectors of `encoders` at `sides` (pixels) in `precisions`, also in the kit's other forms,
    baselines, anomalib's models.
    """

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


def prepare(folder: Path, wanted: Wanted, say: Say = print) -> ModelList:
    """Make what `folder` lacks of `wanted` and return its list; what cannot be made here is said and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    models = replace(_present(folder), limits=tuple(_products(folder)))
    have = {_identity(entry) for entry in models.entries}
    left_out: list[str] = []
    for title, step in _steps(folder, wanted, have):
        say(f"preparing {title}")
        try:
            made = step()
        except UserError as error:
            say(f"left out {title}: {error}")
            left_out.append(f"{title}: {error}")
            continue
        kept = [entry for entry in models.entries if _identity(entry) not in {_identity(new) for new in made}]
        models = replace(models, entries=(*kept, *made))
        write_list(folder, models)  # after every step: what was made is not lost with what comes next
    models = replace(models, left_out=tuple(left_out))
    write_list(folder, models)
    return models


def _present(folder: Path) -> ModelList:
    try:
        models = read_list(folder)
    except UserError:  # none yet, or of an earlier version: it is made anew
        return ModelList(WEIGHTS)
    whole = [entry for entry in models.entries if all(file.path.is_file() for file in entry.files)]
    return replace(models, entries=tuple(whole))


def _identity(entry: ModelEntry) -> tuple[str, str, tuple[int, int], str]:
    return entry.kind, entry.encoder, entry.input_size, entry.precision


def _steps(
    folder: Path, wanted: Wanted, have: set[tuple[str, str, tuple[int, int], str]]
) -> Iterator[tuple[str, Step]]:
    """Yield what is to be done, each with its title."""
    for encoder in wanted.encoders:
        for side in wanted.sides:
            size = (side, side)
            kinds = {("cflow", precision) for precision in wanted.precisions}
            if wanted.forms:
                kinds |= {("gemm", precision) for precision in wanted.precisions if precision in FORM_PRECISIONS}
            if any((kind, encoder, size, precision) not in have for kind, precision in kinds):
                title = f"{encoder} at {side}x{side} ({', '.join(wanted.precisions)})"
                yield title, partial(detector_entries, folder, encoder, size, wanted.precisions, wanted.forms)
            if wanted.anomalib and side == BASELINE_SIDE and find_spec("anomalib"):
                yield from _anomalib_steps(folder, encoder, size, have)
    for kind, encoder in BASELINES if wanted.baselines else ():
        size = (BASELINE_SIDE, BASELINE_SIDE)
        if encoder in wanted.encoders and (kind, encoder, size, "fp32") not in have:
            stem = folder / f"{kind}-{encoder}-{BASELINE_SIDE}"
            yield f"{kind} on {encoder}", partial(_one, baseline_entry, stem, kind, encoder, size)


def _anomalib_steps(
    folder: Path, encoder: str, size: tuple[int, int], have: set[tuple[str, str, tuple[int, int], str]]
) -> Iterator[tuple[str, Step]]:
    for kind, make in anomalib_models(encoder).items():
        if (kind, encoder, size, "fp32") not in have:
            stem = folder / f"{kind}-{encoder}-{size[0]}"
            yield (
                f"{kind} on {encoder} at {size[0]}x{size[1]}",
                partial(_one, anomalib_entry, stem, kind, encoder, size, make),
            )


def _one(make: Callable[..., ModelEntry], *arguments: object) -> list[ModelEntry]:
    return [make(*arguments)]


def _products(folder: Path) -> Iterator[ModelEntry]:
    """Write large products to measure the machine with, and yield what they are."""
    for precision, quantised in (("fp32", False), ("int8", True)):
        path = folder / f"product.{precision}.onnx"
        model = product(quantised)
        onnx.save(model, str(path))
        work = Work(FLOPS, weight_bytes(model), 8 * SIDE**2, OPERANDS[precision])
        file = ModelFile("graph", path, input_shape=(SIDE, SIDE))
        yield ModelEntry("product", "", (SIDE, SIDE), precision, path.stat().st_size, file, None, work)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    """Return what the command line asks for."""
    defaults = Wanted()
    return Wanted(
        tuple(arguments.encoder or defaults.encoders),
        tuple(arguments.size or defaults.sides),
        tuple(dict.fromkeys(("fp32", *(arguments.precision or ())))),
        arguments.baselines,
        arguments.anomalib,
        arguments.forms,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.bench.models", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the models go")
    parser.add_argument("--encoder", action="append", metavar="NAME", help="repeat for several (default: the paper's)")
    parser.add_argument(
        "--size", action="append", type=int, metavar="PX", help="repeat for several (default: 256, 512)"
    )
    parser.add_argument(
        "--precision", action="append", metavar="NAME", help="fp16 or int8, beside fp32; repeat for both"
    )
    parser.add_argument("--baselines", action="store_true", help="PaDiM and SPADE, too")
    parser.add_argument(
        "--anomalib", action="store_true", help="anomalib's Cflow and EfficientAD, where it is installed"
    )
    parser.add_argument("--forms", action="store_true", help="matrix products, and a camera's frames, too")
    arguments = parser.parse_args(argv)
    models = prepare(arguments.out, _wanted(arguments))
    print(f"{len(models.entries)} models ready")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
