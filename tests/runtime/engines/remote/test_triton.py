"""The real Triton server: what `cflow triton` writes is loaded by it, and its verdicts are those of the file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import runtime
from export import triton
from runtime.engines.remote import memory
from runtime.engines.remote.options import ServerOptions
from tests.runtime.engines.remote.test_remote_session import BAD, GOOD, grey, noise
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine
from tests.support.triton_server import Triton
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
PATIENT = ServerOptions(deadline_ms=60_000)


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Triton]:
    with Triton(repository, tmp_path).running() as started:
        yield started


def _addresses(server: Triton) -> tuple[str, str]:
    return f"grpc://127.0.0.1:{server.grpc}/cable", f"http://127.0.0.1:{server.http}/cable"


def test_verdicts_are_those_of_the_file_bit_for_bit_by_every_way(server: Triton, engine: Path):
    frames = [noise(seed, size) for seed, size in enumerate([(32, 48), (32, 48), (600, 800)])]
    with runtime.load(engine, threads=1, backend="onnxruntime") as local:
        for address in _addresses(server):
            for shared in (True, False):
                with runtime.load(address, server=replace(PATIENT, shared_memory=shared)) as remote:
                    regions = [slot._region is not None for slot in remote.session._all]
                    assert any(regions) is shared and remote.hashes == local.hashes
                    for frame in frames:
                        here, there = local(frame), remote(frame)
                        assert here.image_score == there.image_score and here.verdict == there.verdict
                        assert np.array_equal(here.anomaly_map, there.anomaly_map)
                    batch = [grey(level) for level in (GOOD, BAD, GOOD)]
                    assert [one.verdict for one in remote.batch(batch)] == ["good", "anomalous", "good"]
                    assert [one.verdict for one in remote.stream(batch * 5)] == ["good", "anomalous", "good"] * 5
    assert not list(memory.PLACE.glob(f"{memory.PREFIX}{os.getpid()}-*"))


def test_a_killed_server_that_comes_back_judges_on(server: Triton):
    grpc, http = _addresses(server)
    options = replace(PATIENT, deadline_ms=2000.0)
    with runtime.load(grpc, server=options) as one, runtime.load(http, server=options) as other:
        assert one(grey(BAD)).verdict == other(grey(BAD)).verdict == "anomalous"
        server.kill()
        away = [one(grey(GOOD)), other(grey(GOOD))]
        assert [result.verdict for result in away] == ["none", "none"] and all(result.reason for result in away)
        server.start()
        for remote in (one, other):
            wait_until(lambda remote=remote: remote(grey(GOOD)).verdict == "good")
            assert remote(grey(BAD)).verdict == "anomalous"
            assert remote.session._all[0]._region is not None  # frames go by shared memory again


def test_a_new_version_is_for_who_starts_anew_and_the_old_one_stays(
    repository: Path, engine: Path, tmp_path: Path, server: Triton
):
    grpc, _ = _addresses(server)
    with runtime.load(grpc, server=replace(PATIENT, deadline_ms=5000.0)) as old:
        write_tiny_engine(engine.parent, "cable", taps=("layer2", "layer3"), threshold=0.1)
        triton.main([str(repository), str(engine), "--backend", "python", "--batch", "4"])
        server.kill()
        server.start()
        wait_until(lambda: old(grey(GOOD)).verdict == "good")  # both are loaded
        with runtime.load(grpc, server=PATIENT) as new:
            assert new(grey(GOOD)).verdict == "anomalous" and new.session.device.endswith("version 2")
        triton.main([str(repository), str(engine), "--backend", "python", "--batch", "4", "--loaded", "1"])
        server.kill()
        server.start()
        wait_until(lambda: "not" in old(grey(GOOD)).reason and "version" in old(grey(GOOD)).reason)
        assert old(grey(BAD)).verdict == "none"


def test_several_detectors_of_one_server_one_by_this_kit(tmp_path: Path):
    """`--python-path` lets the server import the kit: then the engine is opened and checked as on a line."""
    folder = tmp_path / "engines"
    folder.mkdir()
    cable, plug = write_tiny_engine(folder, "cable"), write_tiny_engine(folder, "plug", size=(40, 24), threshold=2.0)
    triton.main([str(tmp_path / "models"), str(cable), "--backend", "python"])
    kit = ["--python-path", str(ROOT), "--library", "onnxruntime", "--threads", "1"]
    triton.main([str(tmp_path / "models"), str(plug), "--backend", "python", *kit])
    with Triton(tmp_path / "models", tmp_path).running() as server:
        assert "is run by ONNX Runtime" in server.log and "is run by cflow-edge with ONNX Runtime" in server.log
        words = [sys.executable, "-m", "runtime.infer", "--json", "--source", str(tmp_path / "pictures"), "--recipes"]
        recipes = tmp_path / "recipes.toml"
        recipes.write_text(
            "".join(
                f'[[recipe]]\nname = "{name}"\nengine = "grpc://127.0.0.1:{server.grpc}/{name}"\n'
                for name in ("cable", "plug")
            )
        )
        from PIL import Image

        (tmp_path / "pictures").mkdir()
        for level in (GOOD, 120, BAD):
            Image.fromarray(grey(level, (64, 64))).save(tmp_path / "pictures" / f"{level:03}.png")
        for name, expected in (("cable", ["good", "anomalous", "anomalous"]), ("plug", ["good", "good", "anomalous"])):
            asked = [*words, str(recipes), "--recipe", name, "--server-deadline", "60000"]
            done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == expected


def test_a_changed_engine_file_is_not_loaded(repository: Path, tmp_path: Path, engine: Path):
    changed = write_tiny_engine(tmp_path, "other", taps=("layer2",))
    (repository / "cable" / "1" / "model.onnx").write_bytes(changed.read_bytes())
    with pytest.raises(AssertionError, match=r"must be the file that config.pbtxt names"):
        Triton(repository, tmp_path).start()
