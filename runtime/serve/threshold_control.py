"""The threshold of the running detector, as the page shows and changes it."""

import threading
from dataclasses import dataclass
from pathlib import Path

from runtime.common.files import sha256_of
from runtime.detector import Detector
from runtime.engines.sidecar import sidecar_path
from runtime.engines.thresholds import BY_HAND, by_hand, store_in_sidecar
from runtime.records.run import shown
from runtime.serve.changes import Changes


class ThresholdMoved(Exception):
    """Somebody else has set another threshold since the page was looked at."""


@dataclass(frozen=True)
class ThresholdStatus:
    """What decides now; `method` says how it was chosen.

    `overridden` says that the command line's `--threshold` decided at the start, and will again at the next one.
    """

    value: float
    method: str
    maximum: float
    overridden: bool


class ThresholdControl:
    """Shows and sets the threshold of `detector`, opened from the engine at `engine`; `changes` notes who set it."""

    def __init__(self, detector: Detector, engine: Path, changes: Changes) -> None:
        self._changes = changes
        self._detector = detector
        self._engine = engine
        self._lock = threading.Lock()
        self._kept = detector.sidecar.threshold
        self._overridden = detector.threshold != self._kept.value

    def status(self) -> ThresholdStatus:
        """Return what decides now."""
        value, kept = self._detector.threshold, self._kept
        method = kept.method if value == kept.value else "given on the command line"
        return ThresholdStatus(value, method, self._detector.sidecar.score_maximum, self._overridden)

    def without_folder(self, text: str) -> str:
        """Return `text` without the name of the folder that the engine is in: it is nobody's business on the page."""
        for folder in {str(self._engine.parent), str(self._engine.parent.resolve())} - {"."}:
            text = text.replace(f"{folder}/", "")
        return text

    def write(self, value: float, instead_of: float, who: str, origin: str) -> None:
        """Write `value` to the sidecar as the one that decides, then judge by it; `who` asked for it, from `origin`.

        Takes as long as reading the whole engine file, which the sidecar is checked against. Raises
        `ThresholdMoved` unless the present one is `instead_of`, and `UserError` or `OSError`, with nothing changed,
        for a value outside the score's range and a sidecar that cannot be written.
        """
        threshold = by_hand(value, self._kept, self._detector.sidecar.score_maximum)
        with self._lock:
            present = self._detector.threshold
            if present != instead_of:
                raise ThresholdMoved(f"the threshold is {present:.6g} by now; look at it, then try again")
            store_in_sidecar(self._engine, BY_HAND, threshold, default=True)
            self._detector.use(threshold)
            self._kept = threshold
            now = {"threshold": shown(threshold.value), "map threshold": shown(threshold.for_map)}
            self._changes.note({**now, "sidecar": sha256_of(sidecar_path(self._engine))}, who, origin)
