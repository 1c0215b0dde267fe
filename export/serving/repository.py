"""A model repository on the disk: each model a folder, each version a folder in it, all written whole or not at all.

    staged beside it: cable/config.pbtxt, cable/1/model.onnx, cable/1/cable.json ─▶ renamed into its place

A version never changes: lines that judge with it know it by its hashes.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.serving import python_model
from export.serving.check import check_config
from export.serving.config import FILES, PYTHON_MODEL, Options, Version, config_text
from runtime.common.errors import UserError
from runtime.common.files import sync_folder, write_text
from runtime.common.locks import one_writer
from runtime.engines.sidecar import read_hashed_sidecar, sidecar_path

CONFIG = "config.pbtxt"
PATIENCE_S = 5.0  # for another writer
STEM = "model"  # of the files in a version's folder, whatever the engine was called


@dataclass(frozen=True)
class Model:
    """An engine to be put into a repository as `name`; `number` is its version (None: the next one)."""

    name: str
    engine: Path
    options: Options
    number: int | None = None


@dataclass(frozen=True)
class Written:
    """What became of a model: `new` is False where that very version was there; `checked` against Triton's schema."""

    name: str
    number: int
    new: bool
    checked: bool


def write_models(repository: Path, models: Sequence[Model]) -> list[Written]:
    """Put `models` into `repository`, made where there is none; older versions stay.

    All are staged and checked before the first one takes its place. Raises `UserError` or `OSError`.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with _staging(repository) as stage:
        staged = [_staged(repository, stage, model) for model in models]
        for one in staged:
            _put(repository / one.name, stage / one.name, one)
    return staged


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """Yield a folder beside the repository, which a server that looks into it does not see."""
    place = repository.resolve()
    mark = f".{place.name}.part-"
    with one_writer(place, str(repository), "try again in a moment", PATIENCE_S):
        for left in place.parent.glob(f"{mark}*"):  # by a writer that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=mark, dir=place.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _staged(repository: Path, stage: Path, model: Model) -> Written:
    known = _versions(repository / model.name)
    sidecar, digest = read_hashed_sidecar(model.engine)
    artefact = sidecar.artefact_of(model.engine)
    text = sidecar_path(model.engine).read_bytes()
    newest = known[-1] if known else None
    same = newest is not None and (newest.artefact.sha256, newest.sha256) == (artefact.sha256, digest)
    number = model.number or (newest.number + (not same) if newest else 1)
    version = Version(number, sidecar, text.decode(), digest, artefact)
    before = next((one for one in known if one.number == number), None)
    if before is not None and (before.artefact.sha256, before.sha256) != (artefact.sha256, digest):
        expected = f"version {number} of {model.name} must stay what it is, for lines judge with it"
        raise UserError(
            expected, "another engine or sidecar", f"leave --version out, or give one above {known[-1].number}"
        )
    versions = sorted([*(one for one in known if one.number != number), version], key=lambda one: one.number)
    config = config_text(model.name, versions, model.options)
    checked = check_config(config)
    folder = stage / model.name
    write_text(folder / CONFIG, config)
    _fill(folder / str(number), model, text)
    return Written(model.name, number, before is None, checked)


def _fill(folder: Path, model: Model, sidecar: bytes) -> None:
    """Write a version's folder: engine, sidecar, and for the Python backend the model that opens them."""
    folder.mkdir()
    python = model.options.backend == "python"
    name = f"{STEM}{model.engine.suffix}" if python else FILES[model.options.backend]
    shutil.copyfile(model.engine, folder / name)
    sidecar_path(folder / name).write_bytes(sidecar)
    if python:
        shutil.copyfile(python_model.__file__, folder / PYTHON_MODEL)
    sync_folder(folder)


def _versions(folder: Path) -> list[Version]:
    """Return the versions that a model has, the newest last. Raises `UserError` for a folder that we did not write."""
    numbered = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.is_dir() else []
    if folder.exists() and not numbered:
        cure = "choose another --name, or remove it"
        raise UserError(f"{folder} must hold versions of a detector", "none", cure)
    return [_version(folder / str(number), number) for number in numbered]


def _version(folder: Path, number: int) -> Version:
    engines = [path for path in (folder / f"{STEM}.plan", folder / f"{STEM}.onnx") if path.is_file()]
    if len(engines) != 1:
        raise UserError(f"{folder} must hold the engine and the sidecar of a detector", "something else")
    sidecar, digest = read_hashed_sidecar(engines[0])
    text = sidecar_path(engines[0]).read_text(encoding="utf-8")
    return Version(number, sidecar, text, digest, sidecar.artefact_of(engines[0]))


def _put(place: Path, staged: Path, one: Written) -> None:
    """Let a staged model take its place: a new one at once, of one that is there the configuration and the version.

    The configuration comes first: a server that looks just then finds a version's sidecar before the version.
    """
    if not place.exists():
        staged.replace(place)
    else:
        config = (staged / CONFIG).read_text(encoding="utf-8")
        if config != (place / CONFIG).read_text(encoding="utf-8"):
            write_text(place / CONFIG, config)
        if one.new:
            (staged / str(one.number)).replace(place / str(one.number))
    sync_folder(place)
    sync_folder(place.parent)
