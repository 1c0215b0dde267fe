"""Ray: one of this machine alone, or one that runs already; and never more workers than leave it a CPU to read with.

A Ray job whose actors take every CPU waits for its own readers for ever, and says nothing.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.cluster.arguments import ClusterSpec
from runtime.cluster.reach import check_reachable
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.common.notices import say

READER_CPUS = 1
STARTS = 3  # that are tried of a cluster of this machine alone
INSTALL = "pip install 'cflow-edge[ray]'"
STORE_BYTES = 256 << 20  # of a cluster of this machine alone: rows of tables pass through it, no pictures
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # tells nobody, prints nothing


@contextmanager
def ray_cluster(spec: ClusterSpec, cpus: int = 1, reader_cpus: int = READER_CPUS) -> Iterator[tuple[Any, int]]:
    """Yield the library, connected, and how many workers of `cpus` CPUs there are to be; disconnected at the end.

    `reader_cpus` are left to what Ray Data reads with.

    Raises `UserError` without Ray, for a cluster that does not answer, or one that is too small.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise UserError("--ray needs Ray", "none", INSTALL) from None
    for name in ("ray", "ray.data"):  # once it is imported: it sets them itself
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        raise UserError("Ray must not be in use by this process yet", "a connection", "end it first: ray.shutdown()")
    try:
        if spec.local:
            workers = spec.workers or max(1, available_cores() // cpus)
            _begin(ray, workers * cpus + reader_cpus)
        else:
            check_reachable(spec.address, "--ray")
            _init(ray, spec.address)
            workers = _fitting(spec.workers, int(ray.cluster_resources().get("CPU", 0)), cpus, reader_cpus)
            _say_if_busy(int(ray.available_resources().get("CPU", 0)), workers * cpus + reader_cpus)
    except BaseException:
        ray.shutdown()
        raise
    try:
        yield ray, workers
    finally:
        ray.shutdown()


def _begin(ray: Any, cpus: int, tries: int = STARTS) -> None:
    """Begin a cluster of this machine alone; Ray gives its processes 30 s, which a busy machine may not have."""
    try:
        _init(ray, "local", num_cpus=cpus, include_dashboard=False, object_store_memory=STORE_BYTES)
    except UserError:
        ray.shutdown()
        if tries == 1:
            raise
        _begin(ray, cpus, tries - 1)


def _init(ray: Any, address: str, **more: Any) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **more)
    except Exception as error:  # of many kinds, the plainest among them
        found = (str(error) or type(error).__name__).strip().splitlines()[0]
        cure = "check the address (ray status), and RAY_AUTH_TOKEN where it wants one"
        raise UserError(f"the Ray cluster {address} must answer", found, cure) from None


def _fitting(wanted: int | None, has: int, cpus: int, reader_cpus: int) -> int:
    """Return how many workers fit into a cluster of `has` CPUs beside its reader; says so where that is fewer."""
    most = (has - reader_cpus) // cpus
    if most < 1:
        needed = f"{cpus + reader_cpus} CPUs" + (f", {reader_cpus} of them to read with" if reader_cpus else "")
        raise UserError(f"Ray needs {needed}", f"{has}", "add a node")
    if wanted is not None and wanted > most:
        why = "would leave Ray no CPU to read with" if reader_cpus else "are more than Ray has CPUs for"
        say(f"--workers {wanted} {why}, of its {has}: {most} it is")
    return most if wanted is None else min(wanted, most)


def _say_if_busy(free: int, needed: int) -> None:
    if free < needed:
        say(f"Ray has {free} CPUs free and {needed} are asked for: the others are waited for")
