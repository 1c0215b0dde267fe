"""Images that are there more than once: copies say nothing new, so that promises count the different ones alone."""

from collections.abc import Sequence
from pathlib import Path

from runtime.common.files import sha256_of
from runtime.common.notices import say_once

NAMES = 3  # that a notice lists


def different(paths: Sequence[Path]) -> list[Path]:
    """Return `paths` without those whose bytes an earlier one has, and say how many these are."""
    first: dict[str, Path] = {}
    copies = [path for path in paths if first.setdefault(sha256_of(path), path) is not path]
    if copies:
        names = ", ".join([*(path.name for path in copies[:NAMES]), *(["..."] if len(copies) > NAMES else [])])
        say_once(f"{len(copies)} of {len(paths)} images are copies of others and are left out: {names}")
    left_out = set(copies)
    return [path for path in paths if path not in left_out]
