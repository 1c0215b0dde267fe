"""An ONNX of the engine contract to a TensorRT plan, with the precision that the graph carries asserted on the way."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx.inliner

from export import tensorrt_compat as compat
from export.onnx_files import load_model
from export.tensorrt_compat import Backend
from export.tensorrt_precision import (
    Precision,
    check_engine_layers,
    check_precision,
    constrain_layers,
    count_engine_layers,
    count_weighted_layers,
    onnx_tensor_types,
)
from export.tensorrt_progress import interrupt_flag, progress_monitor
from runtime.cuda import compute_capability, device_problem
from runtime.errors import UserError
from runtime.files import write_bytes
from runtime.metadata import INPUT_NAME
from runtime.tensorrt_log import NOT_A_REASON, library_log

MIB = 1 << 20
LEVELS = range(6)  # of builder_optimization_level


@dataclass(frozen=True)
class BuildOptions:
    """How to build a plan; `None` and empty leave a choice to the library.

    `max_batch` is in frames; `workspace_mib` bounds the builder's scratch memory; `timing_cache` is
    read and rewritten by a library that times kernels; `compute_capabilities` names the targets
    ("8.6") of a library that has a choice; `progress` draws a bar on stderr; `verbose` prints all that
    the library says.
    """

    precision: Precision = "fp32"
    max_batch: int = 1
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int | None = None
    progress: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise UserError("max_batch must be at least 1 frame", str(self.max_batch))
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UserError("workspace_mib must be at least 1 MiB", str(self.workspace_mib))
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise UserError(f"the optimisation level must be 0..{LEVELS[-1]}", str(self.optimization_level))


@dataclass(frozen=True)
class Plan:
    """A serialised engine, what can open it, and counted facts about its layers.

    `compute_capability` lists the GPUs that it runs on ("8.6+8.9"), as the sidecar records it.
    """

    data: bytes = field(repr=False)
    library: str
    version: str
    compute_capability: str
    layers: dict[str, int]


def build_plan(onnx_path: Path, options: BuildOptions, backend: Backend) -> Plan:
    """Compile the ONNX at `onnx_path`.

    Raises `UserError` for a graph that the library refuses, one of another precision than
    `options.precision`, or a target that cannot be built here; `KeyboardInterrupt` on Ctrl-C.
    """
    targets = compat.choose_targets(backend, options.compute_capabilities)
    log = library_log(backend.module)
    log.verbose = options.verbose
    builder = backend.module.Builder(log)
    network = builder.create_network(compat.network_flags(backend.module))
    parser = backend.module.OnnxParser(network, log)  # owns the weights, so it lives as long as the build
    types = parse_onnx(parser, network, onnx_path, backend)
    layers = count_weighted_layers(network, compat.is_strongly_typed(backend.module))
    check_precision(layers, options.precision, onnx_path.name)
    config = _configure(builder, network, options, targets, set(types.values()), backend)
    timing_cache = options.timing_cache if compat.times_kernels(backend.module) else None
    if timing_cache != options.timing_cache:
        print(f"note: {backend.library} times kernels on the device, not here; no timing cache", file=sys.stderr)
    if timing_cache is not None:
        attach_timing_cache(config, timing_cache, log)
    data = _compile(builder, network, config, options, backend, onnx_path)
    if timing_cache is not None:
        write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()))
    if device_problem() is None and compute_capability() in targets:
        engine_layers = _inspect(data, options.max_batch, backend)
        check_engine_layers(engine_layers, options.precision, onnx_path.name)
        layers = layers | engine_layers
    return Plan(data, backend.library, backend.version, "+".join(targets), layers)


def parse_onnx(parser: Any, network: Any, path: Path, backend: Backend) -> dict[str, str]:
    """Parse the file into `network`; where the library has to be told the tensors' types, tell and return them.

    Raises `UserError` with the first node that the parser refuses.
    """
    if not path.is_file():
        raise UserError(f"an ONNX file must stand at {path}", "no such file", "export it with export.to_onnx")
    types: dict[str, str] = {}
    if compat.is_strongly_typed(backend.module):
        parsed = parser.parse_from_file(str(path))
    else:
        model = load_model(path)
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


def _configure(
    builder: Any, network: Any, options: BuildOptions, targets: tuple[str, ...], types: set[str], backend: Backend
) -> Any:
    module = backend.module
    config = builder.create_builder_config()
    for name in compat.builder_flag_names(module, types):
        config.set_flag(getattr(module.BuilderFlag, name))
    config.clear_flag(module.BuilderFlag.TF32)  # on by default, and 10 bits of mantissa are not FP32
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or the inspector shows no types
    if compat.has_target_choice(module):
        members = compat.target_names(module)
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(module.ComputeCapability, members[target]), index)
    _add_profile(builder, network, config, options.max_batch)
    return config


def _add_profile(builder: Any, network: Any, config: Any, max_batch: int) -> None:
    """Let the batch be 1..max_batch, tuned for max_batch; a graph of fixed batch must have that one."""
    frames = network.get_input(0)
    batch, *frame = tuple(frames.shape)
    if frames.name != INPUT_NAME or len(frame) != 3:
        raise UserError(
            f"the graph's input must be {INPUT_NAME} [B, H, W, 3]",
            f"{frames.name} {[batch, *frame]}",
            "export it with export.to_onnx",
        )
    if batch == max_batch:
        return
    if batch != -1:
        raise UserError(f"the graph takes batches of {batch}", f"max_batch {max_batch}", "ask for that batch")
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, (1, *frame), (max_batch, *frame), (max_batch, *frame))
    config.add_optimization_profile(profile)


def attach_timing_cache(config: Any, path: Path, log: Any) -> None:
    """Reuse the tactics timed by earlier builds; a cache of another library or GPU is ignored with a note."""
    data = path.read_bytes() if path.is_file() else b""
    log.clear()
    cache = config.create_timing_cache(data)
    accepted = cache is not None and config.set_timing_cache(cache, False)
    if accepted and not any("timing cache" in text for _, text in log.entries):
        return
    print(f"note: {path} is of another library or GPU; starting a new timing cache", file=sys.stderr)
    if not accepted:
        config.set_timing_cache(config.create_timing_cache(b""), False)


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
            raise KeyboardInterrupt
    if memory is None:
        raise UserError(
            f"{backend.library} {backend.version} must build {path.name} as {options.precision}",
            log.reason(),
            "choose other targets (--help) or another precision",
        )
    return bytes(memory)


def _inspect(data: bytes, batch: int, backend: Backend) -> dict[str, int]:
    """Count the layers of the engine as the device's own compiler left them."""
    module = backend.module
    engine = module.Runtime(library_log(module)).deserialize_cuda_engine(data)
    if engine is None:
        raise UserError("the plan must open on this device", library_log(module).reason(), "update the driver")
    context = engine.create_execution_context()
    context.set_input_shape(INPUT_NAME, (batch, *tuple(engine.get_tensor_shape(INPUT_NAME))[1:]))
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context  # without it a dynamic batch hides the types
    return count_engine_layers(inspector.get_engine_information(module.LayerInformationFormat.JSON))
