"""The errors of the page's process, sent to the inspection, which counts them and says the first of each kind."""

import asyncio
import contextlib
from typing import Any

from runtime.serve.inspected import Failed, Inspected, NoAnswer

EVERY_S = 0.5  # however many errors strangers cause


class Outbox:
    """Collects errors by kind; `keep_sending` has to run."""

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected
        self._new: dict[str, list[Any]] = {}  # kind: [how often, the first one's text]

    def add(self, kind: str, error: BaseException | str) -> None:
        """Note one error of `kind`, a short fixed word."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self._new.setdefault(kind, [0, text])[0] += 1

    async def send(self) -> None:
        """Send what is new."""
        new, self._new = self._new, {}
        if new:
            with contextlib.suppress(NoAnswer, Failed):
                await self._inspected.ask("troubles", troubles=new)

    async def keep_sending(self) -> None:
        """Send until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.send()
