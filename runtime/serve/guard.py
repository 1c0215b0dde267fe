"""What every request has to pass before it is answered."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from runtime.serve.access import SESSION_S, Access, same_origin
from runtime.serve.address import Address, host_of, is_loopback
from runtime.serve.api import ASKED_BY, OUR_PAGE, PUBLIC
from runtime.serve.connections import Connections
from runtime.serve.inspected import Failed, NoAnswer
from runtime.serve.security_headers import HEADERS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Checks `Host`, sign-in and where actions come from; `middlewares` are in the order that aiohttp takes them.

    `defect(error)` is called for an error of this program; `connections` is set once there are some.
    """

    connections: Connections

    def __init__(self, address: Address, access: Access, defect: Callable[[Exception], None]) -> None:
        self._address = address
        self._access = access
        self._defect = defect
        self.cookie = f"cflow_session_{address.port}"
        self.middlewares = (self._answer, self._check)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn a defect into a 500 that is counted and said once, and add `HEADERS` to every answer."""
        self.connections.asked(request.protocol)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        except (NoAnswer, asyncio.TimeoutError):
            response = web.Response(status=503, text="the inspection does not answer")
        except Failed:  # counted where it happened
            response = _defect_answer()
        except Exception as error:
            self._defect(error)
            response = _defect_answer()
        finally:
            self.connections.answered(request.protocol)
        response.headers.update(HEADERS)
        return response

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        self._check_host(host, request.host)
        bearer = self._access.is_bearer(request.headers.get("Authorization", ""))
        acts = request.method not in ("GET", "HEAD") and request.match_info.http_exception is None
        if acts and not bearer:
            self._check_action(request, host)
        left_s = self._access.session_left_s(request.cookies.get(self.cookie, ""))
        if not (self._access.open or bearer or left_s > 0 or request.path in PUBLIC):
            if request.path == "/" and request.method == "GET":
                raise web.HTTPSeeOther("/login")
            raise web.HTTPUnauthorized(text="sign in, or send the token as Authorization: Bearer")
        response = await handler(request)
        if 0 < left_s < SESSION_S / 2 and not response.prepared and request.path != "/logout":
            self.sign_in(response)
        return response

    def _check_host(self, header: str, asked: str) -> None:
        """Refuse a name that points here but is not ours: a foreign page that wants to act as ours (DNS rebinding).

        `asked` is the host of the request's own address where it has one (as proxies are asked), else `header`.
        """
        for host in map(host_of, (header, f"[{asked}]" if ":" in asked and asked != header else asked)):
            if not host or (self._address.loopback and not is_loopback(host)):
                raise web.HTTPMisdirectedRequest(text="ask for this page as http://localhost")

    def _check_action(self, request: web.Request, host: str) -> None:
        """Refuse an action that a page of another site may have sent in a visitor's name."""
        ours = same_origin(request.headers.get("Origin"), host, request.headers.get("Sec-Fetch-Site"))
        asked = request.path == "/login" or request.headers.get(ASKED_BY) == OUR_PAGE  # a form cannot send headers
        if not (ours and asked):
            raise web.HTTPForbidden(text=f"an action needs the header {ASKED_BY}: {OUR_PAGE} and this page's origin")

    def sign_in(self, response: web.StreamResponse) -> None:
        """Give the browser a session."""
        session = self._access.new_session()
        response.set_cookie(self.cookie, session, max_age=SESSION_S, path="/", httponly=True, samesite="Strict")

    def sign_out(self, response: web.StreamResponse) -> None:
        """Take the browser's session away."""
        response.del_cookie(self.cookie, path="/", httponly=True, samesite="Strict")


def _defect_answer() -> web.Response:
    return web.Response(status=500, text="an error of this program; its console has one line about it")
