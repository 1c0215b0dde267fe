"""The newest disagreements with their pictures: in memory, and beside the log, where a restart finds them again."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import safe_name, write_bytes
from runtime.records.shadow_reading import pictured
from runtime.records.shadows import Comparison, pictures_of

SHOWN = 24
KEPT = 48  # files
FIRST = 1 << 40  # of their numbers: the page has judgements of its own below
SAME_EVENT_S = 1.0  # between two frames of a camera that are about the same part


@dataclass(frozen=True)
class Disagreement:
    """A row of `runtime.records.schema.SHADOW_COLUMNS` with its JPEG; `markable`: its judgement is still at hand."""

    number: int
    row: Mapping[str, Any]
    jpeg: bytes
    markable: bool


class Disagreements:
    """Those of one comparison; `log` is the inspection log's path, None without. Any thread may ask."""

    def __init__(self, log: Path | None) -> None:
        self._folder = None if log is None else pictures_of(log)
        self._log = log
        self._numbers = count(FIRST)
        self._lock = threading.Lock()
        self._kept: deque[Disagreement] = deque(maxlen=SHOWN)
        self._last: dict[tuple[str, str], tuple[float, int]] = {}  # by source and verdict: when, number of the event

    def begin(self, of: Comparison) -> None:
        """Forget those of another comparison, and take up what the log knows of this one."""
        found = []
        if self._log is not None and self._folder is not None:
            with contextlib.suppress(OSError, UserError):
                found = list(self._restored(self._log, self._folder, of))
        with self._lock:
            self._last = {}
            self._kept.clear()
            self._kept.extend(reversed(found))

    def _restored(self, log: Path, folder: Path, of: Comparison) -> Iterator[Disagreement]:
        for row in pictured(log, SHOWN, of):
            with contextlib.suppress(OSError):
                yield Disagreement(next(self._numbers), row, (folder / row["picture"]).read_bytes(), False)

    def event(self, source: str, verdict: str, captured_s: float, apart: bool, so_far: int) -> tuple[int, bool]:
        """Return the number of the event that a disagreement belongs to, and whether it is a new one.

        `apart`: every frame is a part of its own. `so_far` events were there before.
        """
        last_s, number = self._last.get((source, verdict), (float("-inf"), 0))
        new = apart or abs(captured_s - last_s) >= SAME_EVENT_S
        number = so_far + 1 if new else number
        self._last[source, verdict] = captured_s, number
        return number, new

    def keep(self, row: Mapping[str, Any], jpeg: bytes) -> tuple[int, str]:
        """Keep a picture; return its number on the page, and its file's name beside the log, empty where there is none.

        Raises `OSError` where it cannot be written; it is kept in memory then.
        """
        number = next(self._numbers)
        with self._lock:
            self._kept.append(Disagreement(number, row, jpeg, True))
        if self._folder is None:
            return number, ""
        taken = datetime.fromtimestamp(row["captured_s"], timezone.utc)
        name = f"{taken:%Y%m%dT%H%M%S%f}_{safe_name(row['source'])}_{row['frame']}.jpg"
        self._folder.mkdir(exist_ok=True)
        write_bytes(self._folder / name, jpeg)
        for old in sorted(self._folder.glob("*.jpg"))[:-KEPT]:
            old.unlink(missing_ok=True)
        return number, name

    def newest(self) -> list[Disagreement]:
        """Return them, the newest first."""
        with self._lock:
            return list(reversed(self._kept))

    def jpeg(self, number: int) -> bytes:
        """Return the picture of one; empty where it is not kept any more."""
        return next((one.jpeg for one in self.newest() if one.number == number), b"")
