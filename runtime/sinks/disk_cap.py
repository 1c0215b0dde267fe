"""A cap on the disk space that a sink uses: the oldest goes first, and nothing goes that the sink did not write.

Beside the files stands a ledger with every file written: its group (an event, a video segment), size and time of
change. Only a file that is in the ledger and still has that size and time is removed, also after a restart.
"""

import contextlib
import errno
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtime.common.files import write_text
from runtime.sinks.json_lines import append_whole

SPARE_LINES = 1000  # the ledger is written anew when it has more lines of removed files than this and than of others


@dataclass(frozen=True, slots=True)
class CappedFile:
    """A file of a `group`, by its path within the folder. A growing file's `mtime_ns` is None: it is known by name."""

    group: str
    path: str
    bytes: int
    mtime_ns: int | None


class DiskCap:
    """Holds the files written into `folder` to `cap_bytes` in all, by removing whole groups, the oldest first.

    `kind` ("events", "video", ...) names the ledger, so that several sinks may share a folder. Groups in `held` are
    being written and stay. One process at a time may use a folder so.
    """

    def __init__(self, folder: Path, cap_bytes: int, kind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cap_bytes = cap_bytes
        self.held: set[str] = set()
        # the oldest first; a plain dict would look through all that were removed to find it
        self._groups: OrderedDict[str, dict[str, CappedFile]] = OrderedDict()
        self._used = self._files = 0  # bytes and number of the files in `_groups`
        self._ledger = folder / f".cflow-edge-{kind}.jsonl"
        self._ledger_lines = 0
        self._torn = False  # whether the ledger ends in a part of a line, as a power cut leaves one
        self._load()

    def expect(self, group: str, *paths: Path) -> None:
        """Enter files that are yet to be written: by name, so that a killed run's are found again, and counted.

        Raises `OSError` if they cannot be entered.
        """
        for path in paths:
            entry = CappedFile(group, self._name(path), 0, None)
            self._append(entry)
            self._keep(entry)

    def add(self, group: str, path: Path, growing: bool = False) -> None:
        """Count a file just written (or written again) and make room.

        `growing` is for a file that goes on growing: it is added again when it has its end. Raises `OSError` if the
        file does not fit although everything older is gone, or cannot be entered. A new file is then removed again;
        one that was entered before stays, for what it holds is worth more than the cap.
        """
        state = path.stat()
        entry = CappedFile(group, self._name(path), state.st_size, None if growing else state.st_mtime_ns)
        known = entry.path in self._groups.get(group, {})
        try:
            if not (known and growing):
                self._append(entry)
        except OSError:
            if known:
                self._keep(replace(entry, mtime_ns=None))
            else:
                path.unlink()
            raise
        self._keep(entry)
        self._make_room(group)
        if self._used > self.cap_bytes:
            if not known:
                self._forget(self._groups[group].pop(entry.path))
                path.unlink()
            raise OSError(errno.EDQUOT, f"the disk cap of {self.cap_bytes} bytes is too small", str(path))

    def unfinished(self) -> list[tuple[str, Path]]:
        """Return the files, with their groups, that are entered by name only; at the start those of a killed run."""
        files = [(group, entry) for group, entries in self._groups.items() for entry in entries.values()]
        return [(group, self.folder / entry.path) for group, entry in files if entry.mtime_ns is None]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def drop(self, group: str, path: Path) -> None:
        """Count a file no more; it has another name now, or is gone."""
        files = self._groups.get(group, {})
        if (entry := files.pop(self._name(path), None)) is not None:
            self._forget(entry)
            if not files:
                del self._groups[group]

    def _make_room(self, newest: str) -> None:
        while self._used > self.cap_bytes:
            oldest = next((group for group in self._groups if group != newest and group not in self.held), None)
            if oldest is None:
                break
            self._remove(oldest)
        if self._ledger_lines > 2 * self._files + SPARE_LINES:
            self._rewrite()

    def _remove(self, group: str) -> None:
        for entry in self._groups.pop(group).values():
            self._forget(entry)
            path = self.folder / entry.path
            if self._is_ours(entry):
                path.unlink(missing_ok=True)
            self._remove_empty_folders(path)

    def _is_ours(self, entry: CappedFile) -> bool:
        with contextlib.suppress(OSError):
            state = (self.folder / entry.path).stat()
            return entry.mtime_ns is None or (state.st_size, state.st_mtime_ns) == (entry.bytes, entry.mtime_ns)
        return False

    def _remove_empty_folders(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # one that holds something else stays
            for parent in path.relative_to(self.folder).parents[:-1]:
                (self.folder / parent).rmdir()

    def _keep(self, entry: CappedFile) -> None:
        files = self._groups.setdefault(entry.group, {})
        if (before := files.get(entry.path)) is not None:
            self._forget(before)
            if len(files) == 1:  # written anew as a whole: it is the newest now
                self._groups.move_to_end(entry.group)
        files[entry.path] = entry
        self._used += entry.bytes
        self._files += 1

    def _forget(self, entry: CappedFile) -> None:
        self._used -= entry.bytes
        self._files -= 1

    def _append(self, entry: CappedFile) -> None:
        if not self._ledger.exists():  # removed by somebody, or not there yet
            self._rewrite()
        line = ("\n" if self._torn else "") + json.dumps(asdict(entry)) + "\n"
        with self._ledger.open("ab", buffering=0) as file:
            append_whole(file, line.encode(), self._ledger)
        self._torn = False
        self._ledger_lines += 1

    def _load(self) -> None:
        for entry in self._read():
            self._keep(entry)
        for group, files in list(self._groups.items()):
            for entry in [entry for entry in files.values() if not self._is_ours(entry)]:
                self._forget(files.pop(entry.path))
            for entry in [entry for entry in files.values() if entry.mtime_ns is None]:  # it grew since
                self._forget(entry)
                grown = replace(entry, bytes=(self.folder / entry.path).stat().st_size)
                files[entry.path] = grown
                self._used += grown.bytes
                self._files += 1
            if not files:
                del self._groups[group]

    def _read(self) -> Iterator[CappedFile]:
        if not self._ledger.exists():
            return
        text = self._ledger.read_text(encoding="utf-8", errors="replace")
        self._torn = not text.endswith("\n")
        for line in text.splitlines():
            self._ledger_lines += 1
            with contextlib.suppress(ValueError, TypeError, AttributeError):  # half a line after a power cut
                entry = CappedFile(**json.loads(line))
                if entry.path and ".." not in Path(entry.path).parts and not Path(entry.path).is_absolute():
                    yield entry

    def _rewrite(self) -> None:
        entries = [entry for files in self._groups.values() for entry in files.values()]
        write_text(self._ledger, "".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
        self._ledger_lines, self._torn = len(entries), False
