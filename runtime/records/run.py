"""What is the same in all judgements of a run, written once and named by them."""

import getpass
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runtime.common.moments import new_mark, utc
from runtime.common.version import installed_version


def os_user() -> str:
    """Return who runs this process, as "name@machine"; the number where the user has no name."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return f"{name}@{platform.node()}"


@dataclass(frozen=True)
class RunRecord:
    """One run with one engine.

    `id` is in each judgement. `engine` is the file's name; the two hashes are those of the files that were loaded.
    `threshold` is what was in force at the start, `who` the user of the operating system. `settings` are those whose
    change an auditor asks for (mask, region, ...), by name as texts; `options` is all of the command line that was
    given, without passwords. `recipes` has each recipe's name, the names of its engines' files, and their two hashes.
    """

    id: str = field(default_factory=new_mark)
    started: str = field(default_factory=lambda: utc(time.time()))
    version: str = field(default_factory=installed_version)
    engine: str = ""
    engine_sha256: str = ""
    sidecar_sha256: str = ""
    device: str = ""
    threshold: float | None = None
    map_threshold: float | None = None
    who: str = field(default_factory=os_user)
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    recipes: tuple[tuple[str, str, str, str], ...] = ()

    def row(self) -> tuple[Any, ...]:
        """Return the values of the table `runs`, in its order."""
        values = {name: value for name, value in asdict(self).items() if name != "recipes"}.values()
        return tuple(json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for v in values)

    def recipe_rows(self) -> list[tuple[str, ...]]:
        """Return the values of the table `recipes`, in its order."""
        return [(self.id, *recipe) for recipe in self.recipes]

    def in_force(self) -> dict[str, str]:
        """Return what an audit compares from run to run, as texts; what is not known is left out."""
        limits = self.threshold, self.map_threshold
        named = {**judged_by(self.engine_sha256, self.sidecar_sha256, limits), "version": self.version}
        return {name: value for name, value in {**named, **self.settings}.items() if value}


def judged_by(engine: str, sidecar: str, limits: tuple[float | None, float | None]) -> dict[str, str]:
    """Return what an audit has of what judges: two hashes, and the thresholds of score and map."""
    threshold, map_threshold = map(shown, limits)
    return {"engine": engine, "sidecar": sidecar, "threshold": threshold, "map threshold": map_threshold}


def shown(value: float | None) -> str:
    """Return a threshold as the audit has it; nothing where there is none."""
    return "" if value is None else f"{value:.9g}"
