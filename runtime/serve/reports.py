"""The report as text, written once for all who ask for the same points of it."""

import json

from runtime.serve.inspected import Inspected
from runtime.serve.link import Message

MOST_TEXTS = 64  # readers who are up to date ask for few different ones


class Reports:
    """`text` is what `/api/state` answers."""

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected
        self._written: Message = {}  # the report that the texts are of
        self._texts: dict[tuple[int, bool], str] = {}

    async def text(self, since: int, minutes: bool) -> str:
        """Return the report with the points after number `since`, and the last 24 hours by minute if asked for."""
        report = await self._inspected.report.get()
        by_minute = {"minutes": await self._inspected.minutes.get()} if minutes else {}
        if report is not self._written or len(self._texts) >= MOST_TEXTS:
            self._written, self._texts = report, {}
        if (since, minutes) not in self._texts:
            whole = {**report, "points": self._inspected.rows_after(since), **by_minute}
            self._texts[since, minutes] = json.dumps(whole, allow_nan=False)
        return self._texts[since, minutes]
