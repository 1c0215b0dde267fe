"""The sidecar `cable.json`: what a host must know of an engine before it opens it (design: contracts).

It stands beside `cable.plan` and `cable.onnx`, is read before either is deserialised, and can be
edited by hand where that is meant: `thresholds` only.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import sha256_of, write_json

SCHEMA = "cflow-edge/sidecar/1"
INPUT_NAME = "frames"  # uint8 [B, H, W, 3], RGB; H and W are the frame size where the resize is inside
MAP_NAME = "anomaly_map"  # float32 [B, H, W], in [0, number of taps]
SCORE_NAME = "image_score"  # float32 [B], in the same units
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
    def from_json(cls, item: dict[str, Any]) -> "Threshold":
        """Rebuild a threshold. Raises `KeyError`, `TypeError` or `ValueError` if `item` is none."""
        rate, interval = item.get("false_alarm_rate"), item.get("interval")
        if interval is not None:
            low, high = (float(bound) for bound in interval)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"interval must be two ascending shares, not {interval}")
            interval = (low, high)
        if rate is not None and not 0 <= (rate := float(rate)) <= 1:
            raise ValueError(f"false_alarm_rate must be a share, not {rate}")
        of_map = item.get("map_value")
        of_map = None if of_map is None else float(of_map)
        return cls(float(item["value"]), str(item["method"]), rate, interval, of_map)


def white_level(value: Any) -> int:
    """Return `value`, the white of 16-bit samples. Raises `ValueError` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 255 <= value <= 65535:
        raise ValueError(f"white must be a whole number from 255 to 65535, not {value!r}")
    return value


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


@dataclass(frozen=True)
class Sidecar:
    """Everything that `cable.json` holds.

    `input_size` is (height, width) in pixels, the map's and the network's; `frame_size` is the camera's, where the
    engine holds the resize from the one to the other, and None where it takes frames of `input_size`. `thresholds`
    maps a name to a `Threshold`; `default_threshold` names the one that decides. `parity` holds the measured
    differences from the FP32 graph, by precision. `white` is the sample value that was white in training, in 16-bit
    grey files that do not say it.
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
    score: str = "paper"  # or "deviation": how map and image score are made
    frame_size: tuple[int, int] | None = None
    training_data_sha256: str = ""
    checkpoint_sha256: str = ""
    calibration_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, dict[str, float]] = field(default_factory=dict)
    artefacts: tuple[Artefact, ...] = ()
    white: int = 65535
    schema: str = SCHEMA

    @property
    def threshold(self) -> Threshold:
        """The threshold that decides a verdict."""
        return self.thresholds[self.default_threshold]

    @property
    def engine_frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames that the engine built last takes."""
        return self.input_size if self.frame_size is None else self.frame_size

    @property
    def score_maximum(self) -> float:
        """The largest value that the map can take: one per tap."""
        return float(len(self.taps))

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write and `from_json` reads back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, origin: str = "the sidecar") -> "Sidecar":
        """Rebuild the sidecar. Raises `UserError` if `value` is not a sidecar of this schema."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            found = value.get("schema", "no schema") if isinstance(value, dict) else type(value).__name__
            raise UserError(f"{origin} must have schema {SCHEMA}", str(found), "rebuild with export.build_engine")
        known = {f.name for f in fields(cls)}
        try:
            values = {key: item for key, item in value.items() if key in known}
            values["input_size"] = tuple(int(side) for side in values["input_size"])
            if values.get("frame_size") is not None:
                height, width = values["frame_size"]
                values["frame_size"] = (int(height), int(width))
            values["taps"] = tuple(values["taps"])
            values["white"] = white_level(values.get("white", 65535))
            values["thresholds"] = {name: Threshold.from_json(item) for name, item in values["thresholds"].items()}
            values["artefacts"] = tuple(Artefact(**item) for item in values.get("artefacts", ()))
            sidecar = cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{origin} must hold every field of {SCHEMA}", f"{error!r}", "rebuild it") from None
        if sidecar.default_threshold not in sidecar.thresholds:
            raise UserError(
                f"{origin}: default_threshold must be one of {', '.join(sidecar.thresholds) or 'the thresholds'}",
                repr(sidecar.default_threshold),
                "name a threshold that is listed",
            )
        return sidecar

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


def sidecar_path(path: str | Path) -> Path:
    """Return the JSON that belongs to a `.plan` or `.onnx`: `cable.plan` and `cable.fp16.onnx` share `cable.json`."""
    path = Path(path)
    stem = path.stem
    for variant in VARIANTS:
        stem = stem.removesuffix(f".{variant}")
    return path.with_name(f"{stem}.json")


def read_sidecar(path: str | Path) -> Sidecar:
    """Read the sidecar that stands beside the engine at `path` (`.plan` or `.onnx`).

    Raises `UserError` where it is missing, is no JSON, or has another schema.
    """
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        raise UserError(
            f"{Path(path).name} needs {sidecar.name} beside it",
            "none",
            "copy both files, or rebuild with export.build_engine",
        )
    try:
        value = json.loads(sidecar.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{sidecar} must be JSON", str(error), "rebuild with export.build_engine") from None
    return Sidecar.from_json(value, str(sidecar))


def write_sidecar(path: str | Path, sidecar: Sidecar) -> Path:
    """Write `sidecar` beside the engine at `path` and return where it went."""
    beside = sidecar_path(path)
    write_json(beside, sidecar.to_json())
    return beside
