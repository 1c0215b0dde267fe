"""Moments as people and files write them: ISO 8601 in UTC."""

import secrets
from datetime import datetime, timezone

from runtime.common.errors import UserError


def utc(moment_s: float) -> str:
    """Return seconds since 1970 as "2026-11-27T13:28:03.074+00:00"."""
    return datetime.fromtimestamp(moment_s, timezone.utc).isoformat(timespec="milliseconds")


def new_mark() -> str:
    """Return what no other call returns: the moment (UTC), and four random digits for clocks that start anew."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def parse_moment(text: str) -> float:
    """Return seconds since 1970 for a date, or a date and time: in UTC, unless it says another offset.

    Raises `UserError` for what is none.
    """
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        wanted = "a time must be a date or a date and time, in UTC, as 2026-11-27 or 2026-11-27T13:28"
        raise UserError(wanted, repr(text)) from None
