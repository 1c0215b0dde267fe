"""CPU quotas of containers, on file trees as Linux lays them out, and what memory is a process's own."""

import mmap
import os
from pathlib import Path

import pytest

from runtime.common.machine import available_cores, own_bytes


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def tree(root: Path, cgroup: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1000 100000", 1), ("max 100000", 8),
     ("1600000 100000", 8), ("25000 10000", 3), ("broken", 8), ("100 0", 8), ("", 8)],
)  # fmt: skip
def test_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    assert available_cores(tree(tmp_path, "0::/\n", cpu_DOT_max=quota + "\n")) == cores


def test_of_nested_groups_the_smallest_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/kubepods/pod1/app\n",
        kubepods__cpu_DOT_max="max 100000\n",
        kubepods__pod1__cpu_DOT_max="300000 100000\n",
        kubepods__pod1__app__cpu_DOT_max="500000 100000\n",
    )
    assert available_cores(root) == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1(tmp_path: Path, mount: str) -> None:
    group = {
        f"{mount}__docker__abc__cpu_DOT_cfs_quota_us": "250000\n",
        f"{mount}__docker__abc__cpu_DOT_cfs_period_us": "100000\n",
        f"{mount}__cpu_DOT_cfs_quota_us": "-1\n",
        f"{mount}__cpu_DOT_cfs_period_us": "100000\n",
    }
    assert available_cores(tree(tmp_path, "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n", **group)) == 3


def test_a_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    """Its path is the host's, while its own group is what is mounted."""
    own = {"cpu__cpu_DOT_cfs_quota_us": "100000\n", "cpu__cpu_DOT_cfs_period_us": "100000\n"}
    assert available_cores(tree(tmp_path, "4:cpu:/docker/abc\n", **own)) == 1


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8
    assert 1 <= available_cores() <= 8


def test_own_memory_is_what_was_written_and_not_what_files_were_read(tmp_path: Path) -> None:
    size = 64 << 20
    (tmp_path / "library").write_bytes(b"1" * size)
    start = own_bytes()
    with (tmp_path / "library").open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as pages:
        assert sum(pages[:: mmap.PAGESIZE]) > 0  # all of its pages are resident now
        assert own_bytes() - start < size / 8
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # a heap may have had room already
    with mmap.mmap(-1, size, flags=private) as written:
        for page in range(0, size, mmap.PAGESIZE):
            written[page] = 1
        assert size / 2 < own_bytes() - start
    assert own_bytes() - start < size / 8
