"""The addresses that the page, machines and the watchdog ask for; `runtime.serve.api` lists them."""

import asyncio
import json
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from runtime.serve.access import Access
from runtime.serve.api import OPERATIONS, Operation, openapi
from runtime.serve.bodies import (
    read_drift,
    read_mark,
    read_promotion,
    read_recipe,
    read_threshold,
    read_token_field,
    read_trigger,
    read_withdrawal,
)
from runtime.serve.guard import Guard
from runtime.serve.inspected import Inspected, NoAnswer
from runtime.serve.limits import Limits
from runtime.serve.live import Live, Picture, now_s
from runtime.serve.outbox import Outbox
from runtime.serve.reports import Reports

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LOGIN_MESSAGE = "<!-- message -->"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@cache
def _static(name: str) -> str:
    return (files("runtime.serve") / "static" / name).read_text(encoding="utf-8")


def static(name: str, status: int = 200, message: str = "") -> web.Response:
    """Return a file of the package; `message` takes the place of the login form's comment."""
    text = _static(name).replace(LOGIN_MESSAGE, message)
    return web.Response(status=status, text=text, content_type=TYPES[Path(name).suffix])


class Handlers:
    """Answers requests; nothing here takes time, and what the inspection is asked is shared by all who ask it."""

    def __init__(self, access: Access, guard: Guard, inspected: Inspected, outbox: Outbox, limits: Limits) -> None:
        self._access = access
        self._guard = guard
        self._inspected = inspected
        self._reports = Reports(inspected)
        self._outbox = outbox
        self._limits = limits
        self._live: dict[str, Live] = {}

    def close(self) -> None:
        """Send those away who wait for a picture."""
        for live in self._live.values():
            live.close()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return every address; none that answers GET changes anything."""
        return [web.route(o.method, o.path, partial(self._answer, o)) for o in OPERATIONS]

    async def _answer(self, operation: Operation, request: web.Request) -> web.Response:
        answer: web.Response = await getattr(self, operation.handler)(request, **operation.numbers(request))
        return answer

    async def page(self, request: web.Request) -> web.Response:
        """Return the page or a file of it."""
        return static(request.path.removeprefix("/") or "index.html")

    async def nothing(self, request: web.Request) -> web.Response:
        """Return nothing."""
        return web.Response(status=204)

    async def description(self, request: web.Request) -> web.Response:
        """Return what `runtime.serve.api` says of itself."""
        report = await self._inspected.report.get()
        return _json(openapi(self._guard.cookie, self._access.open, report["threshold"]["maximum"]))

    async def login_form(self, request: web.Request) -> web.Response:
        """Ask for the token."""
        if self._access.open:
            raise web.HTTPSeeOther("/")
        return static("login.html")

    async def login(self, request: web.Request) -> web.Response:
        """Give a browser that knows the token a session."""
        if not self._access.is_token(await read_token_field(request, self._limits.reading_s)):
            await asyncio.sleep(self._limits.wrong_token_s)
            return static("login.html", 401, '<p id="error" role="alert">That is not the token.</p>')
        response = web.Response(status=303, headers={"Location": "/"})
        self._guard.sign_in(response)
        return response

    async def logout(self, request: web.Request) -> web.Response:
        """Take a browser's session away."""
        response = web.Response(status=204)
        self._guard.sign_out(response)
        return response

    async def state(self, request: web.Request, since: int, minutes: int) -> web.Response:
        """Return all that the page shows, with the points after `since`."""
        text = await self._reports.text(since, bool(minutes))
        return web.Response(text=text, content_type="application/json")

    async def live(self, request: web.Request, source: int, after: int) -> web.Response:
        """Return the newest picture after number `after`; wait for one, and return 204 if none comes."""
        report = await self._inspected.report.get()
        names = report["source_names"]
        if source >= len(names):
            raise web.HTTPNotFound(text="no such source")
        live = self._live.setdefault(names[source], Live(partial(self._ask_live, names[source])))
        picture = await live.newer(after, self._limits.long_poll_s)
        return web.Response(status=204) if picture is None else _live_picture(picture)

    async def _ask_live(self, source: str, after: int) -> Picture | None:
        shown, jpeg = await self._inspected.ask("live", source=source, after=after)
        return Picture(shown.pop("number"), shown, jpeg, now_s()) if jpeg else None

    async def anomaly(self, request: web.Request, picture: int) -> web.Response:
        """Return the picture of one of the last anomalies."""
        _, jpeg = await self._inspected.ask("anomaly", picture=picture)
        if not jpeg:
            raise web.HTTPNotFound(text="only the last anomalies are kept")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def crop(self, request: web.Request, picture: int, crop: int) -> web.Response:
        """Return a piece of the frame of one of the last anomalies, at the frame's own resolution."""
        _, jpeg = await self._inspected.ask("crop", picture=picture, crop=crop)
        if not jpeg:
            raise web.HTTPNotFound(text="only crops of the last anomalies in large frames are kept")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def disagreement(self, request: web.Request, picture: int) -> web.Response:
        """Return the picture of one of the last disagreements with the candidate."""
        _, jpeg = await self._inspected.ask("disagreement", picture=picture)
        if not jpeg:
            raise web.HTTPNotFound(text="only the last disagreements are kept")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def threshold(self, request: web.Request) -> web.Response:
        """Write another threshold to the sidecar and judge by it."""
        value, instead_of, recipe = await read_threshold(request, self._limits.reading_s)
        answer = await self._inspected.set_threshold(value, instead_of, recipe, **self._asked_by(request))
        return _json(answer["said"], answer["status"])

    async def recipe(self, request: web.Request) -> web.Response:
        """Judge by another recipe."""
        name = await read_recipe(request, self._limits.reading_s)
        answer = await self._inspected.set_recipe(name, **self._asked_by(request))
        return _json(answer["said"], answer["status"])

    async def promote(self, request: web.Request) -> web.Response:
        """Let the candidate judge."""
        return await self._changed("promote", request)

    async def rollback(self, request: web.Request) -> web.Response:
        """Let the engine before the last promotion judge again."""
        return await self._changed("rollback", request)

    async def _changed(self, action: str, request: web.Request) -> web.Response:
        candidate, override, name = await read_promotion(request, self._limits.reading_s)
        said = self._asked_by(request, name)
        answer = await self._inspected.change_engine(action, candidate, override, **said)
        return _json(answer["said"], answer["status"])

    async def mark(self, request: web.Request) -> web.Response:
        """Mark what the page shows as a false alarm or a miss."""
        return await self._marked(request, *await read_mark(request, self._limits.reading_s))

    async def withdraw(self, request: web.Request) -> web.Response:
        """Undo a mark."""
        number, reason, name = await read_withdrawal(request, self._limits.reading_s)
        return await self._marked(request, number, "", reason, name)

    async def _marked(self, request: web.Request, of: int, kind: str, reason: str, name: str) -> web.Response:
        answer = await self._inspected.mark(of, kind, reason=reason, **self._asked_by(request, name))
        return _json(answer["said"], answer["status"])

    async def drift(self, request: web.Request) -> web.Response:
        """Acknowledge a drift alarm."""
        alarm, renew, name = await read_drift(request, self._limits.reading_s)
        answer = await self._inspected.acknowledge(alarm, renew, **self._asked_by(request, name))
        return _json(answer["said"], answer["status"])

    async def marks(self, request: web.Request) -> web.Response:
        """Return the last marks."""
        return _json(await self._inspected.marks.get())

    def _asked_by(self, request: web.Request, name: str = "") -> dict[str, str]:
        who = "page, open to all" if self._access.open else "page, signed in with the token"
        return {"who": f"{name}, {who}" if name else who, "origin": request.remote or "unknown"}

    async def audit(self, request: web.Request) -> web.Response:
        """Return the last changes in the inspection log."""
        return _json(await self._inspected.audit.get())

    async def trigger(self, request: web.Request, wait: int) -> web.Response:
        """Ask for the verdict of a part; say that it will come, or wait for it."""
        asked_s = now_s()
        part, source = await read_trigger(request, self._limits.reading_s)
        answer = await self._inspected.trigger(part, source, asked_s, bool(wait))
        return _json(answer["said"], answer["status"])

    async def metrics(self, request: web.Request) -> web.Response:
        """Return what Prometheus scrapes."""
        await self._outbox.send()
        return web.Response(body=await self._inspected.metrics.get(), headers={"Content-Type": METRICS_TYPE})

    async def health(self, request: web.Request) -> web.Response:
        """Answer a watchdog, who has no token: whether frames are judged, and nothing else."""
        try:
            said = await self._inspected.health.get()
        except NoAnswer:
            said = {"status": "failing", "reason": "the inspection does not answer", "last_judgement_age_s": None}
        return _json(said, 200 if said["status"] == "ok" else 503)


def _live_picture(picture: Picture) -> web.Response:
    """Return the JPEG, and in its headers what it shows: the words beside it then fit the picture."""
    shown = picture.shown
    headers = {
        "X-Frame-Number": str(picture.number),
        "X-Score": "" if shown["score"] is None else repr(shown["score"]),
        "X-Threshold": repr(shown["threshold"]),
        "X-Verdict": shown["verdict"],
        "X-Reason": quote(shown["reason"]),
    }
    return web.Response(body=picture.jpeg, content_type="image/jpeg", headers=headers)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(value, allow_nan=False), content_type="application/json")
