"""Aravis, imported on first use: a machine without industrial cameras needs none of it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from runtime.common.errors import UserError

INSTALL = "apt-get install gir1.2-aravis-0.8 libgirepository1.0-dev libcairo2-dev pkg-config gcc, then "
INSTALL += "pip install '.[genicam]'"


@dataclass(frozen=True)
class Found:
    """A camera that answered: what it is opened by, and what a person knows it by."""

    id: str
    description: str


@cache
def aravis() -> Any:
    """Return the namespace `Aravis` of GObject introspection. Raises `UserError` where a part is not installed."""
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ImportError, ValueError) as error:  # no PyGObject; no description of the library
        raise UserError("GenICam cameras need Aravis 0.8 and PyGObject", str(error), INSTALL) from None
    return Aravis


def aravis_lack() -> str:
    """Return what is the matter with Aravis here, and the cure; "" where it can be used."""
    try:
        aravis()
    except UserError as error:
        return str(error)
    return ""


def library_error() -> Any:
    """Return the class of what the library raises."""
    aravis()
    from gi.repository import GLib

    return GLib.Error


@contextlib.contextmanager
def asking(expected: str, cure: str = "") -> Iterator[None]:
    """Turn the library's errors within into a `UserError` that says what was `expected`, and the `cure`."""
    try:
        yield
    except library_error() as error:
        raise UserError(expected, error.message, cure) from None


def found_cameras() -> list[Found]:
    """Return every camera that answers within a second or so, in the library's order."""
    library = aravis()
    library.update_device_list()
    count = library.get_n_devices()
    return [Found(library.get_device_id(i), _description(library, i)) for i in range(count)]


def _description(library: Any, number: int) -> str:
    told = (
        library.get_device_vendor(number),
        library.get_device_model(number),
        f"serial number {library.get_device_serial_nbr(number)}",
        library.get_device_protocol(number),
        library.get_device_address(number),
    )
    return ", ".join(text for text in told if text)
