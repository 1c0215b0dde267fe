"""What the fields of a JSON file may hold: each check returns the value, or raises `WrongField` with what was expected.

A person may have edited the file, so that any field may hold anything that JSON has.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], Any]
LONGEST_TEXT = 10_000  # characters
SHOWN = 60  # characters of a wrong value
MOST_ITEMS = 10_000


class WrongField(ValueError):
    """A field, named by its `path` ("thresholds.night.value"), holds something else than `expected`."""

    def __init__(self, expected: str, value: Any, path: str = "") -> None:
        super().__init__(f"{path or 'it'} must be {expected}, not {shown(value)}")
        self.expected, self.value, self.path = expected, value, path

    def within(self, name: str) -> "WrongField":
        """Return the same of a field inside `name`."""
        return WrongField(self.expected, self.value, f"{name}.{self.path}" if self.path else name)


def shown(value: Any) -> str:
    """Return `value` for an error message: short, and of lists and tables only what they are."""
    if isinstance(value, dict | list | tuple):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return "a whole number of many digits"
    if value is None:
        return "nothing"
    described = ascii(value) if isinstance(value, str) else str(value)
    return described if len(described) <= SHOWN else f"{described[:SHOWN]}..."


def text(value: Any) -> str:
    """Return a text that a file and a console can take."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or any("\ud800" <= char <= "\udfff" for char in value):
        raise WrongField("a text", value)
    return value


def one_of(*words: str) -> Check:
    """Return the check for one of `words`."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongField(f"one of {', '.join(words)}", value)
        return value

    return check


def digest(value: Any) -> str:
    """Return a SHA-256 as 64 hex digits, or nothing."""
    if not isinstance(value, str) or not re.fullmatch(r"([0-9a-f]{64})?", value):
        raise WrongField("a SHA-256 of 64 hex digits, or empty", value)
    return value


def yes_or_no(value: Any) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise WrongField("true or false", value)
    return value


def whole(lowest: int, highest: int) -> Check:
    """Return the check for a whole number."""

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as some editors write it
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise WrongField(f"a whole number from {lowest} to {highest}", value)
        return value

    return check


def number(lowest: float = -math.inf, highest: float = math.inf) -> Check:
    """Return the check for a finite number."""
    expected = "a finite number" if math.isinf(lowest) else f"a number from {lowest:g} to {highest:g}"

    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise WrongField(expected, value)
        if not lowest <= value <= highest or abs(value) > 1e300:
            raise WrongField(expected, value)
        return float(value)

    return check


def optional(check: Check) -> Check:
    """Return `check` for fields that may be null."""
    return lambda value: None if value is None else check(value)


def items(check: Check, fewest: int = 0, most: int = MOST_ITEMS) -> Check:
    """Return the check for a list whose items pass `check`; it becomes a tuple."""
    count = f"{fewest}" if fewest == most else f"{fewest} to {most}"

    def check_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not fewest <= len(value) <= most:
            raise WrongField(f"a list of {count}", value)
        return tuple(checked(check, item, str(index)) for index, item in enumerate(value))

    return check_all


def table(check: Check, fewest: int = 0) -> Check:
    """Return the check for a table of names whose values pass `check`."""

    def check_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not fewest <= len(value) <= MOST_ITEMS:
            raise WrongField(f"a table of {fewest} or more", value)
        return {checked(text, name, "a name"): checked(check, item, text(name)) for name, item in value.items()}

    return check_all


def record(checks: Mapping[str, Check], required: frozenset[str] | set[str]) -> Callable[[Any], dict[str, Any]]:
    """Return the check for a table of the fields that `checks` names; others, of a later release, are passed over."""

    def check_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WrongField("a table", value)
        for name in sorted(required - value.keys()):
            raise WrongField("there", None, name)
        return {name: checked(check, value[name], name) for name, check in checks.items() if name in value}

    return check_all


def checked(check: Check, value: Any, name: str) -> Any:
    """Return what `check` makes of the field `name`. Raises `WrongField` with that name in front."""
    try:
        return check(value)
    except WrongField as wrong:
        raise wrong.within(name) from None
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise WrongField(f"whole ({error})", value, name) from None
