"""The table of docs/licences.md, from what the installed packages say: `python -m tests.support.licences` writes it."""

import contextlib
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = ROOT / "docs" / "licences.md"
OWN = "cflow-edge"
# extras that users install
USED = (
    "runtime",
    "train",
    "openvino",
    "mqtt",
    "opcua",
    "modbus",
    "serve",
    "parquet",
    "archive",
    "ray",
    "dask",
    "kserve",
    "report",
    "rtx",
)
HEADER = "| package | licence |\n|---|---|\n"


def direct(extras: Iterable[str] = USED) -> list[Requirement]:
    """Return what pyproject.toml asks for, with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [asked for asked in map(Requirement, lines) if canonicalize_name(asked.name) != OWN]


def _applies(asked: Requirement, extras: Iterable[str]) -> bool:
    return asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in extras)


def needed() -> list[str]:
    """Return the names of the installed packages that users need, in order."""
    waiting, seen = direct(), set[str]()
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        extras = {"", *asked.extras}
        if not _applies(asked, extras):
            continue
        with contextlib.suppress(PackageNotFoundError):
            lines = map(Requirement, requires(name) or ())
            wanted = [
                line for line in lines if not line.marker or any(line.marker.evaluate({"extra": e}) for e in extras)
            ]
            for line in wanted:
                line.marker = None  # it holds: with the extras of who asks, which the line itself does not know
            waiting += [] if name in seen and not asked.extras else wanted
            seen.add(name)
    return sorted(seen)


def licence(package: str) -> str:
    """Return what a package says of its licence, in one line."""
    said = metadata(package)
    expression = said.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [value for value in said.get_all("Classifier") or () if value.startswith("License ::")]
    names = [value.rpartition(" :: ")[2] for value in classifiers if value != "License :: OSI Approved"]
    text = ", ".join(names) or (said.get("License") or "").strip().partition("\n")[0]
    return re.sub(r"\s+", " ", text).replace("|", "/") or "not said"


def table() -> str:
    """Return the table of all packages that users install."""
    return HEADER + "".join(f"| {package} | {licence(package)} |\n" for package in needed())


def write(page: Path = PAGE) -> None:
    """Put the table in the place of the one in `page`."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text[: text.index(HEADER)] + table(), encoding="utf-8")


if __name__ == "__main__":
    write()
