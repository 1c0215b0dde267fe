"""A request for a recipe as text: its name, or JSON `{"recipe": "its name"}`."""

import json
from typing import Any

LONGEST = 64  # characters


def recipe_from_object(value: Any) -> str:
    """Return the name in a JSON value. Raises `ValueError` for what has none."""
    if isinstance(value, dict) and value.keys() == {"recipe"}:
        name = value["recipe"]
        if isinstance(name, str) and 0 < len(name) <= LONGEST:
            return name
    raise ValueError("no recipe")


def parsed(payload: bytes) -> str:
    """Return the name that a message asks for; what is no JSON object is a name. Raises `ValueError` for neither."""
    text = payload.decode("utf-8").strip()
    if text.startswith("{"):
        return recipe_from_object(json.loads(text))
    if not 0 < len(text) <= LONGEST:
        raise ValueError("no recipe")
    return text
