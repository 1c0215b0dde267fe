"""What is proposed, in figures: what the engine in force does on the evidence, and what the candidate would do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.common.text_table import align
from runtime.improve.shares import Share

HEAD = ("judged on", "false alarms now", "then", "misses now", "then")
INDENT = "  "


@dataclass(frozen=True)
class Mistakes:
    """False alarms among good parts, and misses among bad ones."""

    false_alarms: Share
    misses: Share

    @classmethod
    def of(cls, good: Sequence[bool], bad: Sequence[bool]) -> "Mistakes":
        """Count them: of each good and each bad part whether it was called anomalous."""
        return cls(Share(sum(good), len(good)), Share(len(bad) - sum(bad), len(bad)))

    def fields(self) -> dict[str, Any]:
        """Return them for JSON."""
        return {"false_alarms": self.false_alarms.fields(), "misses": self.misses.fields()}


@dataclass(frozen=True)
class Row:
    """The mistakes on one body of evidence, `now` and with the candidate."""

    on: str
    now: Mistakes
    then: Mistakes

    def cells(self) -> list[str]:
        """Return it as cells below `HEAD`."""
        shares = (self.now.false_alarms, self.then.false_alarms, self.now.misses, self.then.misses)
        return [self.on, *(share.text() for share in shares)]

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"on": self.on, "now": self.now.fields(), "then": self.then.fields()}


@dataclass(frozen=True)
class Proposal:
    """A candidate: its `files` by the names that they are to have, how it does, and how to `try_it`.

    `notes` are sentences that whoever decides must read.
    """

    kind: str
    what: str
    rows: tuple[Row, ...]
    files: tuple[Path, ...]
    try_it: str
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it for a person."""
        table = align([list(HEAD), *(row.cells() for row in self.rows)], left=len(HEAD))
        lines = [f"{self.kind}: {self.what}", *(f"{INDENT}{line}" for line in table.splitlines())]
        lines += [f"{INDENT}note: {note}" for note in self.notes]
        return "\n".join([*lines, f"{INDENT}try it: {self.try_it}"])

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        said = {"kind": self.kind, "what": self.what, "rows": [row.fields() for row in self.rows]}
        files = [str(file) for file in self.files]
        return {**said, "notes": list(self.notes), "files": files, "try_it": self.try_it}


@dataclass(frozen=True)
class Nothing:
    """Why there is no proposal of a kind."""

    kind: str
    why: str

    def text(self) -> str:
        """Return it for a person."""
        return f"{self.kind}: none; {self.why}"

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"kind": self.kind, "why": self.why}


def too_few(found: int, needed: int, what: str) -> str:
    """Return that there are too few of `what`."""
    return f"it needs at least {needed} {what}; found {found}"
