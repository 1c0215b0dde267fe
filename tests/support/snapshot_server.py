"""An http server that answers one JPEG a request, as network cameras do; it may want a sign-in."""

import base64
import hashlib
import http.server
import io
import re
import threading

import numpy as np
from PIL import Image

REALM, NONCE = "camera", "0a4f113b"


def jpeg(level: int) -> bytes:
    held = io.BytesIO()
    picture = np.random.default_rng(level).integers(level, level + 40, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(held, "JPEG", quality=95)
    return held.getvalue()


class SnapshotServer:
    """Counts its answers; `scheme` "basic" or "digest" asks for `user` and `password`, `content` is what it answers."""

    def __init__(self, scheme: str = "", user: str = "", password: str = "") -> None:
        self.asked = 0  # by those that were signed in
        self.content = jpeg(50)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not server._signed_in(self.headers.get("Authorization", ""), self.path, scheme, user, password):
                    challenge = f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth"'
                    self.send_response(401)
                    challenge = challenge if scheme == "digest" else f'Basic realm="{REALM}"'
                    self.send_header("WWW-Authenticate", challenge)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                server.asked += 1
                self.send_response(200)
                self.send_header("Content-Type", "image/jpeg")
                self.send_header("Content-Length", str(len(server.content)))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @staticmethod
    def _signed_in(given: str, path: str, scheme: str, user: str, password: str) -> bool:
        if scheme == "basic":
            return given == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if scheme != "digest":
            return True
        told = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', given)}
        if told.get("username") != user:
            return False
        first = _md5(f"{user}:{REALM}:{password}")
        second = _md5(f"GET:{path}")
        middle = f"{NONCE}:{told['nc']}:{told['cnonce']}:{told['qop']}"
        return told["response"] == _md5(f"{first}:{middle}:{second}")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
