"""The checkpoint `cable.pt`: everything that rebuilds a detector, in types that load without running code."""

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import check_taps
from export.model.tensor_files import read_torch_file
from runtime.common.errors import UserError
from runtime.common.files import whole_file
from runtime.engines.sidecar import Threshold

FORMAT = "cflow-edge/checkpoint/2"
EARLIER = "cflow-edge/checkpoint/1"  # the paper's score alone: one maximum per tap


@dataclass
class Checkpoint:
    """A trained detector.

    `constants` (2, K) are the score's, frozen over held-out good images: a level and a spread per tap.
    """

    model: CFlow
    constants: Tensor
    thresholds: dict[str, Threshold]
    default_threshold: str
    encoder_weights: str
    data_sha256: str
    data_origin: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of `packages`, those not installed left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def check_checkpoint_path(out: Path) -> None:
    """Raise `UserError` where no checkpoint can be written to `out`, or none of that name would be taken later."""
    if out.is_dir():
        raise UserError("--out must be a file to write, e.g. cable.pt", f"the folder {out}")
    if out.suffix != ".pt":
        raise UserError("--out must end in .pt, by which other commands know a checkpoint", str(out), "e.g. cable.pt")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` whole or not at all."""
    content = {
        "format": FORMAT,
        "config": asdict(checkpoint.model.config),
        "state": checkpoint.model.state_dict(),
        "constants": checkpoint.constants,
        "thresholds": {name: asdict(threshold) for name, threshold in checkpoint.thresholds.items()},
        **{key: getattr(checkpoint, key) for key in _PLAIN},
    }
    with whole_file(path) as temporary:
        torch.save(content, temporary)


_PLAIN = ("default_threshold", "encoder_weights", "data_sha256", "data_origin", "history", "versions")


def read_tensors(path: Path, format_name: str, *earlier: str) -> dict[str, Any]:
    """Read a file of ours written by torch.save, unpickling no code; `UserError` if it is of none of the formats."""
    try:
        content = read_torch_file(path, f"a file of format {format_name}")
    except FileNotFoundError:
        raise UserError(f"a checkpoint must stand at {path}", "no such file", "train one with train.fit") from None
    found = content.get("format", "no format") if isinstance(content, dict) else type(content).__name__
    if found not in (format_name, *earlier):
        raise UserError(f"{path} must be a file of format {format_name}", str(found), "train one with train.fit")
    return content  # type: ignore[no-any-return]


def load_checkpoint(path: Path) -> Checkpoint:
    """Rebuild the detector that `path` holds, in eval mode. Raises `UserError` if it is not a whole checkpoint."""
    content = _upgrade(read_tensors(path, FORMAT, EARLIER))
    try:
        config = _config(content["config"])
        model = CFlow(config)
        model.load_state_dict(content["state"])
        thresholds = {name: Threshold(**value) for name, value in content["thresholds"].items()}
        checkpoint = Checkpoint(model.eval(), content["constants"], thresholds, **{key: content[key] for key in _PLAIN})
        _check_consistency(checkpoint)
    # RuntimeError is load_state_dict's mismatch, AttributeError a part of another type than ours
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path} must hold every part of {FORMAT}", found, "train it again") from None
    return checkpoint


def _upgrade(content: dict[str, Any]) -> dict[str, Any]:
    if content["format"] == FORMAT or not isinstance(content.get("maxima"), Tensor):
        return content
    maxima = content["maxima"]
    config = {**content["config"], "score": "paper"}
    return {**content, "config": config, "constants": torch.stack([maxima, torch.ones_like(maxima)])}


def _check_consistency(checkpoint: Checkpoint) -> None:
    constants, taps = checkpoint.constants, checkpoint.model.config.taps
    if constants.shape != (2, len(taps)) or not constants.isfinite().all() or not (constants[1] > 0).all():
        raise ValueError(f"constants must be {len(taps)} finite levels and as many spreads, not {constants.tolist()}")
    if checkpoint.default_threshold not in checkpoint.thresholds:
        raise ValueError(f"no threshold {checkpoint.default_threshold!r}")


def _config(values: dict[str, Any]) -> ModelConfig:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list | tuple)}
    config = ModelConfig(**{**values, **lists})
    check_taps(config.encoder, config.taps)
    return config
