"""How an archive is judged, as every process that judges is told; and by what an output is known to be of one piece."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.common.addresses import is_url, without_secrets
from runtime.common.files import printable, sha256_of
from runtime.detector import Detector, load
from runtime.engines.backends import Backend
from runtime.engines.session import CpuPrecision
from runtime.images.preprocess import PLAIN, ReadOptions
from runtime.images.view import ViewOptions

# in words for a person, in the order in which they are compared
FACTS = {
    "archive": "the archive",
    "engine_sha256": "the engine",
    "sidecar_sha256": "the sidecar",
    "threshold": "the threshold",
    "map_threshold": "the map's threshold",
    "device": "the library",
    "view": "region, mask, rotation and flip",
}


@dataclass(frozen=True)
class Setup:
    """The `engine` by its absolute path, how it is loaded, and what of each image of the `archive` is judged.

    `expected` is what it must turn out to be (`Identity`), where that is known already.
    """

    archive: str
    engine: Path
    threshold: float | None = None
    backend: Backend = "auto"
    precision: CpuPrecision = "float32"
    view: ViewOptions = field(default_factory=ViewOptions)
    max_pixels: int | None = None
    expected: "Identity | None" = None

    @property
    def shown(self) -> str:
        """The archive as it may stand in files: whole, and without secrets."""
        return without_secrets(self.archive) if is_url(self.archive) else printable(str(Path(self.archive).absolute()))

    def open(self) -> Detector:
        """Open the engine with one thread: there are as many processes as cores. Raises as `runtime.load`."""
        return load(self.engine, threads=1, threshold=self.threshold, backend=self.backend, precision=self.precision)

    def reading(self, white: int | None) -> ReadOptions:
        """Return how images are read; `white` is the sidecar's."""
        return ReadOptions(white or PLAIN.white, self.max_pixels)


@dataclass(frozen=True)
class Identity:
    """By what a row was judged, as JSON: two rows with the same may stand in one table."""

    text: str

    @classmethod
    def of(cls, setup: Setup, detector: Detector) -> "Identity":
        """Return that of a detector that was opened as `setup` says."""
        described = detector.described()
        view = setup.view
        seen = {
            "roi": None if view.roi is None else list(view.roi),
            "mask": None if view.mask is None else sha256_of(view.mask),
            "fill": view.fill,
            "rotate": view.rotate,
            "flip": view.flip,
        }
        return cls.from_facts({"archive": setup.shown, "engine": setup.engine.name, **described, "view": seen})

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Identity":
        """Return the identity of `facts`."""
        return cls(json.dumps(facts, sort_keys=True))

    @property
    def facts(self) -> dict[str, Any]:
        """What it consists of."""
        facts: dict[str, Any] = json.loads(self.text)
        return facts

    def differs(self, other: "Identity") -> tuple[str, str, str] | None:
        """Return in which fact another one differs first, in words, with its value here and there; None: in none."""
        ours, theirs = self.facts, other.facts
        for name, words in FACTS.items():
            if ours.get(name) != theirs.get(name):
                return words, _short(ours.get(name)), _short(theirs.get(name))
        return None


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return value if isinstance(value, str) else json.dumps(value)
