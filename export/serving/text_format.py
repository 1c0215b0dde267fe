"""Protobuf's text format, as much as a model's configuration needs, written without a library."""

import json
from collections.abc import Sequence
from typing import TypeAlias


class Word(str):
    """The name of an enum's value, which stands without quotes."""

    __slots__ = ()


Value: TypeAlias = "str | int | bool | Message"
Message: TypeAlias = "Sequence[tuple[str, Value]]"  # fields by name, in their order; a repeated one several times


def text_of(message: Message, indent: str = "") -> str:
    """Return `message` in protobuf's text format, a field a line."""
    return "".join(_field(name, value, indent) for name, value in message)


def _field(name: str, value: Value, indent: str) -> str:
    if isinstance(value, bool):
        return f"{indent}{name}: {str(value).lower()}\n"
    if isinstance(value, (int, Word)):
        return f"{indent}{name}: {value}\n"
    if isinstance(value, str):
        return f"{indent}{name}: {_quoted(value)}\n"
    return f"{indent}{name} {{\n{text_of(value, indent + '  ')}{indent}}}\n"


def _quoted(text: str) -> str:
    """Return `text` in quotes; the escapes that JSON writes are among those of the text format."""
    return json.dumps(text, ensure_ascii=False)
