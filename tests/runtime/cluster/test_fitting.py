"""Clusters that are not there, too small, or too busy: said at once, for the libraries themselves wait."""

import argparse
import socket

import pytest

from runtime.cluster.arguments import ClusterSpec, add_arguments, spec_from
from runtime.cluster.ray_cluster import _fitting, _say_if_busy
from runtime.cluster.reach import check_reachable
from runtime.common.errors import UserError


@pytest.mark.parametrize(
    ("wanted", "has", "cpus", "reader", "fits"),
    [
        (None, 8, 1, 1, 7),
        (3, 8, 1, 1, 3),
        (7, 8, 1, 1, 7),
        (8, 8, 1, 1, 7),  # the one that would hang
        (99, 2, 1, 1, 1),
        (None, 8, 2, 1, 3),
        (None, 8, 2, 0, 4),
        (4, 8, 2, 0, 4),
        (5, 8, 2, 0, 4),
        (None, 1, 1, 0, 1),
    ],
)
def test_workers_leave_ray_a_cpu_to_read_with(
    wanted: int | None, has: int, cpus: int, reader: int, fits: int, capsys: pytest.CaptureFixture[str]
):
    assert _fitting(wanted, has, cpus, reader) == fits
    assert fits * cpus + reader <= has
    told = capsys.readouterr().err
    assert (f"--workers {wanted}" in told) == (wanted is not None and wanted > fits)


@pytest.mark.parametrize(("has", "cpus", "reader"), [(0, 1, 1), (1, 1, 1), (2, 2, 1), (0, 1, 0), (3, 4, 0)])
def test_a_cluster_that_is_too_small_is_refused(has: int, cpus: int, reader: int):
    with pytest.raises(UserError, match=rf"Ray needs {cpus + reader} CPUs.*; found {has}; add a node"):
        _fitting(None, has, cpus, reader)


def test_a_busy_cluster_is_told(capsys: pytest.CaptureFixture[str]):
    _say_if_busy(4, 4)
    assert capsys.readouterr().err == ""
    _say_if_busy(1, 4)
    assert "Ray has 1 CPUs free and 4 are asked for: the others are waited for" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["{}", "tcp://{}", "ray://{}/"])
def test_an_address_where_nobody_listens_is_refused_at_once(form: str):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = form.format(f"127.0.0.1:{listening.getsockname()[1]}")
        check_reachable(address, "--ray")
    with pytest.raises(UserError, match=r"--ray .* must answer; found Connection refused"):
        check_reachable(address, "--ray")
    for other in ("auto", "inproc://somewhere", "tcp://127.0.0.1:999999"):
        if other.endswith("999999"):
            with pytest.raises(UserError):
                check_reachable(other, "--ray")
        else:
            check_reachable(other, "--ray")


def test_the_cluster_of_a_command_line():
    parser = argparse.ArgumentParser()
    add_arguments(parser, "x")
    assert spec_from(parser.parse_args([])) is None
    assert spec_from(parser.parse_args(["--ray", "local", "--workers", "3"])) == ClusterSpec("ray", "local", 3)
    spec = spec_from(parser.parse_args(["--dask", "tcp://a:1"]))
    assert spec == ClusterSpec("dask", "tcp://a:1") and not spec.local
    with pytest.raises(UserError, match="--dask must be an address or local; found an empty text"):
        spec_from(parser.parse_args(["--dask", ""]))
