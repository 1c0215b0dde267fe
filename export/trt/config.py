"""The builder's configuration: flags, limits, targets, streams, optimisation profile and timing cache."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.trt import compat
from export.trt.compat import Backend
from export.trt.options import BuildOptions
from export.trt.precision import layers_of
from runtime.common.errors import UserError
from runtime.common.files import write_bytes
from runtime.engines.sidecar import INPUT_NAME
from runtime.engines.trt.log import library_log

MIB = 1 << 20
COUPLING_BLOCK = re.compile(r"(.+?)/block\d+/")  # of a node's name: the tap that the decoder belongs to


def configure(
    builder: Any, network: Any, options: BuildOptions, targets: tuple[str, ...], types: set[str], backend: Backend
) -> Any:
    """Return a builder configuration with everything that `options` ask for.

    `types` are the tensor types of the ONNX, where the library must be told. Raises `UserError` for a graph whose
    input is not the contract's.
    """
    module = backend.module
    config = builder.create_builder_config()
    for name in compat.builder_flag_names(module, types, options):
        config.set_flag(getattr(module.BuilderFlag, name))
    config.clear_flag(module.BuilderFlag.TF32)  # on by default, and 10 bits of mantissa are not FP32
    if not compat.has_target_choice(module):
        config.set_tactic_sources(compat.usable_tactic_sources(module, config.get_tactic_sources()))
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    streams = options.aux_streams if options.aux_streams is not None else default_aux_streams(network)
    if streams is not None and compat.has_aux_streams(module):
        config.max_aux_streams = streams
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or the inspector shows no types
    if compat.has_target_choice(module):
        members = compat.target_names(module)
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(module.ComputeCapability, members[target]), index)
    _add_profile(builder, network, config, options.max_batch)
    return config


def default_aux_streams(network: Any) -> int | None:
    """Return one fewer than the decoders that a network has, None where it names no coupling block."""
    decoders = {match[1] for layer in layers_of(network) if (match := COUPLING_BLOCK.match(layer.name))}
    return len(decoders) - 1 if decoders else None


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


@contextmanager
def keep_timing_cache(config: Any, path: Path | None, backend: Backend) -> Iterator[None]:
    """Let the build inside use the timing cache at `path` and write what it learnt, where the library times kernels."""
    if path is not None and not compat.times_kernels(backend.module):
        print(f"note: {backend.library} times kernels on the device, not here; no timing cache", file=sys.stderr)
        path = None
    if path is not None:
        attach_timing_cache(config, path, library_log(backend.module))
    yield
    if path is not None:
        cache = config.get_timing_cache()
        write_bytes(path, bytes(cache.serialize()))


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
