"""Every camera that this machine can list, a line each."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.sources.genicam.aravis import aravis_lack, found_cameras

NAMES = Path("/sys/class/video4linux")  # Linux says there what a device's driver calls it


def camera_lines() -> list[str]:
    """Return a line for each V4L2 device and each GenICam camera: what `--camera` takes, and what it is."""
    lines = [*_numbered(), *_genicam()]
    return lines or ["no camera: check cables and power, or pass the devices into the container"]


def _numbered() -> list[str]:
    if sys.platform != "linux":
        return []
    devices = [path for path in Path("/dev").glob("video*") if path.name.removeprefix("video").isdigit()]
    numbers = sorted(int(path.name.removeprefix("video")) for path in devices)
    return [f"--camera {number}  {_name(NAMES / f'video{number}' / 'name')}".rstrip() for number in numbers]


def _name(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _genicam() -> list[str]:
    if lack := aravis_lack():
        return [f"GenICam cameras cannot be listed: {lack}"]
    return [f"--camera genicam:{camera.id}  {camera.description}" for camera in found_cameras()]


class ListCameras(argparse.Action):
    """Prints the cameras and ends the process, as `--help` does: nothing else need be given."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print a line for each camera."""
        print("\n".join(camera_lines()))
        parser.exit()
