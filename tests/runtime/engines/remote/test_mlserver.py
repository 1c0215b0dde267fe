"""A real server that is no Triton: no configuration, no shared memory, no versions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

import runtime
from runtime.common.errors import UserError
from runtime.engines.remote.options import ServerOptions
from runtime.engines.sidecar import sidecar_path
from tests.runtime.engines.remote.test_remote_session import BAD, GOOD, grey, noise
from tests.support.mlserver import mlserver


@pytest.mark.slow
def test_mlserver_by_grpc_judges_bit_for_bit_and_by_http_is_refused(tmp_path: Path, engine: Path):
    options = ServerOptions(deadline_ms=60_000, sidecar=sidecar_path(engine))
    with mlserver(engine, (32, 48), tmp_path / "server") as addresses:
        with (
            runtime.load(engine, threads=1, backend="onnxruntime") as local,
            runtime.load(addresses["grpc"], server=options) as remote,
        ):
            for seed in range(3):
                here, there = local(noise(seed)), remote(noise(seed))
                assert here.image_score == there.image_score and np.array_equal(here.anomaly_map, there.anomaly_map)
            batch = [grey(level) for level in (GOOD, BAD, GOOD)]
            assert [one.verdict for one in remote.batch(batch)] == ["good", "anomalous", "good"]
            assert all(slot._region is None for slot in remote.session._all) and remote.hashes.engine == ""
        with pytest.raises(UserError, match="must have a sidecar"):
            runtime.load(addresses["grpc"], server=replace(options, sidecar=None))
        with pytest.raises(UserError, match="name it by grpc://"):
            runtime.load(addresses["http"], server=options)
