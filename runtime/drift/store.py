"""What the drift watch knows, in a file beside the inspection log: a restart forgets nothing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from runtime.common.files import read_json, write_text
from runtime.common.notices import say

SCHEMA = "cflow-edge/drift/1"
LARGEST_BYTES = 256 << 20
MOST = 64  # states: those of engines and recipes that came last
CURE = "remove it: drift then begins to learn anew"


def beside(log: Path) -> Path:
    """Return the file that belongs to an inspection log: `inspections.drift.json` for `inspections.db`."""
    return log.with_suffix(".drift.json")


def read_states(path: Path) -> list[dict[str, Any]]:
    """Return the states in the file, the one written last at the end; none where there is no file.

    A file that is none of ours, or damaged, is put aside as `NAME.damaged`, and that is said: the line goes on.
    """
    if not path.exists():
        return []
    try:
        value = read_json(path, LARGEST_BYTES, CURE)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA or not isinstance(value.get("states"), list):
            raise UserError(f"{path} must be a file of schema {SCHEMA}", "another one", CURE)
    except UserError as error:
        put_aside(path, str(error))
        return []
    return [state for state in value["states"] if isinstance(state, dict)]


def put_aside(path: Path, why: str) -> None:
    """Keep a file that cannot be used under another name, and say so."""
    damaged = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(damaged)
        say(f"drift begins to learn anew, what was there is kept as {damaged}: {why}")
    except OSError as error:
        say(f"drift begins to learn anew: {why} ({error})")


def write_states(path: Path, states: Iterable[dict[str, Any]]) -> None:
    """Write the newest `MOST` states, whole or not at all. Raises `OSError` where that cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"schema": SCHEMA, "states": list(states)[-MOST:]}) + "\n")
