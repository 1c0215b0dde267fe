"""An engine that could judge in the place of another: its file, known by its hash, and its threshold."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt, RemoteEngine
from runtime.engines.remote.options import ServerOptions
from runtime.engines.sidecar import Sidecar, Threshold, read_hashed_sidecar
from runtime.images.view import View
from runtime.recipes.recipe import Inspect


@dataclass(frozen=True)
class Candidate:
    """`threshold_name` and `follows_default` are as `runtime.recipes.recipe.Inspect` has them.

    `views` are by source what it sees otherwise than the engine that judges: with another mask.
    """

    path: EngineAt
    sha256: str
    sidecar: Sidecar
    threshold: Threshold
    threshold_name: str
    follows_default: bool = True
    views: Mapping[str, View] = field(default_factory=dict)

    @classmethod
    def of_file(cls, path: Path) -> "Candidate":
        """Return the engine at `path`, judging by its own sidecar's threshold. Raises `UserError` for no engine."""
        if not path.is_file():
            raise UserError(f"{path} must exist", "no such file", "name a .plan or .onnx with its .json beside it")
        sidecar, _ = read_hashed_sidecar(path)
        artefact = sidecar.artefact_of(path)
        return cls(path, artefact.sha256, sidecar, sidecar.threshold, sidecar.default_threshold)

    @classmethod
    def of_server(cls, engine: RemoteEngine, options: ServerOptions) -> "Candidate":
        """Return the engine that a server has now. Raises `UserError` where it does not answer."""
        from runtime.engines.remote.link import first_look

        found = first_look(engine, options)
        return cls(engine, found.engine, found.sidecar, found.sidecar.threshold, found.sidecar.default_threshold)

    @classmethod
    def of_inspect(cls, one: Inspect) -> "Candidate":
        """Return an engine that is open, by the threshold that it has now."""
        detector = one.detector
        now = Threshold(detector.threshold, "as it judged", map_value=detector.map_threshold)
        known = (detector.hashes.engine, detector.sidecar, now, one.threshold_name, one.follows_default)
        return cls(one.engine, *known)

    def inspect(self, detector: Detector, beside: Inspect) -> Inspect:
        """Return it as an entry of a recipe, opened as `detector`, that sees what `beside` sees of a frame."""
        detector.use(self.threshold)
        names = self.threshold_name, self.follows_default
        return Inspect(beside.name, detector, self.path, beside.views, *names)

    @property
    def limits(self) -> tuple[float, float]:
        """What its score and its map are held against."""
        return self.threshold.value, self.threshold.for_map

    @property
    def name(self) -> str:
        """What it is called: its file, and the masks that it has of its own."""
        masks = dict.fromkeys(view.options.mask.name if view.options.mask else "none" for view in self.views.values())
        return f"{self.path.name} with {', '.join(masks)}" if masks else self.path.name

    @cached_property
    def masks_sha256(self) -> str:
        """The SHA-256 of its own masks by source; empty without any."""
        digest = hashlib.sha256()
        for source, view in sorted(self.views.items()):
            digest.update(f"{source} {view.mask_sha256}\n".encode())
        return digest.hexdigest() if self.views else ""
