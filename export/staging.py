"""The files of an engine are made aside and take the places of others together.

They are several, and no file system moves several at once. So the sidecar first describes both sets (`replaced_by`),
then file after file takes its place, and the sidecar that describes the new set alone comes last: at whatever moment
this ends, by a failure, a power cut or kill -9, every file that stands is one that the sidecar describes.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.files import sweep, sync_folder, whole_file
from runtime.common.locks import one_writer
from runtime.common.notices import say
from runtime.engines.sidecar import Sidecar, read_whole_sidecar, sidecar_path, write_sidecar
from runtime.engines.thresholds import PATIENCE_S

DAMAGED = ".damaged"  # behind the name of a sidecar that could not be read

Finish = Callable[[Sidecar | None], Sidecar]  # from what stands now, None for nothing, to what is to stand


@dataclass
class StagedEngine:
    """An engine that is being made for `out`, a `.plan` or `.onnx`; its files so far are in hidden folders."""

    out: Path
    _folders: dict[Path, Path] = field(default_factory=dict)
    _staged: dict[Path, Path] = field(default_factory=dict)  # by the place that it is to take

    def aside(self, place: Path) -> Path:
        """Return where to write the file that is to stand at `place`."""
        folder = place.parent
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._folders[folder] = Path(tempfile.mkdtemp(prefix=_prefix(self.out), dir=folder))
        self._staged[place] = self._folders[folder] / place.name
        return self._staged[place]

    def put_in_place(self, finish: Finish) -> Sidecar:
        """Let all files take their places and return the sidecar that `finish` made for them.

        `finish` is given what stands by then: thresholds may have been chosen during a build.
        """
        beside = sidecar_path(self.out)
        with one_writer(beside, beside.name, "try again in a moment", PATIENCE_S):
            before = _standing(beside)
            sidecar = finish(before)
            if before is not None:
                write_sidecar(self.out, before.followed_by(sidecar))
            for place, staged in self._staged.items():
                if staged.is_file():
                    staged.replace(place)
            for folder in self._folders:
                sync_folder(folder)
            write_sidecar(self.out, sidecar)
            sync_folder(beside.parent)
        return sidecar

    def remove(self) -> None:
        """Remove what has not taken its place."""
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_engine(out: Path) -> Iterator[StagedEngine]:
    """Yield an engine in the making, as the only process that makes it; what a killed one has left goes first.

    Raises `UserError` where another process is making it.
    """
    engine = sidecar_path(out).with_suffix("")
    with one_writer(engine, f"engine {engine.name}", "wait for it to end, or name another with --out"):
        for leftover in _leftovers(out):
            shutil.rmtree(leftover, ignore_errors=True)
        sweep(out.parent)
        staged = StagedEngine(out)
        try:
            yield staged
        finally:
            staged.remove()


def _prefix(out: Path) -> str:
    return f".{sidecar_path(out).stem}.building-"


def _leftovers(out: Path) -> list[Path]:
    """Return the folders of builds of this engine that ended without a word: one that lives would have the lock."""
    prefix = _prefix(out)
    return [path for path in out.parent.iterdir() if path.name.startswith(prefix) and path.is_dir()]


def _standing(beside: Path) -> Sidecar | None:
    """Return the sidecar that stands, None where none does or it is none: there is nothing to keep readable then.

    One that cannot be read, for a slip of the hand that edited it, may hold thresholds that were chosen with care: it
    is kept under another name, and that is said.
    """
    if not beside.is_file():
        return None
    try:
        return read_whole_sidecar(beside)
    except UserError as error:
        kept = beside.with_name(f"{beside.name}{DAMAGED}")
        with whole_file(kept) as temporary:
            shutil.copyfile(beside, temporary)
        say(f"not kept: the thresholds in a sidecar that cannot be read ({error}); it stands as {kept.name} now")
        return None
