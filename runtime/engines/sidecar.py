"""The sidecar `cable.json`: what a host must know of an engine before it opens it (design: contracts).

It stands beside `cable.plan` and `cable.onnx`, is read before either is deserialised, and can be
edited by hand where that is meant: `thresholds` only.
"""

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import read_hashed_json, sha256_of, write_json
from runtime.engines.fields import (
    WrongField,
    digest,
    items,
    number,
    one_of,
    optional,
    record,
    shown,
    table,
    text,
    whole,
    yes_or_no,
)
from runtime.engines.golden import Golden
from runtime.images.facts import ImageFacts
from runtime.images.mask import Scoring
from runtime.images.pixels import LARGEST_SIDE
from runtime.images.population import Population
from runtime.images.tiles import TileGrid

SCHEMA = "cflow-edge/sidecar/1"
INPUT_NAME = "frames"  # uint8 [B, H, W, 3], RGB; H and W are the frame size where the resize is inside
MAP_NAME = "anomaly_map"  # float32 [B, H, W], in [0, number of taps]
SCORE_NAME = "image_score"  # float32 [B], in the same units
LARGEST_BYTES = 4 << 20  # of a sidecar; ours take some kilobytes
MOST_LINKS = 8  # builds that were killed while they put their files in place, one after the other
ROUNDING = 1e-6  # by which a float32 sum over taps may exceed their number
REBUILD = "rebuild with export.build_engine"
CURE = f"mend this field, or {REBUILD}"
VARIANTS = ("unfused", "fp16", "int8")  # cable.fp16.onnx is a variant of cable.onnx and shares its sidecar


@dataclass(frozen=True)
class Threshold:
    """An image score above `value` is anomalous; `method` says how the value was chosen.

    `map_value` is what a position of the map is held against, where the image score is not simply the map's
    maximum; None: the same value. Where good images chose the threshold, `false_alarm_rate` is the share of new
    good images that it is expected to call anomalous, and `interval` (low, high) what that share lies in with
    95 % confidence.
    """

    value: float
    method: str
    false_alarm_rate: float | None = None
    interval: tuple[float, float] | None = None
    map_value: float | None = None

    @property
    def for_map(self) -> float:
        """The value above which a position of the map is anomalous."""
        return self.value if self.map_value is None else self.map_value

    @classmethod
    def from_json(cls, item: Any) -> "Threshold":
        """Rebuild a threshold. Raises `WrongField`, a `ValueError`, if `item` is none."""
        threshold = cls(**_threshold(item))
        if threshold.interval is not None and threshold.interval[0] > threshold.interval[1]:
            raise WrongField("two ascending shares", f"{threshold.interval[0]}, {threshold.interval[1]}", "interval")
        return threshold

    def check_scale(self, maximum: float, where: str = "") -> None:
        """Raise `WrongField` unless it lies on the scale of a score from 0 to `maximum`, a score's number of taps."""
        for name, value in (("value", self.value), ("map_value", self.for_map)):
            if not (math.isfinite(value) and 0 <= value <= maximum * (1 + ROUNDING)):
                raise WrongField(f"on the score's scale, from 0 to {maximum:g} (one per tap)", value, where + name)


_share = number(0, 1)
_threshold = record(
    {
        "value": number(),
        "method": text,
        "false_alarm_rate": optional(_share),
        "interval": optional(items(_share, 2, 2)),
        "map_value": optional(number()),
    },
    {"value", "method"},
)


@dataclass(frozen=True)
class Artefact:
    """One file that this sidecar describes, known by its hash so that renaming a pair is harmless.

    `library`, `version` and `compute_capability` say what built a plan; a plan loads only there, unless it is
    `version_compatible` (later versions too) or `hardware_compatible` (other GPUs too). `weights_sha256` names the
    ONNX that a plan without weights takes them from; `dla_core` is the accelerator that a part of it runs on.
    """

    kind: str  # "onnx" | "plan"
    precision: str  # "fp32" | "fp16" | "int8"
    sha256: str
    library: str = ""  # "tensorrt" | "tensorrt_rtx"
    version: str = ""
    compute_capability: str = ""  # "8.6", "8.6+8.9", ...
    version_compatible: bool = False
    hardware_compatible: bool = False
    weights_sha256: str = ""
    dla_core: int | None = None

    @classmethod
    def from_json(cls, item: Any) -> "Artefact":
        """Rebuild an entry. Raises `WrongField` if `item` is none."""
        return cls(**_artefact(item))


_artefact = record(
    {
        "kind": one_of("onnx", "plan"),
        "precision": one_of("fp32", "fp16", "int8"),
        "sha256": digest,
        "library": text,
        "version": text,
        "compute_capability": text,
        "version_compatible": yes_or_no,
        "hardware_compatible": yes_or_no,
        "weights_sha256": digest,
        "dla_core": optional(whole(0, 64)),
    },
    {"kind", "precision", "sha256"},
)


@dataclass(frozen=True)
class Sidecar:
    """Everything that `cable.json` holds.

    `input_size` is (height, width) in pixels, the map's and the network's; `frame_size` is the camera's, where the
    engine holds the resize from the one to the other, and None where it takes frames of `input_size`. `thresholds`
    maps a name to a `Threshold`; `default_threshold` names the one that decides. `parity` holds the measured
    differences from the FP32 graph, by precision. `white` is the sample value that was white in training, in 16-bit
    grey files that do not say it.

    While a build puts its files in the place of another's, one after the other, `replaced_by` describes the new ones,
    so that every file can be read at every moment; `of` chooses.
    """

    name: str
    input_size: tuple[int, int]
    batch: int
    encoder: str
    encoder_weights: str
    taps: tuple[str, ...]
    clamp: str  # "tanh(a)" | "tanh(a/c)": which FrEIA soft clamp
    default_threshold: str
    thresholds: dict[str, Threshold]
    score: str = "paper"  # or "deviation", "tap_deviation", "place_deviation": how map and score are made
    frame_size: tuple[int, int] | None = None
    training_data_sha256: str = ""
    checkpoint_sha256: str = ""
    network_sha256: str = ""  # of weights and constants alone: a threshold set in the checkpoint leaves it as it is
    calibration_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, dict[str, float]] = field(default_factory=dict)
    artefacts: tuple[Artefact, ...] = ()
    image_facts: ImageFacts | None = None  # of the images that it was trained on; None: not measured
    population: Population | None = None  # of held-out good images, for `runtime.drift`; None: not measured
    golden: Golden | None = None  # frames whose scores are known; None: there was no picture to take
    white: int = 65535
    tiles: TileGrid | None = None  # of a tiled detector, whose `input_size` is the frame that it cuts; None: one input
    schema: str = SCHEMA
    replaced_by: "Sidecar | None" = None

    @property
    def threshold(self) -> Threshold:
        """The threshold that decides a verdict."""
        return self.thresholds[self.default_threshold]

    @property
    def engine_frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames that the engine built last takes."""
        return self.input_size if self.frame_size is None else self.frame_size

    @property
    def scoring(self) -> Scoring:
        """How an image's score comes about."""
        return Scoring(self.score, self.tiles)

    @property
    def score_maximum(self) -> float:
        """The largest value that the map can take: one per tap."""
        return float(len(self.taps))

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        value = asdict(self)
        if self.image_facts is not None:
            value["image_facts"] = self.image_facts.to_json()
        if self.population is not None:
            value["population"] = self.population.to_json()
        if self.tiles is None:
            del value["tiles"]
        else:
            value["tiles"] = self.tiles.to_json()
        if self.replaced_by is None:
            del value["replaced_by"]
        else:
            value["replaced_by"] = self.replaced_by.to_json()
        return value

    @classmethod
    def from_json(cls, value: Any, origin: str = "the sidecar") -> "Sidecar":
        """Rebuild the sidecar. Raises `UserError` naming the first field that is not what it must be."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            found = value.get("schema", "no schema") if isinstance(value, dict) else type(value).__name__
            raise UserError(f"{origin} must have schema {SCHEMA}", str(found)[:80], REBUILD)
        links: list[Sidecar] = []
        path = ""
        try:
            while value is not None and len(links) < MOST_LINKS:
                links.append(_sidecar(value))
                value, path = value.get("replaced_by"), f"{path}replaced_by."
        except WrongField as wrong:
            raise UserError(
                f"{origin}: {path}{wrong.path} must be {wrong.expected}", shown(wrong.value), CURE
            ) from None
        return _chained(links)

    def links(self) -> "list[Sidecar]":
        """Return this sidecar and those that were about to replace it, the newest last, each alone."""
        alone = self if self.replaced_by is None else replace(self, replaced_by=None)
        return [alone, *(self.replaced_by.links() if self.replaced_by is not None else ())]

    def of(self, path: Path) -> "Sidecar":
        """Return what describes the file at `path`: the newest of `links` that knows it, else the oldest."""
        return self.links()[self._link_of(path)]

    def with_part(self, part: "Sidecar", path: Path) -> "Sidecar":
        """Return the whole with `part` in the place of what `of(path)` returns."""
        links = self.links()
        links[self._link_of(path)] = part
        return _chained(links)

    def followed_by(self, newer: "Sidecar") -> "Sidecar":
        """Return what describes the files of this sidecar and those of `newer`, while these take their places."""
        return _chained([*self.links()[-MOST_LINKS + 1 :], newer])

    def _link_of(self, path: Path) -> int:
        links = self.links()
        if len(links) == 1 or not path.is_file():
            return 0
        digest = sha256_of(path)
        return max((i for i, link in enumerate(links) if any(a.sha256 == digest for a in link.artefacts)), default=0)

    def artefact_of(self, path: Path) -> Artefact:
        """Return the entry for the file at `path`. Raises `UserError` if the sidecar is not this file's."""
        digest = sha256_of(path)
        for artefact in self.artefacts:
            if artefact.sha256 == digest:
                return artefact
        known = ", ".join(f"{a.kind} {a.precision} {a.sha256[:12]}" for a in self.artefacts) or "nothing"
        raise UserError(
            f"{path.name} must be one of the files that {sidecar_path(path).name} describes ({known})",
            f"sha256 {digest[:12]}",
            f"rebuild both with: python -m export.build_engine {sidecar_path(path).stem}.pt",
        )


_size = items(whole(1, LARGEST_SIDE), 2, 2)
_fields = record(
    {
        "name": text,
        "input_size": _size,
        "batch": whole(1, 65536),
        "encoder": text,
        "encoder_weights": text,
        "taps": items(text, 1, 64),
        "clamp": one_of("tanh(a)", "tanh(a/c)"),
        "default_threshold": text,
        "thresholds": table(Threshold.from_json, 1),
        "score": one_of("paper", "deviation", "tap_deviation", "place_deviation"),
        "frame_size": optional(_size),
        "training_data_sha256": text,  # as the checkpoint says it
        "checkpoint_sha256": digest,
        "network_sha256": digest,
        "calibration_sha256": digest,
        "versions": table(text),
        "parity": table(table(number())),
        "artefacts": items(Artefact.from_json),
        "white": whole(255, 65535),
        "image_facts": optional(ImageFacts.from_json),
        "population": optional(Population.from_json),
        "golden": optional(Golden.from_json),
        "tiles": optional(TileGrid.from_json),
    },
    {f.name for f in fields(Sidecar) if f.default is MISSING and f.default_factory is MISSING},
)


def _sidecar(value: Any) -> Sidecar:
    """Rebuild a sidecar without its `replaced_by`. Raises `WrongField`."""
    sidecar = Sidecar(**_fields(value))
    for name, threshold in sidecar.thresholds.items():
        threshold.check_scale(sidecar.score_maximum, f"thresholds.{name}.")
    if sidecar.tiles is not None and sidecar.tiles.frame != sidecar.input_size:
        raise WrongField(f"of a frame of {sidecar.input_size}", sidecar.tiles.frame, "tiles")
    if sidecar.default_threshold not in sidecar.thresholds:
        raise WrongField(f"one of {', '.join(sidecar.thresholds)}", sidecar.default_threshold, "default_threshold")
    return sidecar


def _chained(links: list[Sidecar]) -> Sidecar:
    sidecar = links[-1]
    for link in reversed(links[:-1]):
        sidecar = replace(link, replaced_by=sidecar)
    return sidecar


def sidecar_path(path: str | Path) -> Path:
    """Return the JSON that belongs to a `.plan` or `.onnx`: `cable.plan` and `cable.fp16.onnx` share `cable.json`."""
    path = Path(path)
    stem = path.stem
    for variant in VARIANTS:
        stem = stem.removesuffix(f".{variant}")
    return path.with_name(f"{stem}.json")


def read_sidecar(path: str | Path) -> Sidecar:
    """Read what stands of the engine at `path` (`.plan` or `.onnx`) in the sidecar beside it.

    Raises `UserError` where it is missing, is no JSON, has another schema or a field that is not what it must be.
    """
    return read_hashed_sidecar(path)[0]


def read_hashed_sidecar(path: str | Path) -> tuple[Sidecar, str]:
    """Read the sidecar as `read_sidecar` does; return with it the SHA-256 of the file that was read."""
    whole, digest = _read(path)
    return whole.of(Path(path)), digest


def read_whole_sidecar(path: str | Path) -> Sidecar:
    """Read the sidecar as `read_sidecar` does, with what an unfinished build was about to replace."""
    return _read(path)[0]


def _read(path: str | Path) -> tuple[Sidecar, str]:
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        raise UserError(
            f"{Path(path).name} needs {sidecar.name} beside it",
            "none",
            "copy both files, or rebuild with export.build_engine",
        )
    value, digest = read_hashed_json(sidecar, LARGEST_BYTES, f"mend it, or {REBUILD}")
    return Sidecar.from_json(value, str(sidecar)), digest


def write_sidecar(path: str | Path, sidecar: Sidecar) -> Path:
    """Write `sidecar` beside the engine at `path` and return where it went.

    Raises `UserError` for one that could not be read again: it must not take the place of one that can.
    """
    beside = sidecar_path(path)
    value = sidecar.to_json()
    Sidecar.from_json(json.loads(json.dumps(value)), f"{beside}, not written")
    write_json(beside, value)
    return beside
