"""Addresses of engines: what they mean, how they are shown, and what is refused, without a password in sight."""

import argparse
import pickle
from pathlib import Path

import pytest

from runtime.common.errors import UserError
from runtime.engines.remote.address import RemoteEngine, engine, engine_at


@pytest.mark.parametrize(
    ("text", "parts", "name"),
    [
        ("grpc://box/cable", ("grpc", "box", 8001, "cable", "", ""), "grpc://box:8001/cable"),
        ("grpc://box:9/cable.v2/3", ("grpc", "box", 9, "cable.v2", "3", ""), "grpc://box:9/cable.v2/3"),
        ("grpcs://[fe80::1]:7/a-b_c", ("grpcs", "[fe80::1]", 7, "a-b_c", "", ""), "grpcs://[fe80::1]:7/a-b_c"),
        ("http://box/cable", ("http", "box", 8000, "cable", "", ""), "http://box:8000/cable"),
        ("https://box/edge/7/cable/2", ("https", "box", 443, "cable", "2", "edge/7"), "https://box:443/edge/7/cable/2"),
        ("http://u:p%40:/x@box/cable", ("http", "box", 8000, "cable", "", ""), "http://box:8000/cable"),
    ],
)
def test_an_address_has_its_parts_and_a_name_without_secrets(text: str, parts: tuple[object, ...], name: str):
    found = RemoteEngine.parse(text)
    assert (found.scheme, found.host, found.port, found.model, found.version, found.base) == parts
    assert found.name == str(found) == name and RemoteEngine.parse(found.name) == RemoteEngine.parse(name)
    assert pickle.loads(pickle.dumps(found)) == found == found.resolve()


def test_user_and_password_are_taken_and_not_shown():
    found = RemoteEngine.parse("grpcs://line%207:p%40ss:word%2F@box/cable")
    assert (found.user, found.password, found.secure) == ("line 7", "p@ss:word/", True)
    assert "ss:word" not in f"{found!r} {found}"


@pytest.mark.parametrize(
    "text",
    [
        "grpc://box",
        "grpc://box/",
        "grpc:///cable",
        "grpc://box:0/cable",
        "grpc://box:70000/cable",
        "grpc://box/cable?deadline=1",
        "grpc://box/edge/cable",
        "http://u:secret@box/",
        "grpc://u:secret@box/ca ble",
    ],
)
def test_other_addresses_are_refused_in_a_line(text: str):
    with pytest.raises(UserError) as refused:
        engine_at(text)
    assert "secret" not in str(refused.value)
    with pytest.raises(argparse.ArgumentTypeError):
        engine(text)


@pytest.mark.parametrize("text", ["cable.onnx", "folder/cable.plan", "a:b.onnx", "rtsp:/cable.onnx"])
def test_all_else_is_a_file(text: str):
    assert engine(text) == Path(text) == engine_at(Path(text))
