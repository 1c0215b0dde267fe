"""What words of a command line mean; `ArgumentTypeError`, where nothing else is said, tells expected and found."""

import argparse
import os
from pathlib import Path

from runtime.common.errors import UserError

LARGEST = 1e6  # of a time in seconds: what every clock and driver can take


def camera(text: str) -> str:
    """Return "camera:N" or "csi:N" for N or csi:N, and genicam or genicam:ID as it is."""
    if text.partition(":")[0] == "genicam" and text.isprintable():
        return text
    number = text.removeprefix("csi:")
    if not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 up, csi:N, genicam or genicam:ID, found {text!r}"
        )
    return f"csi:{int(number)}" if text.startswith("csi:") else f"camera:{int(number)}"


def size(text: str) -> tuple[int, int]:
    """Return (width, height) for WxH."""
    width, _, height = text.lower().partition("x")
    return _whole(width, 1, "WxH, such as 1280x720", text), _whole(height, 1, "WxH, such as 1280x720", text)


def roi(text: str) -> tuple[int, int, int, int] | tuple[()]:
    """Return (x, y, width, height) for X,Y,W,H; nothing for none."""
    if text == "none":
        return ()
    parts = text.split(",")
    wanted = "X,Y,W,H in pixels, such as 100,50,640,480"
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    x, y = (_whole(part, 0, wanted, text) for part in parts[:2])
    width, height = (_whole(part, 1, wanted, text) for part in parts[2:])
    return x, y, width, height


def _whole(text: str, smallest: int, wanted: str, whole_text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and int(text) >= smallest):
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {whole_text!r}")
    return int(text)


def count(text: str) -> int:
    """Return a whole number from 1 up."""
    return _whole(text, 1, "a whole number from 1 up", text)


def whole(text: str) -> int:
    """Return a whole number from 0 up."""
    return _whole(text, 0, "a whole number from 0 up", text)


def white(text: str) -> int:
    """Return the sample value that is white in 16-bit grey."""
    wanted = "the white of 16-bit files, 255 to 65535, such as 4095"
    value = _whole(text, 255, wanted, text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return value


def seconds(text: str) -> float:
    """Return a number from 0 up."""
    return _number(text, 0.0)


def positive(text: str) -> float:
    """Return a number above 0."""
    value = _number(text, 0.0)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def _number(text: str, smallest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not smallest <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"expected a number from {smallest:g} to {LARGEST:g}, found {text!r}")
    return value


def label(text: str) -> str:
    """Return a name for people: printable, and not empty."""
    name = text.strip()
    if not name or not name.isprintable() or len(name) > 100:
        raise argparse.ArgumentTypeError(f"expected a name of 1 to 100 printable characters, found {text!r}")
    return name


def pixel_format(text: str) -> str:
    """Return a pixel format: four characters, or one of GenICam's names."""
    if not (text.isascii() and text.isprintable() and (len(text) == 4 or (len(text) > 4 and text.isalnum()))):
        raise argparse.ArgumentTypeError(f"expected four characters or a name, such as MJPG or Mono12p, found {text!r}")
    return text


def node(text: str) -> tuple[str, str]:
    """Return (name, value) for NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and name.isascii() and value.isprintable()):
        wanted = "NAME=VALUE, such as GainRaw=3 or TriggerActivation=FallingEdge"
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
    return name, value


def trigger(text: str) -> str:
    """Return off, or what a camera calls the source of its trigger, such as software or line0."""
    if not (text.isascii() and text.isalnum()):
        raise argparse.ArgumentTypeError(f"expected off, software or a line such as line0, found {text!r}")
    return text.lower()  # as `runtime.sources.genicam.settings` compares it


def output_file(text: str) -> Path:
    """Return where a file can be written. Raises `UserError` otherwise: before the work, not after it."""
    path = Path(text)
    if path.is_dir():
        raise UserError("the file to write must be a file", f"the folder {path}", "name a file in it")
    _check_parents(path.absolute().parent)
    return path


def output_folder(text: str) -> Path:
    """Return where a folder is or can be made and written into. Raises `UserError` otherwise."""
    path = Path(text)
    _check_parents(path.absolute())
    return path


def _check_parents(folder: Path) -> None:
    """Refuse what no file can be written into: the nearest of `folder` and its parents that is there says."""
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise UserError(f"{folder} must be a folder to write into", f"the file {there}", "name another")
    if not os.access(there, os.W_OK | os.X_OK):
        found = f"no right to write into {there}, or a disk that is read-only"
        raise UserError(f"{folder} must be a folder to write into", found, "name another")
