"""How to build a plan, and which of the options exclude each other in every version."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.trt.precision import Precision
from runtime.common.errors import UserError

LEVELS = range(6)  # of builder_optimization_level


@dataclass(frozen=True)
class BuildOptions:
    """How to build a plan; `None` and empty leave a choice to the library.

    `max_batch` is in frames; `workspace_mib` bounds the builder's scratch memory; `timing_cache` is
    read and rewritten by a library that times kernels; `compute_capabilities` names the targets
    ("8.6") of a library that has a choice; `progress` draws a bar on stderr; `verbose` prints all that
    the library says.

    `aux_streams` is the most streams that may run beside the main one, 0 for none. `None` allows one
    fewer than there are decoders: no more chains than decoders ever run at the same time, and fewer are
    taken where the builder finds that they do not pay.

    `version_compatible` asks for a plan that later versions open too, `hardware_compatible` for one that
    other GPUs from Ampere on run. `strip_weights` leaves the weights out of the plan: they come from the
    ONNX when it is loaded. `refittable` keeps them in and lets them be replaced. `dla_core` puts the
    encoder on that deep-learning accelerator, what it cannot do on the GPU; the batch is then fixed.
    """

    precision: Precision = "fp32"
    max_batch: int = 1
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    optimization_level: int | None = None
    progress: bool = False
    verbose: bool = False
    aux_streams: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    refittable: bool = False
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise UserError("max_batch must be at least 1 frame", str(self.max_batch))
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UserError("workspace_mib must be at least 1 MiB", str(self.workspace_mib))
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise UserError(f"the optimisation level must be 0..{LEVELS[-1]}", str(self.optimization_level))
        if self.aux_streams is not None and self.aux_streams < 0:
            raise UserError("the number of auxiliary streams must be at least 0", str(self.aux_streams))
        if self.dla_core is not None and self.dla_core < 0:
            raise UserError("the DLA core must be at least 0", str(self.dla_core))
        self._check_combinations()

    @property
    def on_dla(self) -> bool:
        """Whether the encoder goes to a deep-learning accelerator."""
        return self.dla_core is not None

    @property
    def replaces_weights(self) -> bool:
        """Whether the plan's weights are set after it was built."""
        return self.strip_weights or self.refittable

    def _check_combinations(self) -> None:
        """Refuse what the library would refuse, after minutes or in silence."""
        refit = "--strip-weights" if self.strip_weights else "--refittable"
        exclusive = (
            (self.strip_weights and self.refittable, "--strip-weights is refittable in itself", "--refittable too"),
            # the runtime that such a plan carries refits nothing
            (
                self.version_compatible and self.replaces_weights,
                f"{refit} needs the full runtime",
                "--version-compatible",
            ),
            (self.on_dla and self.replaces_weights, f"{refit} needs the GPU: a DLA's weights cannot be set", "--dla"),
            (self.on_dla and self.hardware_compatible, "--dla needs the device itself", "--hardware-compatible"),
            (self.on_dla and self.precision == "fp32", "--dla needs --fp16: it does not compute in FP32", "--fp32"),
        )
        for both, expected, found in exclusive:
            if both:
                raise UserError(expected, found, "leave one of the two out")


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide where a plan opens and runs."""
    add = parser.add_argument
    add("--aux-streams", type=int, metavar="N", help="most streams beside the main one (default: decoders - 1)")
    add("--version-compatible", action="store_true", help="a plan that later TensorRT versions open too (tensorrt)")
    add("--hardware-compatible", action="store_true", help="a plan that GPUs from Ampere on run, no Jetson (tensorrt)")
    add("--strip-weights", action="store_true", help="a small plan that takes its weights from the ONNX at load")
    add("--refittable", action="store_true", help="a plan whose weights can be replaced without a build")
    add("--dla", type=int, metavar="CORE", help="the encoder on a Jetson's DLA, batch fixed (tensorrt, FP16)")


def plan_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_plan_arguments` has parsed as arguments of `BuildOptions`."""
    return {
        "aux_streams": arguments.aux_streams,
        "version_compatible": arguments.version_compatible,
        "hardware_compatible": arguments.hardware_compatible,
        "strip_weights": arguments.strip_weights,
        "refittable": arguments.refittable,
        "dla_core": arguments.dla,
    }
