"""The addresses that the page, machines and the watchdog ask for."""

import asyncio
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from runtime.common.errors import UserError
from runtime.serve.access import Access
from runtime.serve.guard import READING_S, Guard
from runtime.serve.metrics import CONTENT_TYPE, Metrics
from runtime.serve.observed import Observed
from runtime.serve.page_state import PageState
from runtime.serve.pictures import Jpeg
from runtime.serve.threshold_control import ThresholdMoved

LONG_POLL_S = 10.0  # how long a request for a live picture waits for one
WRONG_TOKEN_S = 1.0  # how long a wrong token waits for its answer
LOGIN_MESSAGE = "<!-- message -->"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class Bell:
    """Wakes everybody who waits for the next live picture."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def ring(self) -> None:
        """Wake those who wait now; those who come later wait for the next ring."""
        self.rung.set()
        self.rung = asyncio.Event()


@cache
def _static(name: str) -> str:
    return (files("runtime.serve") / "static" / name).read_text(encoding="utf-8")


def static(name: str, status: int = 200, message: str = "") -> web.Response:
    """Return a file of the package; `message` takes the place of the login form's comment."""
    text = _static(name).replace(LOGIN_MESSAGE, message)
    return web.Response(status=status, text=text, content_type=TYPES[Path(name).suffix])


class Handlers:
    """Answers requests; everything that takes time is done elsewhere (`runtime.serve.pictures`) or in a thread."""

    def __init__(
        self, access: Access, guard: Guard, observed: Observed, page_state: PageState, metrics: Metrics
    ) -> None:
        self._access = access
        self._guard = guard
        self._observed = observed
        self._page_state = page_state
        self._metrics = metrics
        self.bell = Bell()
        self._closing = False

    def close(self) -> None:
        """Send those away who wait for a picture."""
        self._closing = True
        self.bell.ring()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return every address; none that answers GET changes anything."""
        return [
            web.get("/", self._page),
            web.get("/page.css", self._page),
            web.get("/page.js", self._page),
            web.get("/favicon.ico", self._nothing),
            web.get("/login", self._login_form),
            web.post("/login", self._login),
            web.post("/logout", self._logout),
            web.get("/api/state", self._state),
            web.post("/api/threshold", self._set_threshold),
            web.get(r"/live/{source:\d+}.jpg", self._live),
            web.get(r"/anomalies/{picture:\d+}.jpg", self._anomaly),
            web.get("/metrics", self._metrics_text),
            web.get("/health", self._health),
        ]

    async def _page(self, request: web.Request) -> web.Response:
        return static(request.path.removeprefix("/") or "index.html")

    async def _nothing(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _login_form(self, request: web.Request) -> web.Response:
        if self._access.open:
            raise web.HTTPSeeOther("/")
        return static("login.html")

    async def _login(self, request: web.Request) -> web.Response:
        form = await asyncio.wait_for(request.post(), READING_S)
        if not self._access.is_token(str(form.get("token", ""))):
            await asyncio.sleep(WRONG_TOKEN_S)
            return static("login.html", 401, '<p id="error" role="alert">That is not the token.</p>')
        response = web.Response(status=303, headers={"Location": "/"})
        self._guard.sign_in(response)
        return response

    async def _logout(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        self._guard.sign_out(response)
        return response

    async def _state(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit()):
            raise web.HTTPBadRequest(text="since must be a whole number")
        return _json(self._page_state.since(int(since[:18]), "minutes" in request.query))

    async def _live(self, request: web.Request) -> web.Response:
        """Answer with the newest picture after `?after=N`; wait for one, and with 204 for none in `LONG_POLL_S`."""
        names = {number: name for name, number in self._page_state.source_names.items()}
        source = names.get(int(request.match_info["source"][:18]))
        after = request.query.get("after", "0")
        if source is None or not (after.isascii() and after.isdigit()):
            raise web.HTTPNotFound(text="no such source")
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LONG_POLL_S
        while (left_s := end_s - loop.time()) > 0 and not self._closing:
            rung = self.bell.rung
            if picture := self._observed.pictures.live(source, int(after[:18])):
                return _live_picture(picture)
            try:
                await asyncio.wait_for(rung.wait(), left_s)
            except asyncio.TimeoutError:
                break
        return web.Response(status=204)

    async def _anomaly(self, request: web.Request) -> web.Response:
        number = int(request.match_info["picture"][:18])
        for anomaly in self._observed.pictures.anomalies():
            if anomaly.picture == number:
                return web.Response(body=anomaly.jpeg, content_type="image/jpeg")
        raise web.HTTPNotFound(text="only the last anomalies are kept")

    async def _set_threshold(self, request: web.Request) -> web.Response:
        try:
            asked = json.loads(await asyncio.wait_for(request.text(), READING_S))
            value, instead_of = float(asked["value"]), float(asked["instead_of"])
        except (ValueError, TypeError, KeyError):
            raise web.HTTPBadRequest(text='send {"value": X, "instead_of": the present threshold}') from None
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._observed.control.write, value, instead_of)
        except ThresholdMoved as error:
            return _json({"error": str(error)}, 409)
        except UserError as error:
            return _json({"error": str(error)}, 422)
        except OSError as error:
            return _json({"error": f"the sidecar could not be written: {error}"}, 507)
        finally:
            self._page_state.forget()
        return _json({"value": value})

    async def _metrics_text(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        """Answer without a token: a watchdog gets to know whether frames are judged, and nothing else."""
        state = self._observed.health()
        age_s = None if state.age_s is None else round(state.age_s, 3)
        said = {"status": "ok" if state.ok else "failing", "reason": state.reason, "last_judgement_age_s": age_s}
        return _json(said, 200 if state.ok else 503)


def _live_picture(picture: Jpeg) -> web.Response:
    """Return the JPEG, and in its headers what it shows: the words beside it then fit the picture."""
    headers = {
        "X-Frame-Number": str(picture.number),
        "X-Score": "" if picture.result.score is None else repr(picture.result.score),
        "X-Threshold": repr(picture.result.threshold),
        "X-Verdict": picture.result.verdict,
        "X-Reason": quote(picture.result.reason),
    }
    return web.Response(body=picture.jpeg, content_type="image/jpeg", headers=headers)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(value, allow_nan=False), content_type="application/json")
