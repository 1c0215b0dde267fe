"""A threshold goes into the sidecar beside an engine; network, ONNX and plan stay as they are."""

import math
from dataclasses import replace
from pathlib import Path

from runtime.common.errors import UserError
from runtime.engines.sidecar import Sidecar, Threshold, read_sidecar, write_sidecar

BY_HAND = "manual"  # the name that a threshold set by hand goes by


def by_hand(value: float, current: Threshold) -> Threshold:
    """Return the threshold that a person chose; what the map is held against stays as in `current`.

    Raises `UserError` for a value that is not finite.
    """
    if not math.isfinite(value):
        raise UserError("--value must be a finite number", str(value))
    return Threshold(value, "set by hand", map_value=current.map_value)


def own_sidecar(engine: Path) -> Sidecar:
    """Return the sidecar of the engine at `engine`. Raises `UserError` for a sidecar of other files."""
    sidecar = read_sidecar(engine)
    sidecar.artefact_of(engine)
    return sidecar


def store_in_sidecar(engine: Path, name: str, threshold: Threshold, *, default: bool) -> Sidecar:
    """Keep `threshold` as `name` beside `engine`, in the place of an earlier one of that name alone.

    `default` makes it the one that decides. The sidecar is written whole or not at all, and returned as it is then.
    Raises `UserError` as `own_sidecar` does.
    """
    sidecar = own_sidecar(engine)
    thresholds = {**sidecar.thresholds, name: threshold}
    chosen = name if default else sidecar.default_threshold
    sidecar = replace(sidecar, thresholds=thresholds, default_threshold=chosen)
    write_sidecar(engine, sidecar)
    return sidecar
