"""Valid files, changed: single bytes, parts, and what keeps a file's outer form (lengths, checksums) while its content
is wrong, so that readers are reached behind their first check."""

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]
NASTY_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f")
NASTY_NUMBERS = (0, -1, 1, 2**31, 2**31 - 1, 2**63 - 1, -(2**63), 2**70, 10**4000, 1e308, -1e308, 5e-324, 0.5, 1 << 20)
NASTY_TEXTS = (
    "",
    "\x00",
    "../../../etc/passwd",
    "/",
    "a" * 20_000,
    "\ud800",
    "%s%n",
    "nan",
    "1e999",
    "🙂",
    "\n",
    "0x10",
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def bytes_changed(rng: random.Random, data: bytes) -> bytes:
    """Flip, set, insert, remove, repeat or cut at one to eight random places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 16, 256))
        kind = rng.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + length] = rng.choice(NASTY_BYTES)
        elif kind == 2:
            changed[place:place] = rng.randbytes(length)
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 3))
        else:
            changed[place : place + length] = rng.randbytes(min(length, len(changed) - place))
    return bytes(changed[: rng.randrange(len(changed) + 1)]) if rng.random() < 0.1 else bytes(changed)


def json_changed(rng: random.Random, data: bytes) -> bytes:
    """Put something else at a random place of a JSON value; names and values, any type for any other."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        value = _changed_somewhere(rng, value)
    try:
        return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    except ValueError:  # a number of more digits than Python prints
        return bytes_changed(rng, data)


def _changed_somewhere(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        value = copy.copy(value)
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.08:
            del value[key]
        elif kind < 0.12 and isinstance(value, dict):
            value[rng.choice(NASTY_TEXTS)] = value.pop(key)
        else:
            value[key] = _changed_somewhere(rng, value[key])
        return value
    return _nasty(rng, value)


def _nasty(rng: random.Random, value: Any) -> Any:
    others = (None, True, [], {}, [value] * 3, {"value": value}, value, float("nan"), float("inf"))
    return rng.choice((rng.choice(NASTY_NUMBERS), rng.choice(NASTY_TEXTS), rng.choice(others)))


def png_changed(rng: random.Random, data: bytes) -> bytes:
    """Change the content of a PNG's chunks and give each its checksum again; of other files, bytes."""
    if not data.startswith(PNG_SIGNATURE):
        return bytes_changed(rng, data)
    chunks = list(chunks_of(data))
    kind, content = chunks[place := rng.randrange(len(chunks))]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(bytes_changed(rng, zlib.decompress(content)), 1)
    else:
        content = bytes_changed(rng, content)
    chunks[place] = (kind, content)
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    made = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return PNG_SIGNATURE + b"".join(made)


def chunks_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and content of a PNG's chunks."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += length + 12


def zip_changed(rng: random.Random, data: bytes) -> bytes:
    """Change one member of an archive and write the archive anew, with its checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    pickles = [i for i, (name, _) in enumerate(members) if name.endswith(".pkl")]
    place = rng.choice(pickles) if rng.random() < 0.8 else rng.randrange(len(members))
    name, content = members[place]
    members[place] = (name, bytes_changed(rng, content))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def protobuf_changed(rng: random.Random, data: bytes) -> bytes:
    """Change fields of a random message within an ONNX model, keeping it a message."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        message = _some_message(rng, model)
        fields = message.ListFields()
        if fields:
            _change_field(rng, message, *rng.choice(fields))
    return bytes(model.SerializeToString())


def _some_message(rng: random.Random, message: Any) -> Any:
    while True:
        inner = [
            part
            for field, value in message.ListFields()
            if field.type == field.TYPE_MESSAGE
            for part in (value if not hasattr(value, "ListFields") else [value])
        ]
        if not inner or rng.random() < 0.15:
            return message
        message = rng.choice(inner)


def _change_field(rng: random.Random, message: Any, field: Any, value: Any) -> None:
    several = hasattr(value, "append") and not isinstance(value, str | bytes)
    if rng.random() < 0.2:
        message.ClearField(field.name)
    elif several and rng.random() < 0.3:
        (value.pop if rng.random() < 0.5 else value.reverse)()
    elif several and field.type == field.TYPE_MESSAGE:
        value.add().CopyFrom(rng.choice(list(value)))
    elif field.type != field.TYPE_MESSAGE:
        new = _field_value(rng, field, value[rng.randrange(len(value))] if several and len(value) else value)
        try:
            if several:
                value[rng.randrange(len(value))] = new
            else:
                setattr(message, field.name, new)
        except (ValueError, TypeError):  # no number of this field's type
            message.ClearField(field.name)


def _field_value(rng: random.Random, field: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        return bytes_changed(rng, value)
    if isinstance(value, str):
        if len(value) > 200 and value.startswith("{"):  # our own facts in the model's properties
            return json_changed(rng, value.encode()).decode(errors="replace")
        return rng.choice(("", value + "_", "frames", "Conv", "../../x", "a" * 5000, value[::-1]))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    return rng.choice((0, 1, -1, 2, 3, 7, 2**31 - 1, -(2**31), 2**62, value + 1, -value))


def toml_changed(rng: random.Random, data: bytes) -> bytes:
    """Change lines of a configuration: swap, repeat, remove, or give one another's value."""
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            lines.insert(place, rng.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        else:
            name, _, _ = lines[place].partition("=")
            _, _, other = rng.choice(lines).partition("=")
            nasty = (
                *map(str, (0, -1, "nan", "inf", 2**70, 1e308)),
                '""',
                "[]",
                "{}",
                "1979-05-27",
                "[[1]]",
                '["a", 1]',
            )
            lines[place] = f"{name}={other if kind == 2 else rng.choice(nasty)}"
    return "\n".join(lines).encode() + b"\n"
