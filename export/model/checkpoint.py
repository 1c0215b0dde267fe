"""The checkpoint `cable.pt`: everything that rebuilds a detector, in types that load without running code."""

import hashlib
import json
import math
import platform
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.model.cflow import CFlow, ModelConfig
from export.model.encoder import check_taps
from export.model.flow import FACTORED_AFTER
from export.model.score import constant_shape
from export.model.tensor_files import read_torch_file, save_torch_file
from runtime.common.errors import UserError
from runtime.engines.fields import items, number, optional, record, table, text, whole, yes_or_no
from runtime.engines.sidecar import Threshold
from runtime.images.bit_depth import FULL_SCALE
from runtime.images.facts import ImageFacts
from runtime.images.pixels import LARGEST_SIDE
from runtime.images.population import Population
from runtime.images.tiles import TileGrid

FORMAT = "cflow-edge/checkpoint/2"
EARLIER = "cflow-edge/checkpoint/1"  # the paper's score alone: one maximum per tap


@dataclass
class Checkpoint:
    """A trained detector.

    `constants` (`constant_shape`) are the score's, frozen over held-out good images: a level and a spread per tap,
    and the weights of its image score. `image_facts` is what the good images are like as pictures, `golden` one of
    them, uint8 (H, W, 3) in the input size (of a tiled detector a tile of one), `population` the distribution of the
    held-out ones' numbers.
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
    image_facts: ImageFacts | None = None
    golden: Tensor | None = None
    population: Population | None = None


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of `packages`, those not installed left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def network_sha256(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of what judges: configuration, weights and constants, whatever the thresholds are."""
    config = checkpoint.model.config.facts()
    if not config["pooled"]:
        del config["pooled"]  # engines of a time without it know their network by this hash
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in [*sorted(checkpoint.model.state_dict().items()), ("constants", checkpoint.constants)]:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_checkpoint_path(out: Path) -> None:
    """Raise `UserError` where no checkpoint can be written to `out`, or none of that name would be taken later."""
    if out.is_dir():
        raise UserError("--out must be a file to write, e.g. cable.pt", f"the folder {out}")
    if out.suffix != ".pt":
        raise UserError("--out must end in .pt, by which other commands know a checkpoint", str(out), "e.g. cable.pt")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` whole or not at all. Raises `UserError` for one that could not be read again."""
    content = {
        "format": FORMAT,
        "config": checkpoint.model.config.facts(),
        "state": checkpoint.model.state_dict(),
        "constants": checkpoint.constants,
        "thresholds": {name: asdict(threshold) for name, threshold in checkpoint.thresholds.items()},
        **{key: getattr(checkpoint, key) for key in _PLAIN},
    }
    if checkpoint.image_facts is not None:
        content["image_facts"] = checkpoint.image_facts.to_json()
    if checkpoint.population is not None:
        content["population"] = checkpoint.population.to_json()
    if checkpoint.golden is not None:
        content["golden"] = checkpoint.golden
    try:
        _said(content)
    except ValueError as error:
        raise UserError(
            f"{path}, not written, must hold what can be read again", str(error), "name it plainly"
        ) from None
    save_torch_file(path, content)


def _said(content: dict[str, Any]) -> tuple[ModelConfig, dict[str, Any], dict[str, Threshold]]:
    """Return the configuration, the plain parts and the thresholds. Raises `ValueError` for what are none."""
    config, said = _config(content["config"]), _plain(content)
    thresholds = table(Threshold.from_json, 1)(content["thresholds"])
    _check_thresholds(thresholds, said["default_threshold"], len(config.taps))
    return config, said, thresholds


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
    content = read_tensors(path, FORMAT, EARLIER)
    try:
        content = _upgrade(content)
        config, said, thresholds = _said(content)
        constants = _constants(content["constants"], config)
        _check_state(content["state"], config)
        model = CFlow(config)
        model.load_state_dict(content["state"])
        _check_places(model)
        checkpoint = Checkpoint(model.eval(), constants, thresholds, **{**said, "history": list(said["history"])})
        if content.get("image_facts") is not None:
            checkpoint.image_facts = ImageFacts.from_json(content["image_facts"])
        if content.get("population") is not None:
            checkpoint.population = Population.from_json(content["population"])
        checkpoint.golden = _golden(content.get("golden"), config)
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


def _constants(constants: Any, config: ModelConfig) -> Tensor:
    """Return the score's constants. Raises `ValueError` for what are none."""
    shape = constant_shape(config.score, len(config.taps))
    wanted = f"constants must be {shape[1]} finite levels and as many spreads"
    if shape[0] > 2:
        wanted = f"{wanted}, and {shape[0] - 2} weights of each"
    if not isinstance(constants, Tensor) or constants.shape != shape or not constants.is_floating_point():
        found = tuple(constants.shape) if isinstance(constants, Tensor) else type(constants).__name__
        raise ValueError(f"{wanted}, not {found}")
    if not constants.isfinite().all() or not (constants[1:] > 0).all():
        raise ValueError(f"{wanted}, not {constants.tolist()}")
    return constants


def _check_places(model: CFlow) -> None:
    """Raise `ValueError` for places whose levels are none."""
    if not all(bool((place.isfinite() & (place <= 0)).all()) for place in model.places):
        raise ValueError("the levels of places must be finite, and at most 0")


def _golden(golden: Any, config: ModelConfig) -> Tensor | None:
    """Return the golden image, if there is one. Raises `ValueError` for what is none."""
    shape = (*config.input_size, 3)
    if golden is None or (isinstance(golden, Tensor) and golden.dtype == torch.uint8 and golden.shape == shape):
        return golden
    raise ValueError(f"the golden image must be uint8 {shape}, not {type(golden).__name__}")


def _check_thresholds(thresholds: dict[str, Threshold], default: str, taps: int) -> None:
    for name, threshold in thresholds.items():
        threshold.check_scale(float(taps), f"thresholds.{name}.")
    if default not in thresholds:
        raise ValueError(f"no threshold {default!r}")


def _config(values: Any) -> ModelConfig:
    config = ModelConfig(**_model(values))
    check_taps(config.encoder, config.taps)
    if math.prod(config.judged_size) > LARGEST_AREA:
        raise ValueError(f"what is judged must be of at most {LARGEST_AREA} pixels, not {config.judged_size}")
    return config


def _check_state(state: Any, config: ModelConfig) -> None:
    """Raise `ValueError` unless `state` has the blocks and hidden units that `config` speaks of.

    Before memory is taken for them.
    """
    blocks = sum(str(name).endswith(".global_scale") for name in state)
    wanted = len(config.taps) * config.coupling_blocks + len(config.factored) * FACTORED_AFTER
    if blocks != wanted:
        what = "Missing key" if blocks < wanted else "More"
        raise ValueError(f"{what}: {blocks} coupling blocks of {wanted} in the state")
    for tap, units in enumerate(config.hidden_units):
        first = re.compile(rf"decoders\.{tap}\.blocks\.\d+\.subnet\.0\.bias")
        found = {len(bias) for name, bias in state.items() if first.fullmatch(name)}
        expected = {units, units // 2} if config.taps[tap] in config.factored else {units}
        if found != expected:
            raise ValueError(f"{sorted(found)} hidden units in the state, not {sorted(expected)}")


LARGEST_AREA = 1 << 26  # pixels: 8192 x 8192
_three = items(number(), 3, 3)
_side = whole(1, LARGEST_SIDE)
_model = record(
    {
        "encoder": text,
        "taps": items(text, 1, 64),
        "input_size": items(_side, 2, 2),
        "coupling_blocks": whole(1, 1024),
        "conditional": yes_or_no,
        "soft_permutation": yes_or_no,
        "clamp": text,
        "mean": _three,
        "std": _three,
        "seed": whole(0, 2**63 - 1),
        "score": text,
        "white": whole(255, FULL_SCALE),
        "pooled": items(text, 0, 64),
        "halved": items(text, 0, 64),
        "hidden_units": items(whole(1, 1 << 14), 0, 64),
        "factored": items(text, 0, 64),
        "tiles": optional(TileGrid.from_json),
    },
    {"encoder", "taps"},
)
_plain = record(
    {
        "default_threshold": text,
        "encoder_weights": text,
        "data_sha256": text,
        "data_origin": text,
        "history": items(table(number()), 0, 10**6),
        "versions": table(text),
    },
    set(_PLAIN),
)
