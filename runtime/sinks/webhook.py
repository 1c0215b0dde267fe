"""Anomalies to a web address: a POST with the JSON line of each, tried again with growing pauses."""

import http.client
import random
import string
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtime.common.addresses import marked
from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.sinks.json_lines import as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.sinks.secret import read_secret

TOKEN_VARIABLE = "CFLOW_WEBHOOK_TOKEN"
TOKEN_LETTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)
TIMEOUT_S = 5.0  # for the connection, and for each read of the answer
TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
WORTH_A_RETRY = frozenset({408, 425, 429})  # and everything from 500 on: the server's trouble, not the request's


@dataclass(frozen=True)
class WebhookOptions:
    """`url` is http(s); `token`, if any, is sent as a Bearer token. With `all_frames` good ones are posted too."""

    url: str
    token: str = field(default="", repr=False)
    all_frames: bool = False
    timeout_s: float = TIMEOUT_S
    tries: int = TRIES
    first_pause_s: float = FIRST_PAUSE_S

    @classmethod
    def parse(cls, url: str, token_file: Path | None = None, all_frames: bool = False) -> "WebhookOptions":
        """Check `url` and read the token from `token_file` or the environment.

        Raises `UserError` for another scheme, a password in the URL or a token that no header can hold.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:  # its text may hold a part of the password
            raise UserError("a webhook is http://HOST[:PORT]/PATH or https://", repr(marked(url))) from None
        if parts.scheme not in ("http", "https") or not host or not url.isascii() or set(url) & set(" \r\n\t"):
            raise UserError("a webhook is http://HOST[:PORT]/PATH or https://", repr(marked(url)))
        if "@" in parts.netloc:
            cure = f"put a token into {TOKEN_VARIABLE} or a file for --webhook-token"
            raise UserError("user and password do not belong on the command line", "them in the address", cure)
        lines = read_secret(token_file, TOKEN_VARIABLE)
        wrong = any(not line or set(line) - TOKEN_LETTERS for line in lines)
        if wrong or len(lines) > 1 or (token_file is not None and not lines):
            raise UserError("a webhook's token is one line of letters, digits and signs", "other characters or lines")
        return cls(url, "".join(lines), all_frames)


class WebhookSink(Closing):
    """Posts judgements as JSON, anomalous ones only unless told otherwise; any 2xx answer means taken.

    What the server refuses (other 4xx, a redirection) is not tried again; everything else is, `tries` times in all.
    """

    def __init__(self, options: WebhookOptions) -> None:
        parts = urlsplit(options.url)
        self.name = f"webhook {parts.scheme}://{parts.netloc}{parts.path}"  # a query may hold a secret
        self.queueing = Queueing(
            capacity=256, keep="newest", pictures=False, anomalies_only=not options.all_frames, answers_only=True
        )
        self._options = options
        self._interrupted = threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirection)

    def write(self, judgement: Judgement) -> None:
        """Post one judgement. Raises `OSError` if it is refused, or not taken in any try."""
        pause_s = self._options.first_pause_s
        for left in reversed(range(self._options.tries)):
            trouble = self._post(encode(as_json(judgement.told())))
            if trouble is None:
                return
            if not left or self._interrupted.wait(random.uniform(0.5, 1.0) * pause_s):
                raise OSError(trouble)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _post(self, body: bytes) -> str | None:
        """Try once; return None, or what went wrong where another try may help. Raises `OSError` where not."""
        headers = {"Content-Type": "application/json", "User-Agent": "cflow-edge"}
        if self._options.token:
            headers["Authorization"] = f"Bearer {self._options.token}"
        request = urllib.request.Request(self._options.url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._options.timeout_s):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            trouble = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in WORTH_A_RETRY:
                raise OSError(trouble) from None
            return trouble
        except urllib.error.URLError as error:
            return str(error.reason)
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__

    def interrupt(self) -> None:
        """Try no more."""
        self._interrupted.set()

    def close(self) -> None:
        """Nothing stays open between two posts."""


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body, and look delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse; the answer's 3xx is then an error."""
