"""A threshold goes into the sidecar beside an engine; network, ONNX and plan stay as they are."""

from dataclasses import replace
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.locks import one_writer
from runtime.engines.fields import WrongField
from runtime.engines.sidecar import (
    Sidecar,
    Threshold,
    read_sidecar,
    read_whole_sidecar,
    sidecar_path,
    write_sidecar,
)

PATIENCE_S = 5.0  # for another writer of a sidecar, who takes milliseconds
LONGEST_NAME = 64  # characters of a threshold's name
BY_HAND = "manual"  # the name that a threshold set by hand goes by


def by_hand(value: float, current: Threshold, maximum: float) -> Threshold:
    """Return the threshold that a person chose; what the map is held against stays as in `current`.

    Raises `UserError` for a value that is not on the score's scale, from 0 to `maximum`.
    """
    return on_scale(Threshold(value, "set by hand", map_value=current.map_value), maximum)


def on_scale(threshold: Threshold, maximum: float) -> Threshold:
    """Return `threshold`. Raises `UserError` unless it is on the score's scale, from 0 to `maximum`, one per tap.

    Below the scale every part is anomalous; above it, and at its very end, none can be.
    """
    try:
        threshold.check_scale(maximum)
    except WrongField as wrong:
        what = "the threshold" if wrong.path == "value" else "the threshold of the map"
        raise UserError(
            f"{what} must be {wrong.expected}", f"{wrong.value:g}", "choose one that scores reach"
        ) from None
    if threshold.value >= maximum:  # a line held to it would call every part good
        raise UserError(
            f"the threshold must be below {maximum:g}, the largest score there is",
            f"{threshold.value:g}, which nothing can be above",
            "choose a lower one (train.set_threshold --good DIR); where good images score so high, train again",
        )
    return threshold


def check_name(name: str) -> str:
    """Return a threshold's name. Raises `UserError` for one that cannot be kept in a file and shown in a line."""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        expected = f"a threshold's name must have 1 to {LONGEST_NAME} letters, digits or signs that can be printed"
        raise UserError(expected, ascii(name)[:LONGEST_NAME], "choose another --name")
    return name


def clipped(threshold: Threshold, maximum: float) -> Threshold:
    """Return a threshold chosen from scores with what rounding, in FP16 say, puts beyond the scale taken away."""
    value, of_map = (None if v is None else min(max(v, 0.0), maximum) for v in (threshold.value, threshold.map_value))
    assert value is not None
    return replace(threshold, value=value, map_value=of_map)


def own_sidecar(engine: Path) -> Sidecar:
    """Return the sidecar of the engine at `engine`. Raises `UserError` for a sidecar of other files."""
    sidecar = read_sidecar(engine)
    sidecar.artefact_of(engine)
    return sidecar


def store_in_sidecar(engine: Path, name: str, threshold: Threshold, *, default: bool) -> Sidecar:
    """Keep `threshold` as `name` beside `engine`, in the place of an earlier one of that name alone.

    `default` makes it the one that decides. The sidecar is written whole or not at all, and returned as it is then.
    Raises `UserError` as `own_sidecar` does, and for a threshold off the scale or a name that cannot be kept.
    """
    check_name(name)
    beside = sidecar_path(engine)
    with one_writer(beside, beside.name, "try again in a moment", PATIENCE_S):
        whole = read_whole_sidecar(engine)
        part = whole.of(engine)
        part.artefact_of(engine)
        on_scale(threshold, part.score_maximum)
        chosen = name if default else part.default_threshold
        part = replace(part, thresholds={**part.thresholds, name: threshold}, default_threshold=chosen)
        write_sidecar(engine, whole.with_part(part, engine))
    return part
