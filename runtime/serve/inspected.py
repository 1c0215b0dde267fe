"""The inspection as the process of its page sees it: asked over the link, one answer for all who ask at once."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from runtime.serve.limits import ANSWER_S, MARK_S, PROMOTION_S, THRESHOLD_S, TRIGGER_S
from runtime.serve.link import Message, pack, receive_async

HEALTH_FRESH_S = 0.2  # at most
MINUTES_FRESH_S = 5.0  # at most
T = TypeVar("T")


class NoAnswer(Exception):
    """The inspection did not answer in time, or has gone."""


class Failed(Exception):
    """A defect in the inspection's part of the page; it is counted there."""


class Shared(Generic[T]):
    """One answer for all who want it within `fresh_s` seconds."""

    def __init__(self, ask: Callable[[], Awaitable[T]], fresh_s: float) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._asked_s = float("-inf")
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the answer, asking where there is none that is fresh. Raises what asking raises."""
        task, now_s = self._task, time.monotonic()
        failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        if task is None or failed or (task.done() and now_s - self._asked_s > self._fresh_s):
            task = self._task = asyncio.create_task(self._asking())
            self._asked_s = now_s
        return await asyncio.shield(task)

    async def _asking(self) -> T:
        return await self._ask()

    def forget(self) -> None:
        """Have the next one asked anew."""
        self._task = None


class Inspected:
    """`keep_listening` has to run. Every call raises `NoAnswer` or `Failed`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recent: int, fresh_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._answers: dict[int, asyncio.Future[tuple[Message, bytes]]] = {}
        self._rows: deque[list[Any]] = deque(maxlen=recent)
        self._one_threshold = asyncio.Lock()
        self.health = Shared(self._ask_health, min(fresh_s, HEALTH_FRESH_S))
        self.report = Shared(self._ask_report, fresh_s)
        self.minutes = Shared(self._ask_minutes, min(10 * fresh_s, MINUTES_FRESH_S))
        self.metrics = Shared(self._ask_metrics, fresh_s)
        self.audit = Shared(self._ask_audit, fresh_s)
        self.marks = Shared(self._ask_marks, fresh_s)

    async def keep_listening(self) -> None:
        """Take answers until the inspection has gone."""
        while message := await receive_async(self._reader):
            answer, body = message
            waiting = self._answers.pop(answer.pop("to"), None)
            if waiting is not None and not waiting.done():
                waiting.set_result((answer, body))

    async def ask(self, kind: str, within_s: float = ANSWER_S, **details: Any) -> tuple[Message, bytes]:
        """Ask one question and return its answer."""
        self._number += 1
        number = self._number
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(pack({"ask": kind, "number": number, **details}))
            answer, body = await asyncio.wait_for(waiting, within_s)
        except (asyncio.TimeoutError, ConnectionError) as error:
            raise NoAnswer from error
        finally:
            self._answers.pop(number, None)
        if answer.get("failed"):
            raise Failed
        return answer, body

    def rows_after(self, number: int) -> list[list[Any]]:
        """Return the recent points that the last report came with, those with a number above `number`."""
        newest = self._rows[-1][0] if self._rows else 0
        wanted = min(max(0, newest - number), len(self._rows))
        return list(self._rows)[len(self._rows) - wanted :]

    async def set_recipe(self, name: str, **asked_by: str) -> Message:
        """Return {"status", "said"}: how it ended. `asked_by` has "who" and "origin"."""
        return await self._change("recipe", TRIGGER_S, recipe=name, **asked_by)

    async def change_engine(self, action: str, candidate: str, override: str, **asked_by: str) -> Message:
        """Return {"status", "said"}: how a promotion, or a rollback, ended. `asked_by` has "who" and "origin"."""
        asked = {"action": action, "candidate": candidate, "override": override}
        return await self._change("promotion", PROMOTION_S, **asked, **asked_by)

    async def set_threshold(
        self, value: float, instead_of: float, recipe: str | None = None, **asked_by: str
    ) -> Message:
        """Return {"status", "said"}: how it ended. `asked_by` has "who" and "origin"."""
        asked = {"value": value, "instead_of": instead_of, "recipe": recipe}
        async with self._one_threshold:
            return await self._change("threshold", THRESHOLD_S, **asked, **asked_by)

    async def mark(self, of: int, kind: str, **said: str) -> Message:
        """Return {"status", "said"}: how it ended. `of` is the page's number of what is marked, of an undo the log's.

        `kind` is empty to undo. `said` has "reason", "who" and "origin".
        """
        answer, _ = await self.ask("mark", MARK_S, of=of, as_kind=kind, **said)
        self.marks.forget()
        self.audit.forget()
        return answer

    async def acknowledge(self, alarm: int, renew: bool, **asked_by: str) -> Message:
        """Return {"status", "said"}: how it ended. `asked_by` has "who" and "origin"."""
        return await self._change("drift", MARK_S, alarm=alarm, renew=renew, **asked_by)

    async def _change(self, kind: str, within_s: float, **asked: Any) -> Message:
        """Have something changed, after which report and audit are asked for anew."""
        answer, _ = await self.ask(kind, within_s, **asked)
        self.report.forget()
        self.audit.forget()
        return answer

    async def trigger(self, part: str, source: str, asked_s: float, wait: bool) -> Message:
        """Return {"status", "said"}: that the trigger is taken or not, or, after up to its deadline, the answers."""
        within_s = TRIGGER_S if wait else ANSWER_S
        answer, _ = await self.ask("trigger", within_s, part=part, source=source, asked_s=asked_s, wait=wait)
        return answer

    async def _ask_health(self) -> Message:
        return (await self.ask("health"))[0]

    async def _ask_metrics(self) -> bytes:
        return (await self.ask("metrics"))[1]

    async def _ask_audit(self) -> Message:
        return (await self.ask("audit"))[0]

    async def _ask_marks(self) -> Message:
        return (await self.ask("marks"))[0]

    async def _ask_report(self) -> Message:
        newest = self._rows[-1][0] if self._rows else 0
        report, _ = await self.ask("state", since=newest, minutes=False)
        self._rows.extend(report.pop("points"))
        return report

    async def _ask_minutes(self) -> Any:
        newest = self._rows[-1][0] if self._rows else 0
        report, _ = await self.ask("state", since=newest, minutes=True)
        return report["minutes"]
