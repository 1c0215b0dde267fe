"""What went on beside the measuring, with a real busy child and with figures that are chosen."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.report import conditions as module
from runtime.report.conditions import LoadWatch, conditions, slowdown

THROTTLE = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"


def test_shares_are_of_all_cores_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"idle": 10.0, "iowait": 1.0, "steal": 0.5, "total": 20.0, "own": 3.0}
    after = {"idle": 50.0, "iowait": 3.0, "steal": 2.5, "total": 120.0, "own": 33.0}
    looks = iter([before, after])
    monkeypatch.setattr(module, "core_seconds", lambda children: next(looks))
    monkeypatch.setattr(module, "gpu_values", lambda fields: {})
    with LoadWatch() as watch:
        pass
    # of 100 s: 42 idle, 2 stolen, 30 our own
    assert (watch.others_share, watch.stolen_share) == (pytest.approx(0.26), pytest.approx(0.02))


@pytest.mark.parametrize(
    ("counts", "bits", "expected"),
    [
        ((("3", "7"), ("3", "7")), None, False),
        ((("3", "7"), ("3", "9")), None, True),
        (((), ()), None, None),
        (((), ()), "0x0000000000000004", False),  # a power limit that was set
        (((), ()), "0x0000000000000044", True),  # the hardware's heat
        ((("3",), ("3",)), "0x0000000000000008", True),
    ],
)
def test_throttling_is_a_grown_count_or_a_fault_of_the_gpu(
    counts: tuple[tuple[str, ...], ...], bits: str | None, expected: bool | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def tell(texts: tuple[str, ...]) -> None:
        for core, text in enumerate(texts):
            path = tmp_path / THROTTLE.format(core)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    monkeypatch.setattr(module, "gpu_values", lambda fields: {fields[0]: bits} if bits else {})
    tell(counts[0])
    with LoadWatch(root=tmp_path) as watch:
        tell(counts[1])
    assert watch.throttled is expected


def _rounds(values: list[float]) -> list[tuple[float, ...]]:
    return [(value,) for value in values]


def test_slowdown_is_the_last_third_over_the_first() -> None:
    assert slowdown([_rounds([1, 1, 1, 1, 1, 1, 2, 2, 2])]) == 2.0
    rows = [_rounds([1.0] * 6), _rounds([1, 1, 1, 1, 1.2, 1.2]), _rounds([2, 2, 2, 2, 3, 3])]
    assert slowdown(rows) == pytest.approx(1.2)
    assert slowdown([[(1.0, 9.0, 1.0), (), (1.0,), (), (4.0,), ()]]) == 4.0  # rounds without a run do not count
    assert slowdown([]) is slowdown([_rounds([1, 5])]) is None


def test_each_trouble_has_a_warning_with_its_figure_and_a_cure() -> None:
    watch = LoadWatch()
    assert conditions(watch, 1.04, 0.04).warnings == conditions(watch, None).warnings == ()
    watch.others_share, watch.stolen_share, watch.throttled = 0.2, 0.1, True
    found = conditions(watch, 0.8, 0.3)
    assert (found.others_share, found.stolen_share, found.throttled, found.slowdown) == (0.2, 0.1, True, 0.8)
    expected = ("other processes used 20%", "of the host had 10%", "cool the machine", "took 0.80 times", "by 30%")
    assert len(found.warnings) == len(expected)
    assert all(part in warning for part, warning in zip(expected, found.warnings, strict=True))


# spins for 0.3 s of processor time, however long that takes on a busy machine, and lives on
SPIN = """
import time
print(flush=True)
input()
begun = time.process_time()
while time.process_time() - begun < 0.3: pass
print(flush=True)
input()
"""


def test_a_real_busy_child_is_among_the_others_unless_it_is_named() -> None:
    """Both watches see the same interval, so that what else runs here cancels in their difference."""
    command = [sys.executable, "-c", SPIN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        unnamed, named = LoadWatch(), LoadWatch(lambda: [child.pid])
        started = time.monotonic()
        with unnamed, named:
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
        child_share = 0.3 / (time.monotonic() - started) / (os.cpu_count() or 1)
        child.communicate("\n")
    # ticks are 10 ms and the system samples them: half is far more than that loses, and far more than nothing
    assert unnamed.others_share > 0.5 * child_share
    assert unnamed.others_share - named.others_share > 0.5 * child_share
    assert np.isfinite([unnamed.stolen_share, named.stolen_share]).all()
