"""A shift, a day or a month by the clock on the wall, as seconds since 1970; zones and daylight saving included."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from runtime.common.errors import UserError

SHIFT = "DATE START..END, as '2026-11-28 22:00..06:00'"
HOURLY_S = 50 * 3600  # up to here counts are shown by the hour, beyond by the day


@dataclass(frozen=True)
class Span:
    """From `since_s` until before `until_s`; `title` for a person, `zone` None: that of this machine."""

    title: str
    since_s: float
    until_s: float
    zone: tzinfo | None

    def at(self, moment_s: float) -> datetime:
        """Return a moment by the clock on the wall."""
        if self.zone is None:
            return datetime.fromtimestamp(moment_s).astimezone()
        return datetime.fromtimestamp(moment_s, self.zone)

    def bucket(self, moment_s: float) -> str:
        """Return the hour, or the day, of a moment; the hour that comes twice in autumn has two offsets."""
        hourly = self.until_s - self.since_s <= HOURLY_S
        return self.at(moment_s).strftime("%Y-%m-%d %H:00 %z" if hourly else "%Y-%m-%d")


def zone_of(name: str | None) -> tzinfo | None:
    """Return the zone of that name, None for this machine's. Raises `UserError` for one that is not known."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        cure = "a name as Europe/Berlin; pip install tzdata where the system has none"
        raise UserError("--zone must be a time zone that is known here", repr(name), cure) from None


def day(text: str, zone: tzinfo | None) -> Span:
    """Return the day DATE, from midnight to midnight. Raises `UserError` for no date."""
    first = _date(text, "--day must be a date, as 2026-11-28")
    return _span(f"Day {first}", datetime.combine(first, time()), datetime.combine(_next(first), time()), zone)


def month(text: str, zone: tzinfo | None) -> Span:
    """Return the month YEAR-MONTH. Raises `UserError` for none."""
    first = _date(f"{text}-01", "--month must be a month, as 2026-11")
    after = _next(first, 32).replace(day=1)
    return _span(f"Month {text}", datetime.combine(first, time()), datetime.combine(after, time()), zone)


def shift(text: str, zone: tzinfo | None) -> Span:
    """Return the shift DATE START..END, which may end on the next day. Raises `UserError` for none."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)\.\.(\d\d:\d\d)", text.strip())
    if not match:
        raise UserError(f"--shift must be {SHIFT}", repr(text))
    first = _date(match[1], f"--shift must be {SHIFT}")
    try:
        begin, end = time.fromisoformat(match[2]), time.fromisoformat(match[3])
    except ValueError:
        raise UserError(f"--shift must be {SHIFT}", repr(text)) from None
    last = first if end > begin else _next(first)
    return _span(f"Shift {text.strip()}", datetime.combine(first, begin), datetime.combine(last, end), zone)


def _date(text: str, expected: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if not 1971 <= found.year <= 9000:  # what every clock can hold
        raise UserError(expected, repr(text))
    return found


def _next(first: date, days: int = 1) -> date:
    return first + timedelta(days=days)


def _span(title: str, begin: datetime, end: datetime, zone: tzinfo | None) -> Span:
    since_s, until_s = (moment.replace(tzinfo=zone).timestamp() for moment in (begin, end))
    return Span(title, since_s, until_s, zone)
