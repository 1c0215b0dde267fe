"""The worst judgements' pictures for a report, from overlays or events that are still there; small, and few."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.common.files import safe_name
from runtime.records.read import options_of_run
from runtime.sinks.folder import overlay_places

SIDE = 420  # pixels at most
MOST_BYTES = 80_000  # of a picture; larger ones are left out


def picture_of(log: Path, record: dict[str, Any]) -> str:
    """Return a judgement's picture as a data address; empty where it is not there any more, or cannot be read."""
    options = options_of_run(log, record["run"])
    return next((data for path in _places(options, record) if (data := jpeg_of(path))), "")


def _places(options: dict[str, Any], record: dict[str, Any]) -> Iterator[Path]:
    yield from overlay_places(options, record)
    if "events" in options:
        events = Path(options["folder"], options["events"])
        for kind in ("overlays", "frames"):
            yield from events.glob(f"*Z_{safe_name(record['source'])}_*/{kind}/{_literal(record['name'])}.jpg")


def _literal(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def jpeg_of(path: Path) -> str:
    """Return a picture small, as a data address; empty where it is not there any more, or cannot be read."""
    from PIL import Image  # here, so that --help is quick

    if not path.is_file():
        return ""
    held = io.BytesIO()
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            small.save(held, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    if held.tell() > MOST_BYTES:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
