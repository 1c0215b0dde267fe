"""The encoder on a deep-learning accelerator of a Jetson, the rest on its GPU."""

from typing import Any

from export.trt.precision import layers_of
from runtime.common.errors import UserError

ENCODER = "encoder/"  # what the exporter's names of the encoder's nodes begin with


def put_encoder_on_dla(network: Any, config: Any, module: Any, core: int) -> int:
    """Assign each encoder layer that the DLA takes to `core` and return how many those are.

    The builder flags must be set before: they decide what the DLA takes. Raises `UserError` where it takes none.
    """
    config.DLA_core = core
    encoder = [layer for layer in layers_of(network) if layer.name.startswith(ENCODER)]
    taken = [layer for layer in encoder if config.can_run_on_DLA(layer)]
    if not taken:
        raise UserError(
            f"--dla {core} must take a part of the encoder",
            f"none of its {len(encoder)} layers can run there",
            "leave it out",
        )
    for layer in taken:
        config.set_device_type(layer, module.DeviceType.DLA)
    return len(taken)


def fix_batch(network: Any, batch: int) -> None:
    """Make the batch of a parsed network a constant: a DLA takes no dynamic shapes."""
    frames = network.get_input(0)
    found, *frame = tuple(frames.shape)
    if found == -1:
        frames.shape = (batch, *frame)
