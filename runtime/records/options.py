"""What a command line says of a run, as its record keeps it."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runtime.common.addresses import marked
from runtime.common.files import printable, sha256_of
from runtime.common.version import installed_version
from runtime.records.run import RunRecord

LEFT_OUT = frozenset({"config", "show_config", "dry_run"})  # of how the options came
# what moves a score, so that an audit asks for it: the recipe, what of a frame is judged, how it was exposed
WATCHED = ("recipe", "roi", "mask", "mask_fill", "rotate", "flip", "exposure", "genicam", "check_every")


def run_of(args: argparse.Namespace, detector: Mapping[str, Any], sources: Iterable[str]) -> RunRecord:
    """Return the record of a run that is about to begin; `detector` is what the detector says of itself.

    `sources` are the names of the sources.
    """
    options = {**options_given(args), "folder": printable(str(Path.cwd()))}
    settings = settings_of(args, sources)
    version = "" if getattr(args, "log", None) is None else installed_version()  # the log alone keeps it
    known = {"engine": printable(args.engine.name), **detector}
    return RunRecord(version=version, settings=settings, options=options, **known)


def options_given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options in effect by name, without those that are off; passwords in addresses are hidden."""
    given = {name: value for name, value in vars(args).items() if name not in LEFT_OUT and not _is_off(value)}
    return {name: _plain(value) for name, value in given.items()}


def settings_of(args: argparse.Namespace, sources: Iterable[str]) -> dict[str, str]:
    """Return what a change of matters to an audit, as texts; a mask with the SHA-256 of its file.

    `sources` are the names of the sources.
    """
    found = {name: _text(name, getattr(args, name, None)) for name in WATCHED}
    return {"sources": ", ".join(map(printable, sources)), **{name: text for name, text in found.items() if text}}


def _is_off(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, (list, tuple)) and not value)


def _text(name: str, value: Any) -> str:
    if _is_off(value):
        return ""
    values = value if isinstance(value, list) else [value]
    return ", ".join(_with_hash(one) if name == "mask" else str(_plain(one)) for one in values)


def _with_hash(mask: Any) -> str:
    path = Path(mask)
    return f"{printable(str(path))} sha256 {sha256_of(path)}" if path.is_file() else printable(str(path))


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return printable(marked(str(value)))
