"""Who may look and act: a token, a signed cookie for browsers, and checks that a request came from our own page."""

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import urlsplit

SESSION_S = 7 * 24 * 3600  # a screen beside the line should not ask for the token every morning


class Access:
    """Checks tokens and sessions; `token` None lets everybody in who can connect.

    A session is `<end>.<signature>`, signed with a key made from the token: nothing is kept, a restart signs nobody
    out, and another token signs everybody out. `clock` gives seconds since 1970.
    """

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self._token = None if token is None else token.encode()
        self._key = b"" if token is None else hmac.digest(token.encode(), b"cflow-edge session", "sha256")
        self._clock = clock

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return self._token is None

    def is_token(self, given: str) -> bool:
        """Return whether `given` is the token, in a time that does not depend on how much of it is right."""
        if self._token is None:
            return False
        return hmac.compare_digest(sha256(_bytes(given)).digest(), sha256(self._token).digest())

    def is_bearer(self, header: str) -> bool:
        """Return whether an `Authorization` header carries the token."""
        scheme, _, value = header.partition(" ")
        return scheme.lower() == "bearer" and self.is_token(value.strip())

    def new_session(self) -> str:
        """Return what the cookie of somebody who knew the token holds."""
        end = str(int(self._clock() + SESSION_S))
        return f"{end}.{self._sign(end)}"

    def session_left_s(self, cookie: str) -> float:
        """Return for how many seconds more `cookie` is good; 0 for one that is none of ours or has ended."""
        end, _, signature = cookie.partition(".")
        if self.open or not hmac.compare_digest(_bytes(signature), self._sign(end).encode()):
            return 0.0
        return max(0.0, int(end) - self._clock())  # signed by us, so it is a number

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, _bytes(text), "sha256").hexdigest()


def _bytes(text: str) -> bytes:
    """Return what a header or a form holds, whatever its bytes were."""
    return text.encode(errors="surrogatepass")


def same_origin(origin: str | None, host: str, fetch_site: str | None) -> bool:
    """Return whether a browser's `Origin`, `Host` and `Sec-Fetch-Site` headers name one and the same site.

    Programs send no `Origin`, and are let through: nobody can make a program visit a page.
    """
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return False
    try:
        return origin is None or urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:  # no address at all
        return False
