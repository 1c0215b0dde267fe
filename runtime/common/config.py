"""A command's options from a TOML file, `--config line.toml`, and back into one, `--show-config`."""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.common.config_file import as_toml, words_of_file

Build = Callable[[], argparse.ArgumentParser]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--show-config`, which `parse_args` obeys."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="read options from here, by their long names, lists for those that may be repeated; the command line "
        "wins; relative paths count from the folder that the command runs in, as on the command line",
    )
    group.add_argument(
        "--show-config", action="store_true", help="print the options in effect, as a file for --config, and end"
    )


def parse_args(
    build: Build, argv: Sequence[str] | None = None, belongs: Mapping[str, str] | None = None
) -> argparse.Namespace:
    """Return the options of the command line `argv` and of the file that it names; `build` makes the parser.

    Where the command line gives an option, what the file says of it, or of one that excludes it, does not count;
    nor does what `belongs` to an option of the file that does not count (by their `dest`).
    Ends the process as `ArgumentParser.parse_args` does, and with `--show-config`. Raises `UserError` for a file that
    cannot be read, and for what it holds that is no option or no value of one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    given = _given(build(), words)
    if "config" in given:
        words = [*words_of_file(build(), Path(given["config"][-1]), given, belongs or {}), *words]
    parser = build()
    arguments = parser.parse_args(words)  # only now must everything be there that is required
    if arguments.show_config:
        print(as_toml(build(), _given(build(), words)), end="")
        parser.exit()
    return arguments


def _given(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the options that are in `words` by their `dest`, with their texts in order; changes `parser`.

    Ends the process, as the parser does, for what is no command line. What is required may be missing.
    """
    found: dict[str, list[str]] = {}

    def noting(action: argparse.Action) -> Callable[[str], Any]:
        convert: Callable[[str], Any] = action.type if callable(action.type) else str

        @functools.wraps(convert, updated=())  # the parser's errors name it
        def note(text: str) -> Any:
            value = convert(text)
            found.setdefault(action.dest, []).append(text)
            return value

        return note

    for group in parser._mutually_exclusive_groups:
        group.required = False
    for action in parser._actions:
        action.required = False
        action.type = noting(action)
    unset = argparse.Namespace(**{action.dest: None for action in parser._actions})  # no default is a given value
    parsed = vars(parser.parse_args(words, unset))
    flags = [action.dest for action in parser._actions if action.nargs == 0 and parsed.get(action.dest)]
    return found | {flag: [] for flag in flags}
