"""An ONNX of the engine contract to a TensorRT plan, with the precision that the graph carries asserted on the way."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx.inliner

from export.graph.onnx_files import load_model
from export.graph.tiled_front import with_floats_cut
from export.trt import compat
from export.trt.compat import Backend
from export.trt.config import configure, keep_timing_cache
from export.trt.dla import fix_batch, put_encoder_on_dla
from export.trt.inspect import LayerRow, check_engine, engine_rows, format_table, network_rows
from export.trt.options import BuildOptions
from export.trt.precision import check_precision, constrain_layers, count_weighted_layers, onnx_tensor_types
from export.trt.progress import interrupt_flag, progress_monitor
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.common.interrupts import interruption
from runtime.engines.sidecar import INPUT_NAME, Artefact
from runtime.engines.trt.cuda import compute_capability, device_problem
from runtime.engines.trt.log import NOT_A_REASON, library_log, make
from runtime.engines.trt.plan import create_runtime, refit


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine, what can open it, and counted facts about its layers.

    `artefact` is its entry for the sidecar, whose `compute_capability` lists the GPUs that it runs on ("8.6+8.9").
    `layers` counts the weighted layers of the network by type, `network` and `engine` are the tables of both;
    `engine` is empty where no device here opens it. `on_dla` layers of the encoder are on a DLA.
    """

    data: bytes = field(repr=False)
    artefact: Artefact
    layers: dict[str, int]
    network: tuple[LayerRow, ...]
    engine: tuple[LayerRow, ...] = ()
    on_dla: int = 0

    def table(self) -> str:
        """Return what was built as lines of text: layers, precisions, bytes."""
        lines = [format_table(self.network, "network")]
        lines += [format_table(self.engine, "engine")] if self.engine else []
        lines += [f"layers of the encoder on the DLA: {self.on_dla}"] if self.on_dla else []
        return "\n".join([*lines, f"{'plan':<26}{'':<16}{len(self.data) / 1e6:>9.3f} MB"])


def build_plan(onnx_path: Path, options: BuildOptions, backend: Backend) -> BuiltPlan:
    """Compile the ONNX at `onnx_path`.

    Raises `UserError` for a graph that the library refuses, one of another precision than
    `options.precision`, a target that cannot be built here, or an option that the library lacks;
    `KeyboardInterrupt` on Ctrl-C and SIGTERM.
    """
    module = backend.module
    targets = compat.choose_targets(backend, options.compute_capabilities)
    compat.check_options(backend, options)
    log = library_log(module)
    log.verbose = options.verbose
    builder = make(module.Builder, log, f"{backend.library} {backend.version}")
    if options.dla_core is not None:
        compat.check_dla_core(builder, options.dla_core)
    network = builder.create_network(compat.network_flags(module, options.on_dla))
    parser = module.OnnxParser(network, log)  # owns the weights, so it lives as long as the build
    types = parse_onnx(parser, network, onnx_path, backend, options.on_dla)
    strongly_typed = compat.is_strongly_typed(module, options.on_dla)
    layers = count_weighted_layers(network, strongly_typed)
    check_precision(layers, options.precision, onnx_path.name)
    on_dla = 0
    if options.on_dla:
        fix_batch(network, options.max_batch)
    config = configure(builder, network, options, targets, set(types.values()), backend)
    if options.dla_core is not None:
        on_dla = put_encoder_on_dla(network, config, module, options.dla_core)
    with keep_timing_cache(config, options.timing_cache, backend):
        data = _compile(builder, network, config, options, backend, onnx_path)
    artefact = Artefact(
        "plan",
        options.precision,
        hashlib.sha256(data).hexdigest(),
        backend.library,
        backend.version,
        "+".join(targets),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        weights_sha256=sha256_of(onnx_path) if options.strip_weights else "",
        dla_core=options.dla_core,
    )
    plan = BuiltPlan(data, artefact, layers, network_rows(network, module, strongly_typed), (), on_dla)
    if device_problem() is not None or compute_capability() not in targets:
        return plan
    plan = replace(plan, engine=_inspect(plan, onnx_path, options.max_batch, backend))
    check_engine(plan.engine, options.precision, onnx_path.name)
    return plan


def parse_onnx(parser: Any, network: Any, path: Path, backend: Backend, on_dla: bool = False) -> dict[str, str]:
    """Parse the file into `network`; where the library has to be told the tensors' types, tell and return them.

    Raises `UserError` with the first node that the parser refuses.
    """
    if not path.is_file():
        raise UserError(f"an ONNX file must stand at {path}", "no such file", "export it with export.to_onnx")
    types: dict[str, str] = {}
    model = with_floats_cut(load_model(path))
    if compat.is_strongly_typed(backend.module, on_dla):
        parsed = parser.parse(model.SerializeToString(), str(path))
    else:
        if model.functions and not compat.has_local_functions(backend.module):
            model = onnx.inliner.inline_local_functions(model)
        types = onnx_tensor_types(model)
        parsed = parser.parse(model.SerializeToString(), str(path))
    if not parsed or network.num_inputs == 0:
        raise UserError(
            f"{path.name} must be an ONNX that {backend.library} {backend.version} takes",
            _parser_error(parser),
            "re-export it with export.to_onnx",
        )
    if types:
        constrain_layers(network, backend.module, types)
    return types


def _parser_error(parser: Any) -> str:
    """Return the first error as "node 2 'conv' (Conv): reason"; 8.6 tells a node's number only."""
    if not parser.num_errors:
        return "a graph without inputs"
    error = parser.get_error(0)
    reason = " ".join(line for line in error.desc().splitlines() if NOT_A_REASON not in line)
    if error.node() < 0:
        return reason
    where = f"node {error.node()}"
    if hasattr(error, "node_name"):
        where += f" '{error.node_name()}' ({error.node_operator()})"
    return f"{where}: {reason}"


def _compile(builder: Any, network: Any, config: Any, options: BuildOptions, backend: Backend, path: Path) -> bytes:
    log = library_log(backend.module)
    log.clear()
    if not compat.has_progress_monitor(backend.module):
        memory = builder.build_serialized_network(network, config)
    else:
        with interrupt_flag() as interrupted:
            config.progress_monitor = progress_monitor(backend.module, options.progress, interrupted)
            memory = builder.build_serialized_network(network, config)
        if interrupted.is_set():
            raise interruption(interrupted.number)
    if memory is None:
        raise UserError(
            f"{backend.library} {backend.version} must build {path.name} as {options.precision}",
            log.reason(),
            "choose other targets (--help) or another precision",
        )
    return bytes(memory)


def _inspect(plan: BuiltPlan, onnx_path: Path, batch: int, backend: Backend) -> tuple[LayerRow, ...]:
    """Return the table of the engine as the device's own compiler left it."""
    module = backend.module
    log = library_log(module)
    runtime = create_runtime(module, log, plan.artefact)
    engine = runtime.deserialize_cuda_engine(plan.data)
    if engine is None:
        raise UserError("the plan must open on this device", log.reason(), "update the driver")
    if plan.artefact.weights_sha256:
        refit(engine, module, log, onnx_path)
    context = engine.create_execution_context()
    context.set_input_shape(INPUT_NAME, (batch, *tuple(engine.get_tensor_shape(INPUT_NAME))[1:]))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context  # without it a dynamic batch hides the types
    return engine_rows(inspector.get_engine_information(module.LayerInformationFormat.JSON))
