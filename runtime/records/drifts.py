"""Drift alarms as the audit of an inspection log has them: each with its begin, who acknowledged it, and its end."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

PREFIX = "drift of "  # of what the audit says was changed
ACKNOWLEDGED, RENEWED = "acknowledged", "taken for the new normal"


@dataclass(frozen=True)
class DriftRecord:
    """A drift at `where` (source, and recipe in brackets); `what` says what moved and since when.

    Times are the audit's texts: of its first row, which is not its begin where the log is `younger`, and of its end,
    empty while it stands. `ending` says how it ended, `acknowledged` who said that he knew, and when.
    """

    where: str
    what: str
    found: str
    younger: bool = False
    acknowledged: tuple[str, ...] = ()
    ended: str = ""
    ending: str = ""


def is_drift(change: Mapping[str, Any]) -> bool:
    """Whether a row of the audit is of a drift alarm."""
    return str(change["what"]).startswith(PREFIX)


def drifts(changes: Iterable[Mapping[str, Any]]) -> list[DriftRecord]:
    """Return the drifts among rows of an audit, which come the oldest first; the one found first is the first."""
    found: list[DriftRecord] = []
    standing: dict[str, int] = {}
    for change in filter(is_drift, changes):
        where, new, time = change["what"].removeprefix(PREFIX), change["new"], change["time"]
        if where not in standing:
            standing[where] = len(found)
            begins = new not in (ACKNOWLEDGED, RENEWED, "")
            found.append(DriftRecord(where, new if begins else change["old"], time, not begins))
        place = standing[where]
        if new == ACKNOWLEDGED:
            said = f"{change['who']}, {time}"
            found[place] = replace(found[place], acknowledged=(*found[place].acknowledged, said))
        elif new in (RENEWED, ""):
            ending = f"{RENEWED} by {change['who']}" if new else "values came back"
            found[place] = replace(found[place], ended=time, ending=ending)
            del standing[where]
        else:
            found[place] = replace(found[place], what=new)
    return found
