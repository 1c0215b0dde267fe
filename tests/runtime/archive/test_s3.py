"""An archive in an S3 bucket, of a real server on this machine: the rows of the same files in a folder."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.archive.run import judge_shard
from tests.support.archives import rows_of, run_of, webdataset
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

s3fs = pytest.importorskip("s3fs", reason="s3fs (extra s3)")
SERVER = shutil.which("moto_server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason="moto_server (pip install 'moto[server]') on the PATH"),
]
KEYS = {"AWS_ACCESS_KEY_ID": "plant", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "eu-central-1"}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """A server, empty; its address."""
    assert SERVER is not None
    log = tmp_path / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", "0"], stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), "no server")
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert found
        yield found[0]
    finally:
        process.terminate()
        process.wait(20)


def test_a_bucket_is_judged_as_the_folder_it_was(endpoint: str, engine: Path, folder: Path, tmp_path: Path):
    webdataset(tmp_path / "shards" / "one.tar", range(30, 36))
    shutil.copytree(folder, tmp_path / "shards" / "pictures")
    bucket = s3fs.S3FileSystem(
        key=KEYS["AWS_ACCESS_KEY_ID"], secret=KEYS["AWS_SECRET_ACCESS_KEY"], endpoint_url=endpoint
    )
    bucket.mkdir("plant")
    bucket.put(str(tmp_path / "shards"), "plant/archive", recursive=True)
    expected = rows_of(judge_shard(run_of(tmp_path / "shards", engine, tmp_path / "here")).file)
    assert len(expected) == 28
    environment = {**os.environ, **KEYS, "FSSPEC_S3_ENDPOINT_URL": endpoint}

    def judge(archive: str, out: str, **more: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "runtime.judge", archive, "--engine", str(engine), "--out", str(tmp_path / out)]
        words += ["--workers", "2", "--part-size", "5", "--backend", "onnxruntime"]
        return subprocess.run(words, cwd=ROOT, env={**environment, **more}, capture_output=True, text=True)

    ended = judge("s3://plant/archive", "there")
    assert ended.returncode == 0, ended.stderr
    assert rows_of(tmp_path / "there" / "000001-of-000001.parquet") == expected
    ended = judge("s3://plant/nothing", "nothing")
    assert ended.returncode == 2 and "s3://plant/nothing must hold images" in ended.stderr
    ended = judge("s3://plant/archive", "away", FSSPEC_S3_ENDPOINT_URL="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("error: s3://plant/archive must be listed")
