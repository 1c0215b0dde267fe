"""The report's models as TensorRT plans: python -m export.bench.plans DIR [--library tensorrt].

Every graph of ours that `export.bench.models` made in DIR is compiled on this machine into DIR/plans, beside plans of
large products for the GPU's limits. It needs TensorRT and no torch. A plan that stands there already, of the same
graph and library, is kept: what was interrupted goes on where it ended.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from export.bench.products import CHANNELS, SIDE, product_flops, product_of_frames
from export.graph.flops import weight_bytes
from export.graph.onnx_files import load_model, save_model
from export.trt.build import build_plan
from export.trt.compat import Backend, choose_targets, find_backend, has_aux_streams
from export.trt.options import BuildOptions
from export.trt.precision import Precision
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_bytes, write_text
from runtime.engines.sidecar import Sidecar, Threshold, read_sidecar, write_sidecar
from runtime.engines.trt.log import library_log, make
from runtime.report import models as report
from runtime.report.models import FORM_KINDS, OPERANDS, PLANS_FOLDER, ModelEntry, ModelFile, ModelList
from runtime.report.schema import Work

LARGEST_BATCH = 32  # of the plan that batches are swept with; the others are tuned for one frame
PRODUCT = "product"
TIMING_CACHE = "timing.cache"  # most layers of the plans of one encoder are the same

PRODUCTS_SIDECAR = Sidecar(
    name="products",
    input_size=(SIDE, SIDE),
    batch=1,
    encoder="none",
    encoder_weights="none",
    taps=(),
    clamp="none",
    default_threshold="none",
    thresholds={"none": Threshold(0.0, "none")},
)


@dataclass(frozen=True)
class Compiler:
    """Compiles graphs into `folder` with `backend`; `forms` adds the forms that are a matter of building or running.

    `build` is what all plans have in common.
    """

    folder: Path
    backend: Backend
    say: Callable[[str], None]
    forms: bool = False
    build: BuildOptions = field(default_factory=BuildOptions)

    def plan(self, onnx: Path, sidecar: Sidecar, precision: str, name: str, **options: Any) -> Path:
        """Return the plan `name` of a graph, built where it does not stand yet, beside it the table of its layers.

        Raises `UserError` for a graph that the library refuses, or builds in another precision.
        """
        path = self.folder / f"{name}.plan"
        if self._stands(path, onnx):
            return path
        self.say(f"building {path.name}")
        cache = None if self.backend.builds_without_device else self.folder / TIMING_CACHE
        build = replace(self.build, precision=cast(Precision, precision), timing_cache=cache, **options)
        plan = build_plan(onnx, build, self.backend)
        write_text(path.with_suffix(".txt"), plan.table() + "\n")
        write_bytes(path, plan.data)
        write_sidecar(path, replace(sidecar, name=path.stem, batch=build.max_batch, artefacts=(plan.artefact,)))
        return path

    def file(self, file: ModelFile, entry: ModelEntry, suffix: str = "", **options: Any) -> ModelFile:
        """Return one of an entry's graphs as a plan, whose sidecar is no other file's: "resnet18-256-network-fp16"."""
        parts = [part for part in file.path.name.removesuffix(".onnx").split(".") if part != entry.precision]
        name = "-".join(filter(None, [*parts, entry.precision, suffix]))
        sidecar = read_sidecar(file.path.with_name(f"{parts[0]}.onnx"))  # a part's is its detector's
        return replace(file, path=self.plan(file.path, sidecar, entry.precision, name, **options))

    def _stands(self, path: Path, onnx: Path) -> bool:
        try:
            artefact = read_sidecar(path).artefact_of(path)
            newer = path.stat().st_mtime >= onnx.stat().st_mtime
        except (OSError, UserError):  # none, or half of it: built anew
            return False
        built = artefact.library, artefact.version, artefact.compute_capability
        targets = "+".join(choose_targets(self.backend, self.build.compute_capabilities))
        return newer and built == (self.backend.library, self.backend.version, targets)


def compile_models(
    models: ModelList, compiler: Compiler, wants: Callable[[ModelEntry], bool] = lambda _: True
) -> ModelList:
    """Compile what `wants` chooses of a folder's models and return the list with the plans in the graphs' place.

    It is written into the plans' folder after every step: what was built is not lost with what comes next. What the
    library refuses is said and left out. Raises `UserError` where nothing is chosen.
    """
    compiler.folder.mkdir(parents=True, exist_ok=True)
    chosen = [entry for entry in models.entries if wants(entry)]
    if not chosen:
        known = sorted({f"{entry.encoder} {entry.input_size[0]} {entry.precision}" for entry in models.entries})
        raise UserError("what is asked for must be among the models", f"only {', '.join(known)}", "make it first")
    compiled, found = ModelList(models.weights, left_out=models.left_out), list[ModelEntry]()
    for title, step in _steps(chosen, compiler):
        try:
            found.append(step())
        except UserError as error:
            compiler.say(f"left out {title}: {error}")
            compiled = replace(compiled, left_out=(*compiled.left_out, f"{title}: {error}"))
        entries, limits = (tuple(e for e in found if (e.kind == PRODUCT) == is_limit) for is_limit in (False, True))
        compiled = replace(compiled, entries=entries, limits=limits)
        report.write_list(compiler.folder, compiled)
    return report.read_list(compiler.folder)


def _steps(entries: Sequence[ModelEntry], compiler: Compiler) -> Iterator[tuple[str, Callable[[], ModelEntry]]]:
    """Yield what is to be compiled, each with its title."""
    for precision in dict.fromkeys(entry.precision for entry in entries if entry.precision in OPERANDS):
        yield f"products in {precision}", partial(_products, precision, compiler)
    for entry in entries:
        height, width = entry.input_size
        title = f"{entry.label} {height}x{width} {entry.precision}"
        yield title, partial(plan_entry, entry, compiler)
        if entry.kind == "cflow" and compiler.forms:
            yield f"{title} without a CUDA graph", partial(_form, "launches", entry, compiler)
            if has_aux_streams(compiler.backend.module):
                yield f"{title} in one stream", partial(_form, "one-stream", entry, compiler)


def _products(precision: str, compiler: Compiler) -> ModelEntry:
    """Compile large products of one precision, to learn a GPU's limit with."""
    onnx = compiler.folder / f"products.{precision}.onnx"
    if not onnx.is_file():
        save_model(product_of_frames(precision), onnx)
    path = compiler.plan(onnx, PRODUCTS_SIDECAR, precision, f"products-{precision}")
    work = Work(product_flops(), weight_bytes(load_model(onnx)), 3 * SIDE**2, OPERANDS[precision])
    file = ModelFile("graph", path)
    return ModelEntry(PRODUCT, "", (SIDE, CHANNELS), precision, path.stat().st_size, network=file, work=work)


def plan_entry(entry: ModelEntry, compiler: Compiler) -> ModelEntry:
    """Compile an entry's graphs and return it with the plans in their place; a module of torch stays as it is.

    Raises `UserError` as `Compiler.plan` does, and for a graph that TensorRT is not asked to compile: beside plans on
    a GPU, its time on the CPU would compare the machines.
    """
    if any(file.runner == "torch" for file in entry.files):
        return entry
    if any(file.input_shape is not None for file in entry.files):
        raise UserError("a graph that is compiled must take frames", "one of images", "measure it without --plans")
    network, verdict = (file and compiler.file(file, entry) for file in (entry.network, entry.verdict))
    if entry.kind == "encoder":
        verdict = network  # whose whole way is from the host's memory to the device's
    swept = None
    if entry.kind == "cflow" and entry.verdict is not None:
        swept = compiler.file(entry.verdict, entry, f"batch{LARGEST_BATCH}", max_batch=LARGEST_BATCH)
    return _sized(replace(entry, network=network, verdict=verdict, swept=swept))


def _form(kind: str, entry: ModelEntry, compiler: Compiler) -> ModelEntry:
    """Return a detector's engine, its kernels launched one by one ("launches") or built without auxiliary streams."""
    assert entry.verdict is not None
    if kind == "launches":
        file = replace(compiler.file(entry.verdict, entry), cuda_graph=False)
    else:
        file = compiler.file(entry.verdict, entry, kind, aux_streams=0)
    return _sized(replace(entry, kind=kind, network=None, verdict=file, work=None))


def _sized(entry: ModelEntry) -> ModelEntry:
    file = entry.verdict or entry.files[0]
    return replace(entry, size_bytes=file.path.stat().st_size)


def main(argv: Sequence[str] | None = None) -> None:
    """Compile from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.bench.plans", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="where export.bench.models put its models")
    add("--library", choices=("auto", "tensorrt", "tensorrt_rtx"), default="auto", help="default: %(default)s")
    add("--encoder", action="append", metavar="NAME", help="repeat for several (default: all that are there)")
    add("--size", action="append", type=int, metavar="PX", help="repeat for several (default: all that are there)")
    add("--precision", action="append", metavar="NAME", help="beside fp32; repeat for both (default: all)")
    add("--forms", action="store_true", help="also without a CUDA graph, without auxiliary streams, and what is there")
    add("--target", action="append", default=[], metavar="CC", help="compute capability, e.g. 8.9 (tensorrt_rtx)")
    add("--optimization-level", type=int, metavar="0..5", help="how long the builder searches")
    add("--check", action="store_true", help="only say whether plans can be built here")
    arguments = parser.parse_args(argv)

    def wants(entry: ModelEntry) -> bool:
        return (
            (not arguments.encoder or entry.encoder in arguments.encoder)
            and (not arguments.size or entry.input_size[0] in arguments.size)
            and (not arguments.precision or entry.precision in ("fp32", *arguments.precision))
            and (arguments.forms or entry.kind not in FORM_KINDS)
        )

    backend = find_backend(arguments.library)
    if arguments.check:
        make(backend.module.Builder, library_log(backend.module), f"{backend.library} {backend.version}")
        return
    models = report.read_list(arguments.folder)
    build = BuildOptions(compute_capabilities=tuple(arguments.target), optimization_level=arguments.optimization_level)
    say = partial(print, flush=True)
    compiler = Compiler(arguments.folder / PLANS_FOLDER, backend, say, arguments.forms, build)
    compiled = compile_models(models, compiler, wants)
    print(f"{len(compiled.entries)} models ready")


if __name__ == "__main__":
    sys.exit(run_command(main))
