"""An http address that answers one picture a request, as most network cameras have one: it is asked again and again."""

import http.client
import io
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

from runtime.common.errors import UserError
from runtime.images.encoding import Encoding, encoding_of
from runtime.images.opencv import opencv
from runtime.images.preprocess import PLAIN, ReadOptions, read_image
from runtime.sources.urls import Url

SNAPSHOTS_FPS = 1.0
LARGEST = 256 << 20  # bytes of one answer
NAP_S = 0.2  # how soon a request to stop is seen between two pictures
CURE = "check address, network, user and password"


class Snapshots:
    """Has the methods of an OpenCV capture that a `Reader` needs; a picture each `every_s` seconds.

    Each request ends after `timeout_s` without an answer. The sign-in of `url` is given as Basic or Digest, whichever
    is asked for.
    """

    def __init__(self, url: Url, shown: str, timeout_s: float, every_s: float, read: ReadOptions = PLAIN) -> None:
        self.encoding: Encoding | None = None
        self._url = url.without_sign_in
        self._shown = shown
        self._timeout_s = timeout_s
        self._every_s = every_s
        self._read_options = read
        self._due_s = time.monotonic()
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, self._url, url.user, url.password)
        handlers = (urllib.request.HTTPBasicAuthHandler, urllib.request.HTTPDigestAuthHandler)
        self._opener = urllib.request.build_opener(*(handler(passwords) for handler in handlers if url.sign_in))

    def answers(self) -> bool:
        """Whether the address answers one picture; raises `UserError` where it answers nothing.

        What only FFmpeg gets along with (a certificate that nobody signed, another protocol) is left to it.
        """
        try:
            with self._open() as answer:
                return str(answer.headers.get_content_type()).startswith("image/")
        except (ssl.SSLError, http.client.HTTPException):
            return False

    def _open(self) -> Any:
        try:
            return self._opener.open(self._url, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            found = f"status {error.code}"
            error.close()
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise error.reason from None
            found = f"no answer ({_why(error)})"
        except (OSError, ValueError) as error:  # their texts may hold the address
            found = f"no answer ({_why(error)})"
        raise UserError(f"{self._shown} must open", found, CURE)

    def read(self) -> tuple[bool, Any]:
        """Return (True, the next picture as BGR), or (True, None) where it is not time for one yet.

        Raises `UserError` for an answer that is no whole image.
        """
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, NAP_S))
            return True, None
        self._due_s = time.monotonic() + self._every_s
        data = io.BytesIO(self._answer())
        image = read_image(self._shown, self._read_options, data)
        data.seek(0)
        self.encoding = encoding_of(data)
        return True, opencv().cvtColor(image, opencv().COLOR_RGB2BGR)

    def _answer(self) -> bytes:
        try:
            with self._open() as answer:
                content = bytes(answer.read(LARGEST + 1))
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"{self._shown} must answer whole pictures", _why(error), CURE) from None
        if len(content) > LARGEST:
            raise UserError(f"{self._shown} must answer pictures of {LARGEST >> 20} MiB at most", "more", CURE)
        return content

    def release(self) -> None:
        """Nothing stays open between two pictures."""


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or type(reason).__name__
