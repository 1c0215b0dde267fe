"""What OpenVINO compiled is kept for the next start: found by hashes, believed only where nobody else can write."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import runtime
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines import compiled_cache
from runtime.engines.compiled_cache import entry_name, read_entry, remove_entry, write_entry
from runtime.engines.openvino_session import OpenVinoSession
from runtime.engines.sidecar import read_sidecar, write_sidecar
from tests.support.tiny_engine import write_tiny_engine

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3)).astype(np.uint8)
NAME = entry_name({"file": "a"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home" / "cache"
    monkeypatch.setenv("CFLOW_CACHE", str(folder))
    return folder


def _scores(engine: Path) -> tuple[list[float], bool]:
    """Return the scores of one frame and of several, and whether nothing had to be read and compiled for that."""
    with OpenVinoSession(engine, keep=True) as session:
        scores = [*session.run(FRAMES[:1])[1].tolist(), *session.run(FRAMES)[1].tolist()]
        return scores, session._model is None


def test_the_second_start_compiles_nothing_and_judges_alike(tmp_path: Path, cache: Path):
    engine = write_tiny_engine(tmp_path)
    first, kept = _scores(engine)
    assert not kept and len(list(cache.glob("*.compiled"))) == 2  # of one frame and of any number
    assert cache.stat().st_mode & 0o777 == 0o700
    assert _scores(engine) == (first, True)
    with runtime.load(engine, backend="openvino") as detector:
        assert detector.session._model is None  # `runtime.load` keeps
        assert detector(FRAMES[0]).image_score == pytest.approx(first[0])
    with OpenVinoSession(engine) as session:  # nobody asked for it
        assert session._model is not None


def test_a_file_of_the_same_size_and_time_is_another_one(tmp_path: Path, cache: Path):
    engine = write_tiny_engine(tmp_path)
    first, _ = _scores(engine)
    before, stamp = engine.read_bytes(), engine.stat()
    model = onnx.load(engine)
    (scale,) = (each for each in model.graph.initializer if onnx.numpy_helper.to_array(each).size == 1)
    scale.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(scale), scale.name))
    onnx.save(model, engine)
    os.utime(engine, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert engine.stat().st_size == len(before) and engine.stat().st_mtime_ns == stamp.st_mtime_ns
    second, kept = _scores(engine)
    assert not kept and not np.allclose(first, second)


def test_a_detector_needs_the_disk_no_more_once_it_is_open(tmp_path: Path, cache: Path):
    engine = write_tiny_engine(tmp_path)
    first, _ = _scores(engine)
    with runtime.load(engine, backend="openvino") as detector:
        assert detector.session._model is None
        for entry in cache.glob("*.compiled"):
            os.truncate(entry, 0)  # a mapped file would end the process here
        engine.unlink()
        assert detector(FRAMES[0]).image_score == pytest.approx(first[0])


def test_a_kept_engine_is_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    engine = write_tiny_engine(tmp_path)
    _scores(engine)
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    for module in ("sidecar", "openvino_session"):
        monkeypatch.setattr(f"runtime.engines.{module}.sha256_of", counted)
    with runtime.load(engine, backend="openvino") as detector:
        assert detector.session._model is None and hashed == [engine]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_entry_is_compiled_anew(tmp_path: Path, cache: Path, damage: str):
    engine = write_tiny_engine(tmp_path)
    first, _ = _scores(engine)
    for entry in cache.glob("*.compiled"):
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-1]), "empty": b"", "foreign": b""}[damage])
        if damage == "foreign":  # whole, and nothing that the library takes
            write_entry(entry.name, b"something else")
    assert _scores(engine) == (first, False)
    assert _scores(engine) == (first, True)  # and that was kept


@pytest.mark.parametrize("fault", ["others may write", "others may read", "a link", "a file", "no folder", "none"])
def test_a_folder_that_is_not_this_users_alone_is_left_out(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    engine = write_tiny_engine(tmp_path)
    expected, _ = _scores(engine)
    if fault.startswith("others"):
        cache.chmod(0o722 if fault.endswith("write") else 0o744)
    elif fault == "a link":
        cache.rename(tmp_path / "elsewhere")
        cache.symlink_to(tmp_path / "elsewhere")
    elif fault == "a file":
        cache.rename(tmp_path / "elsewhere")
        cache.touch()
    else:
        monkeypatch.setenv("CFLOW_CACHE", "/proc/none/there" if fault == "no folder" else "")
    for _ in range(2):
        assert _scores(engine) == (expected, False)


def test_another_users_entry_or_a_link_is_not_read(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_entry(NAME, b"content")
    assert read_entry(NAME) == b"content"
    (cache / NAME).rename(tmp_path / "moved")
    (cache / NAME).symlink_to(tmp_path / "moved")
    assert read_entry(NAME) is None
    (cache / NAME).unlink()
    (tmp_path / "moved").rename(cache / NAME)
    assert read_entry(NAME) == b"content"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read_entry(NAME) is None


def test_the_cache_is_bounded_and_the_least_recently_used_go(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiled_cache, "MOST_BYTES", 1000)
    names = [entry_name({"file": str(number)}) for number in range(4)]
    for number, name in enumerate(names[:3]):
        write_entry(name, bytes(250))
        os.utime(cache / name, (number, number))
    assert read_entry(names[0]) is not None  # used just now
    write_entry(names[3], bytes(250))
    assert [read_entry(name) is not None for name in names] == [True, False, True, True]
    write_entry(names[1], bytes(501))  # more than half of it all
    assert read_entry(names[1]) is None and len(list(cache.iterdir())) == 3
    monkeypatch.setattr(compiled_cache, "LEFT_FREE", 1 << 62)
    write_entry(names[1], b"")
    assert read_entry(names[1]) is None  # the disk is needed for other things
    remove_entry(names[0])
    assert read_entry(names[0]) is None


def test_what_an_entry_depends_on_is_in_its_name(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    engine, names = write_tiny_engine(tmp_path), []
    monkeypatch.setattr("runtime.engines.openvino_session.read_entry", lambda name: names.append(name))
    library = type("library", (), {"__version__": "2099.1"})
    for threads, precision, patched in ((1, "float32", False), (2, "float32", False), (2, "float32", True)):
        with monkeypatch.context() as patch:
            if patched:
                patch.setattr("runtime.engines.openvino_session.import_openvino", lambda: library)
            OpenVinoSession(engine, threads, precision=precision, keep=True).close()
    assert len(set(names)) == 3


def test_a_file_that_is_refused_leaves_nothing(tmp_path: Path, cache: Path):
    engine = write_tiny_engine(tmp_path)
    model = onnx.load(engine)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.full_like(onnx.numpy_helper.to_array(tensor), np.nan), tensor.name)
        )
        break
    onnx.save(model, engine)
    for _ in range(2):
        with pytest.raises(UserError):
            OpenVinoSession(engine, keep=True)
    assert not list(cache.glob("*"))


def test_a_file_that_changes_while_it_is_opened_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    engine, hashes = write_tiny_engine(tmp_path), iter(["before", "after"])
    monkeypatch.setattr("runtime.engines.openvino_session.sha256_of", lambda path: next(hashes))
    with pytest.raises(UserError, match="must stay as it is while it is opened"):
        OpenVinoSession(engine, keep=True)
    assert not list(cache.glob("*"))


def test_a_kept_graph_is_held_to_the_sidecar_too(tmp_path: Path, cache: Path):
    engine = write_tiny_engine(tmp_path)
    _scores(engine)
    write_sidecar(
        engine, read_sidecar(engine).__class__.from_json({**read_sidecar(engine).to_json(), "input_size": [16, 16]})
    )
    with pytest.raises(UserError, match="must have the inputs and outputs that its sidecar promises"):
        OpenVinoSession(engine, keep=True)
