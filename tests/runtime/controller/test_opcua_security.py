"""Who may talk to the OPC UA server, by which certificate it is known, and what strangers get."""

import asyncio
import contextlib
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import Client, ua

from runtime.common.errors import UserError
from runtime.controller.certificate import DAYS, make_if_missing, own_uri, read_identity
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import ROOT
from runtime.controller.opcua_options import CERTIFICATE_NAME, KEY_NAME, OpcuaOptions
from runtime.triggers.trigger import Trigger
from tests.support.controllers import judged
from tests.support.opcua_server import ask, open_server, read
from tests.support.waiting import wait_until

USER, PASSWORD = "plc", "correct-horse-battery"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opcua")
    (folder / "credentials").write_text(f"{USER}\n{PASSWORD}\n")
    return folder


@pytest.fixture(scope="module")
def secured(folder: Path) -> Iterator[OpcuaServer]:
    """With a password and encrypted, as beyond this machine."""
    with open_server(OpcuaOptions.parse("0", folder / "credentials", folder / "server")) as server:
        yield server


def test_with_a_password_it_is_encrypted_and_everything_works(secured: OpcuaServer, folder: Path):
    how = {"folder": folder, "user": USER, "password": PASSWORD}
    secured.write(judged(trigger=Trigger("SN1", 1.0, "http")))
    assert read(secured, "Source1.Verdict", "Source1.PartId", **how) == ["good", "SN1"]
    secured.triggers["opcua"].start(lambda trigger: "")
    assert ask(secured, lambda line: line.inspect("SN2"), **how) == [True, ""]
    secured.triggers["opcua"].close()


@pytest.mark.parametrize(
    ("user", "password"), [(USER, "wrong-horse-battery"), ("other", PASSWORD), ("admin", "admin"), ("", "")]
)
def test_a_wrong_password_and_nobody_are_refused(secured: OpcuaServer, folder: Path, user: str, password: str):
    with pytest.raises((ua.UaError, ConnectionError)):
        read(secured, "Source1.Verdict", folder=folder, user=user, password=password)


def test_no_password_is_taken_without_encryption(secured: OpcuaServer, folder: Path):
    with pytest.raises((ua.UaError, ConnectionError)):
        read(secured, "Source1.Verdict", user=USER, password=PASSWORD)
    with pytest.raises((ua.UaError, ConnectionError)):
        read(secured, "Source1.Verdict", folder=folder, user=USER, password=PASSWORD, mode="Sign")


def test_a_session_that_has_not_signed_in_may_do_nothing(secured: OpcuaServer):
    """Whatever asyncua itself thinks of a session on an unencrypted channel."""

    async def run() -> list[str]:
        client = Client(f"opc.tcp://127.0.0.1:{secured.address.port}/", timeout=30)
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()
        refused = []
        try:
            with pytest.raises(ua.UaError, match="No matching endpoints"):  # the client's own wish; there is a session
                await client.create_session()
            node = client.get_node(f"ns=2;s={ROOT}.Trigger.Start")
            for work in (
                node.read_value(),
                node.write_value(True),
                client.get_node(f"ns=2;s={ROOT}").call_method("2:Inspect", "SN1"),
                client.nodes.objects.get_children(),
                client.create_subscription(100, None),
            ):
                with pytest.raises(ua.UaError) as error:
                    await work
                refused.append(type(error.value).__name__)
        finally:
            client.disconnect_socket()
        return refused

    taken: list[Trigger] = []
    secured.triggers["opcua"].start(lambda trigger: taken.append(trigger) or "")
    refused = asyncio.run(run())
    secured.triggers["opcua"].close()
    assert refused == ["BadSessionNotActivated"] * 5 and not taken


def test_strangers_learn_how_to_sign_in_and_cannot_register(secured: OpcuaServer):
    async def run() -> list[Any]:
        client = Client(f"opc.tcp://127.0.0.1:{secured.address.port}/", timeout=30)
        found = await client.connect_and_get_server_endpoints()
        async with client_of_discovery(client):
            with pytest.raises(ua.UaError):
                await client.register_server(_Someone())
        return found

    [endpoint] = asyncio.run(run())
    assert endpoint.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
    assert endpoint.SecurityPolicyUri.endswith("Basic256Sha256")
    assert [token.TokenType for token in endpoint.UserIdentityTokens] == [ua.UserTokenType.UserName]


class _Someone:
    product_uri = "urn:someone"
    application_type = ua.ApplicationType.Server
    name = "someone"
    endpoint = type("Url", (), {"geturl": staticmethod(lambda: "opc.tcp://elsewhere:4840")})()

    def get_application_uri(self) -> str:
        return "urn:someone:else"


@contextlib.asynccontextmanager
async def client_of_discovery(client: Client) -> Any:
    await client.connect_sessionless()
    try:
        yield client
    finally:
        await client.disconnect_sessionless()


def test_the_certificate_is_made_once_and_its_key_is_the_owners_alone(secured: OpcuaServer, folder: Path):
    certificate, key = folder / "server" / CERTIFICATE_NAME, folder / "server" / KEY_NAME
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = certificate.read_bytes(), key.read_bytes()
    make_if_missing(certificate, key)  # what the next start does
    assert (certificate.read_bytes(), key.read_bytes()) == before
    identity = read_identity(certificate, key)
    assert identity.uri == own_uri() and identity.uri.startswith("urn:")
    assert identity.certificate.not_valid_after_utc - identity.certificate.not_valid_before_utc == timedelta(DAYS)


def test_a_key_that_others_can_read_is_said(secured: OpcuaServer, folder: Path, tmp_path: Path, capfd: Any):
    made, key = folder / "server" / CERTIFICATE_NAME, tmp_path / KEY_NAME
    key.write_bytes((folder / "server" / KEY_NAME).read_bytes())
    key.chmod(0o644)
    read_identity(made, key)
    assert f"chmod 600 {key}" in capfd.readouterr().err


def test_a_certificate_that_is_none_is_one_line(folder: Path, tmp_path: Path, secured: OpcuaServer):
    made, key = folder / "server" / CERTIFICATE_NAME, folder / "server" / KEY_NAME
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate\n")

    def refused(certificate: Path, its_key: Path) -> str:
        before = threading.active_count()
        with pytest.raises(UserError) as error:
            open_server(OpcuaOptions.parse("0", folder / "credentials", None, certificate, its_key))
        wait_until(lambda: threading.active_count() == before)
        return str(error.value)

    assert "must hold a certificate (PEM)" in refused(wrong, key)
    assert "must hold a private key (PEM)" in refused(made, wrong)
    half = tmp_path / "half"
    half.mkdir()
    (half / KEY_NAME).write_bytes(key.read_bytes())
    with pytest.raises(UserError, match=r"must hold certificate.pem and key.pem, or neither; found key.pem"):
        open_server(OpcuaOptions.parse("0", folder / "credentials", half))
    with pytest.raises(OSError, match="No such file"):
        open_server(OpcuaOptions.parse("0", folder / "credentials", None, tmp_path / "none.pem", key))


def test_what_is_no_opc_ua_ends_nothing_and_is_no_news(secured: OpcuaServer, folder: Path, capfd: Any):
    long = b"HELF\xff\xff\xff\x7f" + b"x" * (1 << 19)  # says that two gigabytes follow
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 600,
        b"HELF\x08\0\0\0",
        b"MSGF\x20\0\0\0" + b"\xff" * 24,
        b"",
        long,
    ):
        connection = socket.create_connection(("127.0.0.1", secured.address.port), timeout=20)
        with connection, contextlib.suppress(OSError):
            connection.sendall(data)
            connection.settimeout(0.3)
            connection.recv(100)
    secured.write(judged())
    assert read(secured, "Source1.Verdict", folder=folder, user=USER, password=PASSWORD) == ["good"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "credentials", "more", "said"),
    [
        (
            "0.0.0.0:4840",
            None,
            {},
            r"which other machines can reach, needs user and password.*--opcua-credentials FILE",
        ),
        ("0.0.0.0:4840", "plc\nshort\n", {}, "must have 12 or more characters; found 5"),
        ("4840", "plc\n", {}, "must have 12 or more characters; found 0"),
        ("4840", f"{USER}\n{PASSWORD}\n", {}, r"needs a certificate.*--opcua-folder DIR"),
        ("4840", f"{USER}\n{PASSWORD}\nmore\n", {}, "must hold two lines, user and password"),
        ("4840", None, {"folder": Path("x")}, "needs user and password"),
        ("4840", None, {"key": Path("x")}, "belong together"),
        ("x", None, {}, r"--opcua takes \[HOST:\]PORT"),
    ],
)
def test_options_that_open_too_much_are_refused(
    tmp_path: Path, text: str, credentials: str | None, more: dict[str, Path], said: str
):
    path = None
    if credentials is not None:
        path = tmp_path / "credentials"
        path.write_text(credentials)
    with pytest.raises(UserError, match=said) as error:
        OpcuaOptions.parse(text, path, **more)
    assert PASSWORD not in str(error.value)


def test_user_and_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CFLOW_OPCUA_USER", USER)
    monkeypatch.setenv("CFLOW_OPCUA_PASSWORD", PASSWORD)
    options = OpcuaOptions.parse("0.0.0.0:4840", folder=tmp_path)
    assert (options.user, options.password) == (USER, PASSWORD) and PASSWORD not in repr(options)
