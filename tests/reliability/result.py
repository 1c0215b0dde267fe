"""What a check of the table gives: one `Result` is one row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """How much is tried: `kills` of each command, `minutes` of fuzzing for each reader, `soak_minutes` of running."""

    short: bool
    kills: int
    minutes: float
    soak_minutes: float
    seed: int


@dataclass(frozen=True)
class Result:
    """One row: of `tries`, `wrong` ended wrongly or lost something, which must be 0; `details` is one line."""

    group: str
    attack: str
    tries: int
    wrong: int
    details: str = ""


class Skipped(Exception):
    """A check that cannot run on this machine; says why."""
