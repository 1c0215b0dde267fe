"""What is too large for one upload, packed into parts here and put together on the other machine.

    python -m export.carry pack environment/ models/ --out parts --part-mib 60
    python3 parts/carry.py unpack parts --into there        # on the other machine; the parts carry this file along

It needs Python 3.8 and its standard library alone. Every part is checked against its SHA-256 before any is unpacked.
"""

from __future__ import annotations  # the other machine's Python may be old

import argparse
import hashlib
import io
import json
import lzma
import shutil
import sys
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFEST = "parts.json"
MIB = 1 << 20
CHUNK = 1 << 20
PRESET = 1  # of xz, one of its fastest: gigabytes of libraries still take minutes
UNFINISHED = ".unfinished"


class CarryError(Exception):
    """What was expected, what was found, and the cure, in one line."""


class _Parts(io.RawIOBase):
    """A file for writing that is cut into `part-000`, `part-001`, ... of `size` bytes; `close` ends the last one."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
        self._part: Any | None = None
        self._digest = hashlib.sha256()
        self._written = 0
        self.names: dict[str, str] = {}  # to their SHA-256

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            if self._part is None:
                self._part = self._path().with_suffix(UNFINISHED).open("wb")
            piece = view[done : done + self._size - self._written]
            self._part.write(piece)
            self._digest.update(piece)
            self._written += len(piece)
            done += len(piece)
            if self._written == self._size:
                self._end_part()
        return done

    def close(self) -> None:
        if self._part is not None:
            self._end_part()
        super().close()

    def _path(self) -> Path:
        return self._folder / f"part-{len(self.names):03d}"

    def _end_part(self) -> None:
        assert self._part is not None
        self._part.close()
        path = self._path()
        path.with_suffix(UNFINISHED).replace(path)
        self.names[path.name] = self._digest.hexdigest()
        self._part, self._written, self._digest = None, 0, hashlib.sha256()


class _Joined(io.RawIOBase):
    """Files read one after the other as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._rest = list(paths)
        self._file: Any | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._file is None:
                if not self._rest:
                    return 0
                self._file = self._rest.pop(0).open("rb")
            count: int = self._file.readinto(buffer)
            if count:
                return count
            self._file.close()
            self._file = None


def pack(sources: Sequence[Path], out: Path, part_mib: int) -> list[Path]:
    """Pack files and folders, each under its own name, into parts of at most `part_mib` MiB; return those.

    `out` must not exist: parts of two packings would be taken for one. Raises `CarryError`.
    """
    if part_mib < 1:
        raise CarryError(f"a part must have 1 MiB or more; found {part_mib}")
    missing = [str(path) for path in sources if not path.exists()]
    if missing:
        raise CarryError(f"what is packed must exist; found no {', '.join(missing)}")
    names = [path.resolve().name for path in sources]
    if len(set(names)) < len(names):
        raise CarryError(f"no two of the same name can be packed; found {', '.join(names)}; rename one")
    if out.exists():
        raise CarryError(f"{out} must not exist yet; found it; choose another --out")
    out.mkdir(parents=True)
    try:
        parts = _Parts(out, part_mib * MIB)
        with (
            parts,
            lzma.open(cast("IO[bytes]", parts), "wb", preset=PRESET) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for path, name in zip(sources, names):  # noqa: B905  # strict came with Python 3.10
                tar.add(path, arcname=name)
        shutil.copy(__file__, out / "carry.py")
        (out / MANIFEST).write_text(json.dumps(parts.names, indent=1) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return [out / name for name in parts.names]


def unpack(folder: Path, into: Path) -> list[str]:
    """Check the parts in `folder`, put together what was packed in `into`, which must not exist; return its names.

    Raises `CarryError` where a part is missing or another than was packed; `into` is then not made.
    """
    try:
        expected: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CarryError(f"{folder} must hold parts and their {MANIFEST}; found {error}; carry it, too") from None
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing:
        raise CarryError(f"{folder} must hold {len(expected)} parts; found no {', '.join(missing)}; carry them")
    for name, digest in expected.items():
        if _sha256(folder / name) != digest:
            raise CarryError(f"{name} must be as it was packed; found another SHA-256; carry it again")
    if into.exists():
        raise CarryError(f"{into} must not exist yet; found it; choose another --into")
    unfinished = into.with_name(into.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _extract([folder / name for name in expected], unfinished)
    except (tarfile.TarError, lzma.LZMAError, OSError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CarryError(f"the parts must unpack into {into}; found {error}; see what is packed, or the disk") from None
    unfinished.replace(into)
    return sorted(path.name for path in into.iterdir())


def _extract(parts: Sequence[Path], into: Path) -> None:
    joined = io.BufferedReader(_Joined(parts), CHUNK)
    with joined, lzma.open(joined) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
        if hasattr(tarfile, "data_filter"):  # nothing outside of the folder, whatever a part says
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(into)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Pack or unpack from the command line."""
    parser = argparse.ArgumentParser(prog="carry", description="Carry large files in parts.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="files and folders into parts")
    packing.add_argument("sources", nargs="+", type=Path, metavar="PATH")
    packing.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the parts go")
    packing.add_argument("--part-mib", type=int, default=60, metavar="N", help="largest part (default: %(default)s)")
    unpacking = commands.add_parser("unpack", help="parts into what was packed")
    unpacking.add_argument("folder", type=Path, metavar="DIR", help="where the parts are")
    unpacking.add_argument("--into", required=True, type=Path, metavar="DIR", help="made here")
    arguments = parser.parse_args(argv)
    if arguments.command == "pack":
        parts = pack(arguments.sources, arguments.out, arguments.part_mib)
        size = sum(path.stat().st_size for path in parts)
        print(f"{len(parts)} parts, {size / MIB:.1f} MiB, in {arguments.out}")
    else:
        print(f"{arguments.into}: {', '.join(unpack(arguments.folder, arguments.into))}")


def command() -> NoReturn:
    """Run as a program: status 2 and one line where it cannot be done."""
    try:
        main()
    except CarryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    command()
