"""What a `.pt`, `.onnx` or `.plan` says of itself, and the one part of it that may change later: its thresholds.

A checkpoint holds its thresholds itself, an ONNX or plan in the sidecar beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.locks import one_writer
from runtime.engines.sidecar import Threshold
from runtime.engines.thresholds import PATIENCE_S, check_name, on_scale, own_sidecar, store_in_sidecar

SUFFIXES = (".pt", ".onnx", ".plan")


@dataclass(frozen=True)
class ModelDescription:
    """What evaluation and thresholds need to know of a model; `input_size` is (height, width) of what it judges.

    `data_origin` is the name of what it was trained on and `training_data_sha256` its hash (`Dataset.sha256`), empty
    where the file does not say.
    """

    encoder: str
    taps: tuple[str, ...]
    input_size: tuple[int, int]
    thresholds: Mapping[str, Threshold]
    default_threshold: str
    data_origin: str = ""
    training_data_sha256: str = ""

    @property
    def threshold(self) -> Threshold:
        """The threshold that decides a verdict."""
        return self.thresholds[self.default_threshold]


def read_facts(path: Path) -> ModelDescription:
    """Read what the model at `path` says of itself. Raises `UserError` if it, or its sidecar, is not whole."""
    if _is_checkpoint(path):
        from export.model.checkpoint import load_checkpoint  # here: of an engine nothing needs torch

        checkpoint = load_checkpoint(path)
        config = checkpoint.model.config
        shape = (config.encoder, config.taps, config.judged_size)
        thresholds = (checkpoint.thresholds, checkpoint.default_threshold)
        return ModelDescription(*shape, *thresholds, checkpoint.data_origin, checkpoint.data_sha256)
    sidecar = own_sidecar(path)
    shape = (sidecar.encoder, sidecar.taps, sidecar.input_size)
    thresholds = (sidecar.thresholds, sidecar.default_threshold)
    return ModelDescription(*shape, *thresholds, training_data_sha256=sidecar.training_data_sha256)


def store_threshold(path: Path, name: str, threshold: Threshold, *, default: bool) -> None:
    """Add `threshold` as `name` to the model at `path`, in the place of an earlier one of that name alone.

    `default` makes it the one that decides. The file is written whole or not at all; the network, the ONNX and
    the plan stay as they are. Raises `UserError` as `read_facts` does, for a threshold off the scale, and for a name
    that cannot be kept.
    """
    check_name(name)
    if _is_checkpoint(path):
        from export.model.checkpoint import load_checkpoint, save_checkpoint

        with one_writer(path, path.name, "try again in a moment", PATIENCE_S):
            checkpoint = load_checkpoint(path)
            checkpoint.thresholds[name] = on_scale(threshold, float(len(checkpoint.model.config.taps)))
            checkpoint.default_threshold = name if default else checkpoint.default_threshold
            save_checkpoint(path, checkpoint)
        return
    store_in_sidecar(path, name, threshold, default=default)


def _is_checkpoint(path: Path) -> bool:
    if path.suffix not in SUFFIXES:
        raise UserError(f"a model is a file with {', '.join(SUFFIXES)}", str(path))
    if not path.is_file():
        raise UserError(f"a model must stand at {path}", "no such file", "train one with train.fit")
    return path.suffix == ".pt"
