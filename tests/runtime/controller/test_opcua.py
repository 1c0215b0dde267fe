"""The OPC UA server, read and triggered by asyncua's own client."""

import asyncio
import contextlib
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import Client, ua

from runtime.common.errors import UserError
from runtime.controller.board import Board, Limits
from runtime.controller.certificate import DAYS, make_if_missing, own_uri, read_identity
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import LINE, ROOT, SOURCE, About
from runtime.controller.opcua_options import CERTIFICATE_NAME, KEY_NAME, OpcuaOptions
from runtime.result import Result
from runtime.sinks.delivery import Delivery
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.judgements import judgement
from tests.support.opcua_client import Line, connected
from tests.support.waiting import wait_until

PATIENT = Limits(safe_after_s=600.0, valid_s=600.0)
ABOUT = About("cable.onnx", "ab" * 32, "0.1.0")
USER, PASSWORD = "plc", "correct-horse-battery"


def _judged(source: str = "a", trigger: Trigger | None = None, score: float = 0.5, reason: str = "") -> Judgement:
    one = judgement(0, score, source)
    result: Result = one.result.without_verdict(reason) if reason else one.result
    return replace(one, result=result, trigger=trigger, late=reason.startswith("late"), judged_s=time.monotonic())


def _open(options: OpcuaOptions | None = None, limits: Limits = PATIENT) -> OpcuaServer:
    server = OpcuaServer(options or OpcuaOptions.parse("0"), Board(["a", "b"], limits), ABOUT)
    server.board.beat()
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[OpcuaServer]:
    """On this machine alone, unencrypted."""
    with _open() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opcua")
    (folder / "credentials").write_text(f"{USER}\n{PASSWORD}\n")
    return folder


@pytest.fixture(scope="module")
def secured(folder: Path) -> Iterator[OpcuaServer]:
    """With a password and encrypted, as beyond this machine."""
    with _open(OpcuaOptions.parse("0", folder / "credentials", folder / "server")) as server:
        yield server


def _ask(server: OpcuaServer, work: Callable[[Line], Awaitable[Any]], **how: Any) -> Any:
    async def run() -> Any:
        async with connected(server.address.port, **how) as line:
            return await work(line)

    return asyncio.run(run())


def _read(server: OpcuaServer, *names: str, **how: Any) -> list[Any]:
    found: list[Any] = _ask(server, lambda line: line.read(*names), **how)
    return found


def test_an_answer_is_read_by_the_documented_names(server: OpcuaServer):
    server.write(_judged("b", Trigger("SN-7", 1.0, "http"), 1.5))
    found = dict(
        zip((node.name for node in SOURCE), _read(server, *(f"Source2.{node.name}" for node in SOURCE)), strict=True)
    )
    created = found.pop("CreationTime")
    assert abs(created.timestamp() - time.time()) < 3600
    assert found.pop("Sequence") == found.pop("Total") == found.pop("Anomalous") >= 1
    assert found == {
        "Name": "b", "Verdict": "anomalous", "VerdictCode": 2, "Reason": "", "ReasonCode": 0, "Score": 1.5,
        "Threshold": 1.0, "PartId": "SN-7", "Late": False, "Good": 0, "None": 0, "LateTotal": 0,
    }  # fmt: skip
    assert _read(server, "SoftwareVersion", "Engine", "ModelHash") == ["0.1.0", "cable.onnx", "ab" * 32]


def test_none_and_late_are_told_apart(server: OpcuaServer):
    names = ("Source1.Verdict", "Source1.VerdictCode", "Source1.ReasonCode", "Source1.Late", "Source1.Reason")
    server.write(_judged(reason="the picture is black"))
    assert _read(server, *names) == ["none", 0, 1, False, "the picture is black"]
    server.write(_judged(reason="late: no verdict within 80 ms"))
    assert _read(server, *names) == ["none", 0, 2, True, "late: no verdict within 80 ms"]


def test_node_ids_and_types_are_those_of_the_table(server: OpcuaServer):
    async def look(line: Line) -> None:
        for name, node in [(n.name, n) for n in LINE] + [(f"Source2.{n.name}", n) for n in SOURCE]:
            found = line.node(name)
            assert (await found.read_data_type_as_variant_type()).name == node.kind
            assert (await found.read_browse_name()).Name == name.rpartition(".")[2]
            level = await found.get_user_access_level()
            assert (ua.AccessLevel.CurrentWrite in level) == node.writable
        below = {(await child.read_browse_name()).Name for child in await line.node().get_children()}
        assert {"Source1", "Source2", "Trigger", "Inspect", "Heartbeat"} <= below

    _ask(server, look)


def test_only_what_is_the_controllers_can_be_written_and_only_as_its_type(server: OpcuaServer):
    server.write(_judged())

    async def write(line: Line) -> None:
        for name in [node.name for node in LINE if not node.writable] + [f"Source1.{node.name}" for node in SOURCE]:
            with pytest.raises(ua.UaError):
                await line.node(name).write_value(await line.node(name).read_value())
        for name, value in (
            ("Trigger.Start", ua.Variant(1, ua.VariantType.Int16)),
            ("Trigger.PartId", ua.Variant(7, ua.VariantType.UInt32)),
            ("Trigger.PartId", ua.Variant("x" * 101)),
            ("Trigger.PartId", ua.Variant(["a"], ua.VariantType.String)),
            ("ControllerHeartbeat", ua.Variant("1")),
            ("Trigger.Start", ua.Variant(None, ua.VariantType.Null)),
        ):
            with pytest.raises(ua.UaError):
                await line.node(name).write_value(value)
        with pytest.raises(ua.UaError):
            await line.node().add_variable(ua.NodeId("Mine", line.index), f"{line.index}:Mine", 1)
        with pytest.raises(ua.UaError):
            await line.client.delete_nodes([line.node("Heartbeat")])
        with pytest.raises(ua.UaError):
            await line.inspect(5)

    _ask(server, write)
    assert _read(server, "Source1.Verdict") == ["good"]


async def _inspect(line: Line, part: str) -> list[Any]:
    """Ask for one part with the whole handshake and return its answer."""
    await line.node("Trigger.PartId").write_value(part)
    await line.node("Trigger.Start").write_value(True)
    deadline = time.monotonic() + 30
    while not (await line.read("Trigger.Done"))[0]:
        assert time.monotonic() < deadline
    answer = await line.read("Source1.PartId", "Source1.Verdict", "Source1.Sequence")
    await line.node("Trigger.Start").write_value(False)
    return answer


def _judging(server: OpcuaServer, delivery: Delivery) -> None:
    """Answer every trigger, as the inspection does, from another thread."""

    def judge(trigger: Trigger) -> None:
        score = 1.5 if int(trigger.part.removeprefix("SN")) % 3 == 0 else 0.5
        for source in ("b", "a"):
            delivery.offer(_judged(source, trigger, score))

    def take(trigger: Trigger) -> str:
        threading.Thread(target=judge, args=(trigger,)).start()
        return ""

    server.triggers["opcua"].start(take)


@contextlib.contextmanager
def _delivering(server: OpcuaServer) -> Iterator[Delivery]:
    """Give the server a queue of its own, which does not close it."""

    class Kept:
        name, queueing = server.name, server.queueing

        def write(self, judged: Judgement) -> None:
            server.write(judged)

        def close(self) -> None:
            pass

    with contextlib.closing(Delivery(Kept())) as delivery:  # type: ignore[arg-type]
        yield delivery
    assert not delivery.counts().undelivered


def test_two_hundred_parts_each_get_their_own_answer(server: OpcuaServer):
    with _delivering(server) as delivery:
        _judging(server, delivery)

        async def run(line: Line) -> list[list[Any]]:
            return [await _inspect(line, f"SN{number}") for number in range(200)]

        answers = _ask(server, run)
    server.triggers["opcua"].close()
    assert [answer[0] for answer in answers] == [f"SN{number}" for number in range(200)]
    assert [answer[1] for answer in answers] == ["good" if number % 3 else "anomalous" for number in range(200)]
    sequences = [answer[2] for answer in answers]
    assert sequences == list(range(sequences[0], sequences[0] + 200))


def test_the_method_takes_a_part_or_says_why_not(server: OpcuaServer):
    taken: list[Trigger] = []

    async def call(line: Line) -> list[list[Any]]:
        refused = await line.inspect("SN1")
        server.triggers["opcua"].start(lambda trigger: taken.append(trigger) or "")
        return [refused, await line.inspect("SN2"), await line.inspect(""), await line.inspect("x" * 101)]

    first, *others = _ask(server, call)
    server.triggers["opcua"].close()
    assert first == [False, "no trigger is taken from here"]
    assert [accepted for accepted, _ in others] == [True, True, False] and "printable" in others[2][1]
    assert [trigger.part for trigger in taken] == ["SN2", ""]


def test_who_subscribes_is_told_of_the_sequence_after_everything_else(server: OpcuaServer):
    told: list[tuple[str, Any]] = []

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            told.append((str(node.nodeid.Identifier).rpartition(".")[2], value))

    async def run(line: Line) -> None:
        subscription = await line.client.create_subscription(20, Handler())
        names = ("Source1.Sequence", "Source1.PartId", "Source1.Verdict")
        await subscription.subscribe_data_change([line.node(name) for name in names])
        for _ in range(100):
            await asyncio.sleep(0.05)
            if len(told) >= 3:
                break
        told.clear()
        await asyncio.to_thread(server.write, _judged(trigger=Trigger("subscribed", 1.0, "http"), score=1.5))
        for _ in range(200):
            await asyncio.sleep(0.05)
            if told and told[-1][0] == "Sequence":
                break

    server.write(_judged(trigger=Trigger("before", 1.0, "http")))
    _ask(server, run)
    names = [name for name, _ in told]
    assert ("PartId", "subscribed") in told and ("Verdict", "anomalous") in told
    assert names.index("Sequence") > max(names.index("PartId"), names.index("Verdict"))


def test_no_reader_sees_a_verdict_beside_another_parts_id(server: OpcuaServer):
    stop = threading.Event()
    [first] = _read(server, "Source1.Sequence")

    def write() -> None:
        number = first
        while not stop.is_set():
            number += 1
            server.write(_judged("a", Trigger(f"SN{number}", 1.0, "http"), 1.5 if number % 2 else 0.5))

    async def at_once(line: Line) -> int:
        """One request for all."""
        seen = set()
        for _ in range(100):
            number, part, verdict = await line.read("Source1.Sequence", "Source1.PartId", "Source1.Verdict")
            if number > first:
                assert part == f"SN{number}" and verdict == ("anomalous" if number % 2 else "good")
                seen.add(number)
        return len(seen)

    async def one_by_one(line: Line) -> int:
        """One request for each, held together by the sequence number before and behind."""
        whole = 0
        for _ in range(100):
            [number] = await line.read("Source1.Sequence")
            [verdict] = await line.read("Source1.Verdict")
            [part] = await line.read("Source1.PartId")
            if number > first and [number] == await line.read("Source1.Sequence"):
                assert part == f"SN{number}" and verdict == ("anomalous" if number % 2 else "good")
                whole += 1
            await asyncio.sleep(0)
        return whole

    async def run() -> int:
        async with connected(server.address.port) as line, connected(server.address.port) as other:
            seen, _ = await asyncio.gather(at_once(line), one_by_one(other))
            return seen

    writing = threading.Thread(target=write)
    writing.start()
    try:
        assert asyncio.run(run()) > 1
    finally:
        stop.set()
        writing.join()


def test_the_safe_state_the_controllers_heartbeat_and_the_end():
    """A server of its own: the inspection stops and goes on, the controller goes and returns, then all ends."""
    server = _open(limits=Limits(safe_after_s=1.0, valid_s=60.0))
    state = ("State", "Source1.Verdict", "Source1.ReasonCode")

    async def until(line: Line, wanted: list[Any]) -> None:
        deadline = time.monotonic() + 30
        while (found := await line.read(*state)) != wanted:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)

    stop, going = threading.Event(), threading.Event()
    going.set()

    def inspect() -> None:
        while not stop.wait(0.05):
            if going.is_set():
                server.board.beat()
                server.write(_judged())

    async def run(line: Line) -> list[Any]:
        await until(line, ["ContinuousExecution", "good", 0])
        going.clear()
        await until(line, ["Halted", "none", 4])
        going.set()
        await until(line, ["ContinuousExecution", "good", 0])
        beat = line.node("ControllerHeartbeat")
        await beat.write_value(ua.Variant(1, ua.VariantType.UInt32))
        await until(line, ["Error", "none", 6])  # the controller does not go on
        await beat.write_value(ua.Variant(2, ua.VariantType.UInt32))
        await until(line, ["ContinuousExecution", "good", 0])
        stop.set()
        threading.Thread(target=server.close).start()
        last = None
        with contextlib.suppress(Exception):
            while True:
                last = await line.read(*state)
                await asyncio.sleep(0.01)
        return last or []

    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        assert _ask(server, run)[:2] == ["Halted", "none"]
    except ConnectionError:  # the client's own goodbye finds nobody
        pass
    finally:
        stop.set()
        thread.join()
        server.close()


def test_with_a_password_it_is_encrypted_and_everything_works(secured: OpcuaServer, folder: Path):
    how = {"folder": folder, "user": USER, "password": PASSWORD}
    secured.write(_judged(trigger=Trigger("SN1", 1.0, "http")))
    assert _read(secured, "Source1.Verdict", "Source1.PartId", **how) == ["good", "SN1"]
    secured.triggers["opcua"].start(lambda trigger: "")
    assert _ask(secured, lambda line: line.inspect("SN2"), **how) == [True, ""]
    secured.triggers["opcua"].close()


@pytest.mark.parametrize(
    ("user", "password"), [(USER, "wrong-horse-battery"), ("other", PASSWORD), ("admin", "admin"), ("", "")]
)
def test_a_wrong_password_and_nobody_are_refused(secured: OpcuaServer, folder: Path, user: str, password: str):
    with pytest.raises((ua.UaError, ConnectionError)):
        _read(secured, "Source1.Verdict", folder=folder, user=user, password=password)


def test_no_password_is_taken_without_encryption(secured: OpcuaServer, folder: Path):
    with pytest.raises((ua.UaError, ConnectionError)):
        _read(secured, "Source1.Verdict", user=USER, password=PASSWORD)
    with pytest.raises((ua.UaError, ConnectionError)):
        _read(secured, "Source1.Verdict", folder=folder, user=USER, password=PASSWORD, mode="Sign")


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
            _open(OpcuaOptions.parse("0", folder / "credentials", None, certificate, its_key))
        wait_until(lambda: threading.active_count() == before)
        return str(error.value)

    assert "must hold a certificate (PEM)" in refused(wrong, key)
    assert "must hold a private key (PEM)" in refused(made, wrong)
    half = tmp_path / "half"
    half.mkdir()
    (half / KEY_NAME).write_bytes(key.read_bytes())
    with pytest.raises(UserError, match=r"must hold certificate.pem and key.pem, or neither; found key.pem"):
        _open(OpcuaOptions.parse("0", folder / "credentials", half))
    with pytest.raises(OSError, match="No such file"):
        _open(OpcuaOptions.parse("0", folder / "credentials", None, tmp_path / "none.pem", key))


def test_a_port_that_is_taken_is_one_line(server: OpcuaServer):
    before = threading.active_count()
    with pytest.raises(UserError, match=rf"--opcua must be able to listen on 127.0.0.1:{server.address.port}"):
        _open(OpcuaOptions.parse(str(server.address.port)))
    wait_until(lambda: threading.active_count() == before)


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
    secured.write(_judged())
    assert _read(secured, "Source1.Verdict", folder=folder, user=USER, password=PASSWORD) == ["good"]
    assert capfd.readouterr().err == ""


def test_more_than_a_message_is_not_waited_for(server: OpcuaServer):
    with socket.create_connection(("127.0.0.1", server.address.port), timeout=30) as connection:
        ended = False
        try:
            connection.sendall(b"HELF\xff\xff\xff\x7f" + b"x" * (1 << 18))
            ended = connection.recv(1) == b""
        except ConnectionError:
            ended = True
        assert ended


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
