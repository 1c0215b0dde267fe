"""The command line of `cflow judge`: what it refuses, each in one line and before any work."""

from pathlib import Path

import pytest

from runtime.common.errors import run_command
from runtime.judge import main
from tests.support.archives import rows_of


def _status(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Return the exit status and the last line on stderr."""
    try:
        status = run_command(main, list(map(str, words)))
    except SystemExit as error:
        status = int(error.code or 0)
    lines = capsys.readouterr().err.strip().splitlines()
    return status, lines[-1] if lines else ""


def test_a_shard_from_the_command_line(
    engine: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder.parent)
    words = ["--engine", engine, "--out", tmp_path / "scores", "--backend", "onnxruntime", "--workers", 1]
    for shard in ("1/2", "2/2"):
        assert run_command(main, list(map(str, [folder.name, *words, "--shard", shard]))) == 0
    told = capsys.readouterr().out
    assert "shard 2/2:" in told and "1 none (1 could not be read)" in told and "wrote" in told
    assert run_command(main, ["merge", str(tmp_path / "scores"), "--out", str(tmp_path / "all.parquet")]) == 0
    assert "22 images of 2 shards" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "all.parquet")) == 22


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shard", "0/2"], "I/N with I from 1 to N"),
        (["--roi", "1,1,9,9", "--roi", "2,2,9,9"], "--roi is given once"),
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--ray", "local", "--dask", "local"], "not allowed with argument"),
        (["--ray", " "], "--ray must be an address or local"),
        (["--dask", "127.0.0.1:1"], "--dask 127.0.0.1:1 must answer"),
        (["--threshold", "99"], "scale"),
        (["--workers", "0"], "whole number from 1 up"),
    ],
)
def test_what_cannot_be_is_one_line(
    engine: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
):
    status, line = _status(capsys, folder, "--engine", engine, "--out", tmp_path / "scores", *words)
    assert status == 2 and told in line, line
    assert not list((tmp_path / "scores").glob("*.parquet"))


def test_a_logs_frames_have_no_view_of_ones_own(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [tmp_path / "i.db", "--engine", engine, "--out", tmp_path / "scores", "--rotate", "90"]
    assert _status(capsys, *words) == (
        2,
        "error: a log's frames are judged as its line saw them; found a view of your own; leave it out",
    )


def test_a_scheme_whose_library_is_not_there(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("fsspec", reason="fsspec (extra archive)")
    status, line = _status(capsys, "gcs://bucket/x", "--engine", engine, "--out", tmp_path / "scores")
    assert status == 2 and "gcs://bucket/x must be an address that fsspec can open; found" in line
