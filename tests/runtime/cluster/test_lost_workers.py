"""A Dask cluster that has lost its last worker is not waited for for ever."""

import os
import signal
import time
from pathlib import Path

import pytest

from runtime.cluster import dask_cluster
from runtime.cluster.arguments import ClusterSpec
from runtime.common.errors import UserError
from tests.support.clusters import dask_of_two

pytest.importorskip("distributed", reason="dask and distributed (extra dask)")


@pytest.mark.slow
def test_a_cluster_without_a_worker_left_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dask_cluster, "LOOK_S", 0.5)
    monkeypatch.setattr(dask_cluster, "ALONE_S", 2.0)
    with (
        dask_of_two(tmp_path, workers=1) as address,
        dask_cluster.dask_cluster(ClusterSpec("dask", address)) as (client, workers),
    ):
        assert workers == 1
        done = dask_cluster.in_turn(client, workers, time.sleep, [0.0, 0.0, 3600.0, 3600.0])
        assert [next(done)[0], next(done)[0]] == [0.0, 0.0]
        [nanny] = client.run(os.getppid).values()
        [worker] = client.run(os.getpid).values()
        for pid in (nanny, worker):  # the one that would begin another first
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"must have a worker; found none for 2 s"):
            next(done)
