"""Options of a command as a TOML file: flat, by their long names with `-` or `_`.

A text or number for an option that takes a value, a list for one that may be repeated, true or false for one that takes
none. Both ways go through the command's own parser, so the file knows just what the command line knows and is checked
alike.
"""

import argparse
import contextlib
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.common.addresses import HIDDEN, HIDDEN_IN_ADDRESS, marked
from runtime.common.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = frozenset({"help", "config", "show_config", "list_cameras"})  # of the command line only
HIDDEN_NOTE = f"# {HIDDEN} stands for a password or key, which is not printed: write it in by hand\n"


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return what a file may hold: every option of `parser` by its long name, but for `--help` and those from here."""
    return {
        option.removeprefix("--"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.dest not in OWN
    }


def words_of_file(
    parser: argparse.ArgumentParser, path: Path, given: Mapping[str, Any], belongs: Mapping[str, str]
) -> list[str]:
    """Return the file at `path` as words of a command line, without what those `given` there overrule.

    Nor does it count what `belongs` to an option that is overruled by another one.
    """
    text, values = read_toml(path, "--config")
    options = options_of(parser)
    overruled = set(given)
    for group in parser._mutually_exclusive_groups:
        members = {action.dest for action in group._group_actions}
        overruled |= members if members & overruled else set()
    overruled |= {one for one, other in belongs.items() if other in overruled - set(given)}
    words: dict[str, list[str]] = {}
    for key, value in values.items():
        place, name = _place(path, text, key), key.replace("_", "-")
        if name not in options:
            raise _unknown(place, name, options, value)
        if name in words:
            raise UserError(f"{place}: an option must be there once", f"{name} twice", "leave one of them out")
        words[name] = list(words_of_value(options[name], name, value, place))
    return [word for name, found in words.items() if options[name].dest not in overruled for word in found]


def read_toml(path: Path, option: str) -> tuple[str, dict[str, Any]]:
    """Return the text of the file that `option` names, and what it holds. Raises `UserError` for no TOML."""
    if not path.is_file():
        raise UserError(f"{option} needs a file, {path}", "a folder" if path.is_dir() else "no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")  # with the mark that some editors put before a text, or without
    except UnicodeDecodeError:
        raise UserError(f"{path} must be a text file (UTF-8)", "other bytes", "save it as UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} must be TOML", str(error), 'write texts in quotes: engine = "cable.onnx"') from None


def _place(path: Path, text: str, key: str) -> str:
    """Return where `key` stands, for a message."""
    begins = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    lines = (number for number, line in enumerate(text.splitlines(), 1) if begins.match(line))
    number = next(lines, None)
    return str(path) if number is None else f"{path}, line {number}"


def _unknown(place: str, name: str, options: Mapping[str, Any], value: Any) -> UserError:
    nearest = difflib.get_close_matches(name, options, 1)
    cure = f"did you mean {nearest[0]}?" if nearest else "see --help for the options"
    if isinstance(value, dict):
        cure = "write all options without sections"
    return UserError(f"{place}: a name must be that of an option", repr(name), cure)


def words_of_value(action: argparse.Action, name: str, value: Any, place: str) -> Iterator[str]:
    """Yield `value` of option `name` as words of a command line. Raises `UserError` for one of a wrong type.

    `place` says where it stands, for that.
    """
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{place}: {name} must be true or false", _shown(value), "write it without quotes")
        if value:
            yield f"--{name}"
        return
    repeatable = isinstance(action, argparse._AppendAction)
    for item in value if repeatable and isinstance(value, list) else [value]:
        yield f"--{name}={_text(action, name, item, place)}"


def _text(action: argparse.Action, name: str, value: Any, place: str) -> str:
    """Return `value` as on the command line, checked as there."""
    kinds = (str,) if action.type is Path else (str, int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "a text in quotes" if action.type is Path else "a number or a text in quotes"
        wanted += ", or a list of them" if isinstance(action, argparse._AppendAction) else ""
        raise UserError(f"{place}: {name} must be {wanted}", _shown(value), "see --help for what it means")
    text = str(value)
    if HIDDEN_IN_ADDRESS.search(text):
        raise UserError(f"{place}: {name} must hold the password or key itself", HIDDEN, "write it in by hand")
    try:
        converted = action.type(text) if callable(action.type) else text
    except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
        wanted = str(error) if isinstance(error, argparse.ArgumentTypeError) else f"expected a number, found {text!r}"
        raise UserError(f"{place}: {name}: {wanted}") from None
    if action.choices is not None and converted not in action.choices:
        raise UserError(f"{place}: {name} must be one of {', '.join(map(str, action.choices))}", _shown(value))
    return text


def _shown(value: Any) -> str:
    kinds = {bool: "true or false", dict: "a section", list: "a list"}
    if isinstance(value, bool):
        return str(value).lower()
    return kinds.get(type(value), f"{marked(str(value))!r}" if isinstance(value, str) else str(value))


def _number(action: argparse.Action, text: str) -> str | int | float:
    """Return `text` as the number that it is where the option takes numbers and nothing is lost."""
    if action.type in (None, Path):
        return text
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            if str(kind(text)) == text:
                return kind(text)
    return text


def _toml(value: str | int | float) -> str:
    """Return one value as TOML; JSON's strings are TOML's, but for the one sign that only TOML must have escaped."""
    if not isinstance(value, str):
        return str(value).lower()  # True and False as well
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError("a file for --config holds Unicode only", repr(value), "rename the file or folder") from None
    return json.dumps(marked(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def as_toml(parser: argparse.ArgumentParser, given: Mapping[str, list[str]]) -> str:
    """Return the options `given` (their texts by `dest`) and the parser's defaults as a file for `--config`.

    What has no value is left out. Passwords and keys within addresses are hidden. Raises `UserError` for a text that
    is no Unicode.
    """
    lines = []
    for name, action in options_of(parser).items():
        if action.nargs == 0:
            value = _toml(action.dest in given)
        elif isinstance(action, argparse._AppendAction):
            value = ", ".join(_toml(_number(action, text)) for text in given.get(action.dest, []))
            value = f"[{value}]" if value else ""
        else:
            last = given[action.dest][-1] if action.dest in given else action.default
            value = "" if last is None else _toml(_number(action, str(last)))
        if value:
            lines.append(f"{name} = {value}\n")
    text = "".join(lines)
    return (HIDDEN_NOTE if HIDDEN in text else "") + text
