"""Marks that people make on the page: which judgement is meant, and its frame as it was judged."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runtime.common.files import write_bytes
from runtime.images.opencv import opencv
from runtime.images.pixels import is_large
from runtime.records.log import Log
from runtime.records.marks import WITHDRAWN, Mark, Unknown, judgement, pictures_of, standing
from runtime.records.read import Query, judgements
from runtime.sinks.judgement import Judgement

KEPT = 32  # judgements of a kind, with their frames: what the page shows
KEPT_BYTES = 64 << 20  # of a kind
PASSING = "live"  # the kind whose next comes at once: it is not packed
WRITTEN_S = 3.0  # that a judgement may take on its way into the log
POLL_S = 0.1
SHOWN = 20  # marks, the newest
NO_LOG = "Verdicts cannot be corrected here: this inspection keeps no log. Start it with --log FILE.db."
GONE = "only what the page shows now can be marked; found nothing of that number"


@dataclass(frozen=True, eq=False)
class Kept:
    """A judgement that can be marked; of a large frame nothing is kept but its PNG, once it is `packed`."""

    judgement: Judgement
    packed: bytes = b""

    @property
    def is_raw(self) -> bool:
        """Whether it is a large frame that could be packed."""
        return not self.packed and is_large(self.judgement.frame.image)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return self.judgement.nbytes + len(self.packed)

    def png(self) -> bytes:
        """Return the frame as it was judged, without loss: a model may learn from it."""
        return self.packed or _png(self.judgement)

    def as_packed(self) -> "Kept":
        """Return the same in less memory."""
        return Kept(self.judgement.without_picture(), _png(self.judgement))


class Marking:
    """Keeps what the page shows, where there is a `log`, so that a click can mark it; any thread may call."""

    def __init__(self, log: Log | None) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[int, Kept]] = {}
        self._numbers: dict[int, int] = {}  # of the page, by the log's

    def keep(self, kind: str, number: int, shown: Judgement) -> None:
        """Remember judgement `number` of the page; the oldest of its kind go."""
        if self._log is None:
            return
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            kept[number] = Kept(shown.without_map() if shown.has_large_map else shown)
            while len(kept) > 1 and (len(kept) > KEPT or sum(one.nbytes for one in kept.values()) > KEPT_BYTES):
                kept.popitem(last=False)

    def pack_one(self) -> None:
        """Pack the oldest large frame that is not, which takes some tenths of a second; in the drawing thread."""
        with self._lock:
            raw = (
                (kind, number, one)
                for kind, kept in self._kept.items()
                for number, one in kept.items()
                if kind != PASSING and one.is_raw
            )
            found = next(raw, None)
        if found is None:
            return
        kind, number, one = found
        packed = one.as_packed()
        with self._lock:
            if number in self._kept[kind]:
                self._kept[kind][number] = packed

    def mark(self, number: int, kind: str, said: dict[str, str]) -> int:
        """Mark judgement `number` of the page and return its number in the log; `said` has reason, who and origin.

        Raises `Unknown`, `Refused`, `UserError` or `OSError`, with nothing marked.
        """
        with self._lock:
            found = next((kept[number] for kept in self._kept.values() if number in kept), None)
        if found is None or self._log is None:
            raise Unknown(GONE if self._log else NO_LOG)
        shown = found.judgement
        record = self._recorded(self._log, shown)
        picture = f"{record['id']:09d}.png"
        size = list(shown.frame.image.shape[:2])
        path = pictures_of(self._log.path) / picture
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, found.png())
        self._log.mark(Mark({**record, "size": size}, kind, picture=picture, **said))
        with self._lock:
            self._numbers[record["id"]] = number
        return int(record["id"])

    def withdraw(self, number: int, said: dict[str, str]) -> None:
        """Undo the mark of the log's judgement `number`. Raises as `mark`."""
        if self._log is None:
            raise Unknown(NO_LOG)
        self._log.mark(Mark(judgement(self._log.path, number), WITHDRAWN, **said))

    def report(self) -> dict[str, Any]:
        """Return the last marks that stand, the newest first, each with its number on this page, 0 without one."""
        if self._log is None:
            return {"kept": False, "why": NO_LOG, "marks": []}
        newest = list(standing(self._log.path).values())[: -SHOWN - 1 : -1]
        with self._lock:
            numbers = dict(self._numbers)
        return {"kept": True, "why": "", "marks": [_shown(mark, numbers) for mark in newest]}

    def _recorded(self, log: Log, shown: Judgement) -> dict[str, Any]:
        """Return the log's record of what is shown, which may still be on its way."""
        moment, end = shown.frame.captured_s, time.monotonic() + WRITTEN_S
        then = Query(since_s=moment, until_s=math.nextafter(moment, math.inf))
        while True:
            if found := _same(judgements(log.path, then), shown):
                return found
            if time.monotonic() > end:
                raise Unknown("the judgement must be in the log", "none", "look whether the log can be written")
            time.sleep(POLL_S)


def _same(records: Iterable[dict[str, Any]], shown: Judgement) -> dict[str, Any] | None:
    wanted = (shown.run, shown.source, shown.frame.index, shown.result.verdict)
    of = ("run", "source", "frame", "verdict")
    return next((record for record in records if tuple(record[name] for name in of) == wanted), None)


def _shown(mark: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    about, number = mark["about"], mark["judgement"]
    said = {name: mark[name] for name in ("judgement", "kind", "time", "who", "reason")}
    named = {name: about.get(name) for name in ("part", "source", "name", "score")}
    return {**said, **named, "number": numbers.get(number, 0)}


def _png(shown: Judgement) -> bytes:
    cv2 = opencv()
    done, encoded = cv2.imencode(".png", cv2.cvtColor(shown.frame.image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError("the frame is no PNG")
    return bytes(encoded)
