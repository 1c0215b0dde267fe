"""What every request has to pass before it is answered, and what every answer carries."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from runtime.serve.access import SESSION_S, Access, same_origin
from runtime.serve.address import Address, host_of, is_loopback
from runtime.serve.troubles import Troubles

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PUBLIC = frozenset({"/login", "/page.css", "/favicon.ico", "/health"})
ASKED_BY = "X-Requested-By"  # no page of another site can send it: the browser would ask us first, and gets no answer
OUR_PAGE = "cflow-edge"
READING_S = 10.0  # for the body of a request to come
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # "no-referrer" would make a form's Origin "null"
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Checks `Host`, sign-in and where actions come from; `middlewares` are in the order that aiohttp takes them."""

    def __init__(self, address: Address, access: Access, troubles: Troubles, cookie: str) -> None:
        self._address = address
        self._access = access
        self._troubles = troubles
        self._cookie = cookie
        self.served: Callable[[RequestHandler], None] = lambda handler: None  # told of every whole request
        self.middlewares = (self._answer, self._check)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn a defect into a 500 that is counted and said once, and add `HEADERS` to every answer."""
        self.served(request.protocol)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        except asyncio.TimeoutError:
            response = web.Response(status=408, text="the request took too long")
        except Exception as error:
            self._troubles.add("request", error)
            response = web.Response(status=500, text="an error of this program; its console has one line about it")
        response.headers.update(HEADERS)
        return response

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not host or (self._address.loopback and not is_loopback(host_of(host))):
            # A name that points here but is not ours: a foreign page that wants to act as ours (DNS rebinding).
            raise web.HTTPMisdirectedRequest(text="ask for this page as http://localhost")
        bearer = self._access.is_bearer(request.headers.get("Authorization", ""))
        if request.method not in ("GET", "HEAD") and not bearer:
            self._check_action(request, host)
        left_s = self._access.session_left_s(request.cookies.get(self._cookie, ""))
        if not (self._access.open or bearer or left_s > 0 or request.path in PUBLIC):
            if request.path == "/" and request.method == "GET":
                raise web.HTTPSeeOther("/login")
            raise web.HTTPUnauthorized(text="sign in, or send the token as Authorization: Bearer")
        response = await handler(request)
        if 0 < left_s < SESSION_S / 2 and not response.prepared and request.path != "/logout":
            self.sign_in(response)
        return response

    def _check_action(self, request: web.Request, host: str) -> None:
        """Refuse an action that a page of another site may have sent in a visitor's name."""
        ours = same_origin(request.headers.get("Origin"), host, request.headers.get("Sec-Fetch-Site"))
        asked = request.path == "/login" or request.headers.get(ASKED_BY) == OUR_PAGE  # a form cannot send headers
        if not (ours and asked):
            raise web.HTTPForbidden(text=f"an action needs the header {ASKED_BY}: {OUR_PAGE} and this page's origin")

    def sign_in(self, response: web.StreamResponse) -> None:
        """Give the browser a session."""
        session = self._access.new_session()
        response.set_cookie(self._cookie, session, max_age=SESSION_S, path="/", httponly=True, samesite="Strict")

    def sign_out(self, response: web.StreamResponse) -> None:
        """Take the browser's session away."""
        response.del_cookie(self._cookie, path="/", httponly=True, samesite="Strict")
