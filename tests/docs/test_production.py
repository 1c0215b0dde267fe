"""The files of docs/deploy, each held to the program that reads it."""

import http.client
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.support.documentation import example
from tests.support.paths import ROOT
from tests.support.serve_rig import Rig, serving, until
from tests.support.systemd import needs_systemd, verify

TOKEN = "correct-horse-battery-staple"
SITE = "line1.example"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
needs_nginx = pytest.mark.skipif(not (NGINX and shutil.which("openssl")), reason="nginx and openssl")


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path):
    text = example("cflow-line.service").read_text()
    assert "ExecStart=/opt/cflow-edge/.venv/bin/cflow infer --config line.toml\n" in text
    name, programs = "cflow-line.service", ("/opt/cflow-edge/.venv/bin/cflow",)
    assert verify(name, text, tmp_path, programs) == ""
    assert "Unknown key" in verify(name, text.replace("ProtectHome=", "ProtectHom="), tmp_path, programs)


def test_the_unit_ends_as_the_command_does():
    text = example("cflow-line.service").read_text()
    assert "SuccessExitStatus=143" in text  # 128 and SIGTERM: runtime.common.interrupts


@pytest.mark.parametrize("name", ["line.toml", "triggered.toml"])
def test_the_configuration_is_one(name: str, tmp_path: Path):
    shutil.copy(example(name), tmp_path)
    command = [sys.executable, "-m", "runtime.infer", "--config", str(tmp_path / name), "--dry-run"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "") and "cam" in ended.stdout


def test_the_recipes_are_some(tmp_path: Path):
    """Every line of it goes through the command, though its engines are not there."""
    mask = tmp_path / "mask.png"
    Image.new("L", (8, 8), 255).save(mask)
    path = tmp_path / "recipes.toml"
    path.write_text(example("recipes.toml").read_text().replace("plug_mask.png", str(mask)))
    words = ["--recipes", str(path), "--camera", "genicam", "--dry-run"]
    ended = subprocess.run([sys.executable, "-m", "runtime.infer", *words], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "recipe 1 cable: " in ended.stdout and "recipe 2 plug: engine plug.onnx, threshold manual" in ended.stdout
    assert "recipe 3 socket, pins: engine pins.onnx, threshold strict" in ended.stdout


@dataclass(frozen=True)
class Proxy:
    """A running nginx with our file: TLS on `port`, the page of `rig` behind it."""

    rig: Rig
    port: int
    certificate: Path

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> http.client.HTTPResponse:
        """Ask as a browser at https://line1.example/ would; `headers` with _ for -."""
        tls = ssl.create_default_context(cafile=str(self.certificate))
        connection = _Connection("127.0.0.1", self.port, timeout=60, context=tls)
        sent = {"Host": SITE} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response

    def sign_in(self) -> str:
        """Return the session's cookie as a browser sends it back."""
        form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": f"https://{SITE}"}
        response = self.ask("POST", "/login", f"token={TOKEN}", **form)
        assert response.status == 303, response.status
        return str(response.headers["Set-Cookie"])


class _Connection(http.client.HTTPSConnection):
    """A connection to an address that is asked for, and must prove to be, `SITE`."""

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), timeout=60)
        self.sock = self._context.wrap_socket(plain, server_hostname=SITE)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    assert NGINX
    key, certificate, port = tmp_path / "line1.key", tmp_path / "line1.pem", _free_port()
    names = ["-subj", f"/CN={SITE}", "-addext", f"subjectAltName=DNS:{SITE}"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    with serving(tmp_path, TOKEN) as rig:
        text = example("nginx.conf").read_text()
        text = _replaced(text, "listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        text = _replaced(text, "/etc/ssl/certs/line1.pem", str(certificate))
        text = _replaced(text, "/etc/ssl/private/line1.key", str(key))
        text = _replaced(text, ":8080;", f":{rig.server.address.port};")
        (tmp_path / "line.conf").write_text(text)
        main = tmp_path / "main.conf"
        main.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ access_log off; include {tmp_path}/line.conf; }}\n")
        command = [NGINX, "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(main)]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        process = subprocess.Popen([*command, "-g", "daemon off;"])
        try:
            until(lambda: _listens(port))
            yield Proxy(rig, port, certificate)
        finally:
            process.terminate()
            process.wait(15)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@needs_nginx
def test_the_page_behind_the_proxy(proxy: Proxy):
    assert proxy.ask("GET", "/").headers["Location"] == "/login"  # who gets through the proxy must still sign in
    assert proxy.ask("GET", "/metrics").status == 401
    cookie = proxy.sign_in()
    assert {"secure", "httponly"} <= {word.strip().lower() for word in cookie.split(";")}
    session = cookie.partition(";")[0]
    page = proxy.ask("GET", "/", Cookie=session)
    assert page.status == 200 and "max-age" in page.headers["Strict-Transport-Security"]


@needs_nginx
def test_actions_through_the_proxy_come_from_its_own_page_only(proxy: Proxy):
    session = proxy.sign_in().partition(";")[0]
    proxy.rig.judge(20)
    body = f'{{"value": 1.5, "instead_of": {proxy.rig.detector.threshold}}}'
    sent = {"Cookie": session, "X_Requested_By": "cflow-edge", "Content_Type": "application/json"}
    foreign = proxy.ask("POST", "/api/threshold", body, **sent, Origin="https://elsewhere.example")
    assert foreign.status == 403 and proxy.rig.detector.threshold == 1.0
    own = proxy.ask("POST", "/api/threshold", body, **sent, Origin=f"https://{SITE}")
    assert own.status == 200 and proxy.rig.detector.threshold == 1.5
