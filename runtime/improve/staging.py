"""Candidates are made aside in a hidden folder and put beside each other, whole; nothing that stands is replaced."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.common.errors import UserError
from runtime.common.files import printable, sync_folder, whole_file
from runtime.common.locks import one_writer
from runtime.engines.sidecar import Threshold, read_sidecar, sidecar_path, write_sidecar

RANDOM = 8  # letters that tempfile adds to a name
NAME = "improved"  # that a proposed threshold goes by in the sidecar


@dataclass(frozen=True)
class Stage:
    """Where candidates of the engine at `engine` are made, to be put into the folder `out`."""

    engine: Path
    out: Path
    folder: Path

    @property
    def stem(self) -> str:
        """The name that the engine's files share."""
        return sidecar_path(self.engine).stem

    def candidate(self, kind: str) -> Path:
        """Return where a candidate engine of that kind is made: `cable-threshold.fp16.onnx` of `cable.fp16.onnx`."""
        return self.folder / f"{self.stem}-{kind}{self.engine.name[len(self.stem) :]}"

    def place(self, made: Path) -> Path:
        """Return where a file that was made is to stand."""
        return self.out / made.name

    def with_threshold(self, value: float, method: str) -> list[Path]:
        """Copy the engine, with a sidecar of that threshold; what the map is held against stays. Return the files."""
        copy, own = self.candidate("threshold"), read_sidecar(self.engine)
        artefact = own.artefact_of(self.engine)
        if artefact.weights_sha256:
            expected = f"{self.engine.name} must hold its own weights to be copied with another threshold"
            raise UserError(expected, "a plan without them", "set it by hand (train.set_threshold --value)")
        with whole_file(copy) as temporary:
            shutil.copyfile(self.engine, temporary)
        threshold = Threshold(value, method, map_value=own.threshold.for_map)
        sidecar = replace(
            own,
            name=printable(sidecar_path(copy).stem),
            artefacts=(artefact,),
            thresholds={**own.thresholds, NAME: threshold},
            default_threshold=NAME,
        )
        return [write_sidecar(copy, sidecar), copy]

    def put(self, files: Sequence[Path]) -> None:
        """Put the files that were made into the folder `out`, a sidecar before its engine."""
        for file in sorted(files, key=lambda path: path.suffix != ".json"):
            file.replace(self.place(file))
        sync_folder(self.out)


@contextmanager
def staged(engine: Path, out: Path) -> Iterator[Stage]:
    """Yield where candidates are made; on leaving what was not put in its place goes, and so does a new empty folder.

    Raises `UserError` where candidates of the engine stand already, or are being made by another process.
    """
    was_there, stem = out.is_dir(), sidecar_path(engine).stem
    prefix = f".improving-{stem}."
    try:
        with one_writer(out / f"improving-{stem}", f"the candidates in {out}", "wait for it to end"):
            for leftover in out.iterdir():
                if leftover.name[:-RANDOM] == prefix and leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out))
            try:
                stage = Stage(engine, out, folder)
                _check_free(stage)
                yield stage
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        if not was_there:
            with suppress(OSError):  # there is a candidate in it, or no folder
                out.rmdir()


def _check_free(stage: Stage) -> None:
    kinds = ("threshold", "mask", "renewed")
    standing = sorted(
        path.name
        for path in stage.out.iterdir()
        if path.name.startswith(tuple(f"{stage.stem}-{kind}" for kind in kinds))
    )
    if standing:
        raise UserError(
            f"{stage.out} must hold no candidate of {stage.engine.name} yet, for one may be in use",
            standing[0],
            "name another --out, or remove it",
        )
