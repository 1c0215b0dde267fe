"""A disk that is full, read-only or another user's: one line and a status, and nothing that stood is lost."""

import contextlib
import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.common.errors import run_command
from tests.reliability import victims
from tests.reliability.forks import PATIENCE_S, finish, holds, last_line, start
from tests.reliability.forks import run as run_to_its_end
from tests.reliability.result import Result, Scale, Skipped
from tests.reliability.victims import Victim
from tests.support.small_disk import small_disk

NOBODY = 65534
CAPABILITIES_3 = 0x20080522  # of the interface, not of what is allowed
# bytes that are left: none, less than a line, a little, a picture or two
LEFT = (0, 16_384, 4096, 65_536, 262_144, 1_000_000, 8192, 32_768, 131_072, 524_288)
FILES_STATUS = {2}
SINKS_STATUS = {1, 2}  # an inspection goes on without the disk, and ends as incomplete


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler" and not path.name.endswith(("-wal", "-shm"))  # SQLite's own
    }


def _lost(before: dict[str, bytes], after: dict[str, bytes], infer: bool) -> str:
    """Return what stood before and does not now; an inspection adds to its lines and draws overlays anew."""
    for name, content in before.items():
        now = after.get(name, b"")
        if name.endswith(".jsonl"):
            kept = now.startswith(content)
        elif infer and name.startswith("out/"):
            kept = bool(now)
        else:
            kept = hashlib.sha256(now).digest() == hashlib.sha256(content).digest()
        if not kept:
            return name
    return ""


@contextlib.contextmanager
def _full(victim: Victim, disk: Path, left: int) -> Iterator[None]:
    filler = disk / "filler"
    space = os.statvfs(disk)
    free = space.f_bavail * space.f_frsize
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, free - left))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def _read_only(victim: Victim, disk: Path, left: int) -> Iterator[None]:
    _remount(disk, "ro")
    try:
        yield
    finally:
        _remount(disk, "rw")


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True, timeout=30)


@contextlib.contextmanager
def _anothers(victim: Victim, disk: Path, left: int) -> Iterator[None]:
    folders = [victim.folder, *(path for path in victim.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield
    finally:
        for folder in folders:
            os.chown(folder, os.geteuid(), os.getegid())


def _as_anyone(victim: Victim, number: int, log: Path) -> int:
    """Run the command as a root for whom permissions count."""

    def work() -> int:
        header, none = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
        return run_command(victim.main, [str(word) for word in victim.words(number)])

    return finish(start(work, log), PATIENCE_S)


def _as_we_are(victim: Victim, number: int, log: Path) -> int:
    return run_to_its_end(victim.main, victim.words(number), log)


FAULTS: dict[str, tuple[Callable[..., contextlib.AbstractContextManager[None]], Callable[[Victim, int, Path], int]]] = {
    "full disk": (_full, _as_we_are),
    "read-only disk": (_read_only, _as_we_are),
    "folder of another user": (_anothers, _as_anyone),
}


def _victims(disk: Path) -> Iterator[Victim]:
    for make in (victims.fitting, victims.building, victims.calibrating, victims.choosing):
        (disk / make.__name__).mkdir()
        yield make(disk / make.__name__)
    (disk / "inspecting").mkdir()
    yield victims.inspecting(disk / "inspecting", [])


def _attacked(victim: Victim, disk: Path, fault: str, tries: int, wrong: list[str]) -> None:
    """Let the command meet the fault `tries` times, then run it without; adds to `wrong`."""
    met, ask = FAULTS[fault]
    infer = victim.name.startswith("runtime.infer")
    log = disk.with_name(f"said-{victim.main.__module__}")
    for number in range(1, tries + 1):
        victim.words(number)  # which may remove what the command is to make anew
        before = _contents(disk)
        log.unlink(missing_ok=True)
        with met(victim, disk, LEFT[(number - 1) % len(LEFT)]):
            status = ask(victim, number, log)
            after = _contents(disk)
        said = log.read_text(encoding="utf-8", errors="replace")
        enough = fault == "full disk" and status == 0  # what it writes found room
        if status not in (SINKS_STATUS if infer else FILES_STATUS) and not enough:
            wrong.append(f"{victim.name}, {fault}: ended with {status}: {last_line(log)}")
        if "Traceback" in said or (not infer and not enough and said.count("error: ") != 1):
            wrong.append(f"{victim.name}, {fault}: said {said.strip()[-200:]!r}")
        if not enough and (name := _lost(before, after, infer)):
            wrong.append(f"{victim.name}, {fault}: lost {name}")
        if not holds(victim.check, log):
            wrong.append(f"{victim.name}, {fault}: not whole: {last_line(log)}")
        if fault == "full disk" and victim.leftovers():
            wrong.append(f"{victim.name}, {fault}: left {victim.leftovers()[0]}")


def run(scale: Scale) -> list[Result]:
    """Let every command meet every fault."""
    if os.geteuid() != 0:
        raise Skipped("mounting a small disk needs root")
    tries = 2 if scale.short else len(LEFT)
    found: dict[str, list[str]] = {fault: [] for fault in FAULTS}
    counts = dict.fromkeys(FAULTS, 0)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        try:
            disk = stack.enter_context(small_disk(folder / "disk", "300m"))
        except pytest.skip.Exception as reason:
            raise Skipped(str(reason)) from None
        for victim in _victims(disk):
            victim.folder.mkdir(exist_ok=True)
            status = _as_we_are(victim, 0, folder / "said")
            assert status == 0, f"{victim.name} ended with {status}: {last_line(folder / 'said')}"
            for fault in FAULTS:
                count = tries if fault == "full disk" else 1
                _attacked(victim, disk, fault, count, found[fault])
                counts[fault] += count
            if (status := _as_we_are(victim, 1, folder / "said")) != 0:
                found["full disk"].append(f"{victim.name} afterwards: ended with {status}")
    for line in (line for lines in found.values() for line in lines):
        print(f"  {line}", file=sys.stderr, flush=True)
    what = "fit, build, calibrate, set a threshold, inspect"
    return [
        Result("disks", fault, counts[fault], len(lines), lines[0] if lines else what) for fault, lines in found.items()
    ]


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    for result in run(Scale("short" in sys.argv, 0, 0, 0, 0)):
        print(result)
