"""What went on beside a measurement: from made-up trees with shares computed by hand, and from a real busy child."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runtime.report.conditions import Watch, conditions, slowdown
from runtime.report.schema import Conditions

THROTTLE = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
EVENT, THROTTLE_REASONS = "clocks_event_reasons.active", "clocks_throttle_reasons.active"
COUNTERS = "clocks_event_reasons_counters"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def all_cores(*ticks: int) -> dict[str, str]:
    """user nice system idle iowait irq softirq steal guest guest_nice."""
    return {"proc/stat": f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4 5 6 7 8 0 0\nintr 9 0 0\n"}


def process(pid: int | str, utime: int, stime: int, cutime: int = 0, cstime: int = 0) -> dict[str, str]:
    fields = f"S 1 1 1 0 -1 4194560 11 12 13 14 {utime} {stime} {cutime} {cstime} 20 0 3 0 777 888 999"
    return {f"proc/{pid}/stat": f"42 (a (b) c) {fields}\n"}


def nothing(command: Sequence[str]) -> str:
    return ""


def watched(
    root: Path,
    before: dict[str, str],
    after: dict[str, str],
    own: Callable[[], Sequence[int]] = tuple,
    asks: tuple[dict[str, str], dict[str, str]] = ({}, {}),
) -> Watch:
    """A watch over two trees, and over two answers of nvidia-smi by field."""
    answers = asks[0]

    def ask(command: Sequence[str]) -> str:
        fields = command[1].removeprefix("--query-gpu=").split(",")
        return ", ".join(answers[field] for field in fields) if set(fields) <= set(answers) else ""

    write(root, before)
    watch = Watch(own, root, ask)
    with watch:
        write(root, after)
        answers = asks[1]
    return watch


@pytest.fixture(autouse=True)
def all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


BEFORE = {**all_cores(100, 10, 50, 1000, 20, 5, 5, 10, 70, 0), **process("self", 60, 20, 7, 3)}
# + user 150, nice 30, system 40, idle 700, iowait 40, irq 10, softirq 10, steal 20; guest's 50 is in user: 1000 in all
AFTER = {**all_cores(250, 40, 90, 1700, 60, 15, 15, 30, 120, 0), **process("self", 130, 30, 7, 3)}


def test_shares_are_of_all_cores_time(tmp_path: Path):
    """Busy 150 + 30 + 40 + 10 + 10 = 240 of 1000, own 70 + 10 = 80."""
    watch = watched(tmp_path, BEFORE, AFTER)
    assert watch.others_share == pytest.approx(0.160)
    assert watch.stolen_share == pytest.approx(0.020)
    assert watch.throttled is None


def test_a_finished_child_counts_as_own_by_what_its_parent_has_of_it(tmp_path: Path):
    """Own 80 as before and 40 + 20 of children that were waited for: 240 - 140."""
    watch = watched(tmp_path, BEFORE, AFTER | process("self", 130, 30, 47, 23))
    assert watch.others_share == pytest.approx(0.100)


def test_living_children_are_own_where_they_are_named(tmp_path: Path):
    """Child 7 spent 30 + 5 and its own children 10 + 5, 240 - 80 - 50; child 8, unnamed, spends what it likes."""
    before = BEFORE | process(7, 100, 10, 20, 10) | process(8, 0, 0)
    after = AFTER | process(7, 130, 15, 30, 15) | process(8, 500, 500)
    assert watched(tmp_path, before, after, lambda: [7, 7]).others_share == pytest.approx(0.110)


def test_a_child_that_ends_under_way_moves_to_its_parent_whole(tmp_path: Path):
    """It had 40 at the start and 100 at its end: 240 - 80 - (100 - 40)."""
    alive = [7]
    before = BEFORE | process(7, 30, 10)
    after = AFTER | process("self", 130, 30, 7 + 80, 3 + 20)
    watch = Watch(lambda: alive, tmp_path, nothing)
    write(tmp_path, before)
    watch.start()
    write(tmp_path, after)
    alive.clear()
    (tmp_path / "proc/7/stat").unlink()
    watch.end()
    assert watch.others_share == pytest.approx(0.100)


def test_this_process_does_not_count_twice(tmp_path: Path):
    me = os.getpid()
    watch = watched(tmp_path, BEFORE | process(me, 60, 20), AFTER | process(me, 130, 30), lambda: [me])
    assert watch.others_share == pytest.approx(0.160)


def test_a_foreign_process_that_is_gone_gives_others_no_more_than_was_busy(tmp_path: Path):
    """Process 7 was named, had spent 5000, and nobody here waited for it: own time would be 80 - 5000."""
    (tmp_path / "proc/7").mkdir(parents=True)
    watch = Watch(lambda: [7], tmp_path, nothing)
    write(tmp_path, BEFORE | process(7, 5000, 0))
    with watch:
        write(tmp_path, AFTER)
        (tmp_path / "proc/7/stat").unlink()
    assert watch.others_share == pytest.approx(0.240)


def test_more_own_time_than_busy_time_leaves_nothing_to_others(tmp_path: Path):
    """Two clocks of the system that disagree by a tick."""
    assert watched(tmp_path, BEFORE, AFTER | process("self", 230, 91, 7, 3)).others_share == 0.0


def test_an_old_kernel_tells_fewer_columns(tmp_path: Path):
    before = {**all_cores(0, 0, 0, 0), **process("self", 0, 0)}
    watch = watched(tmp_path, before, {**all_cores(30, 0, 10, 60), **process("self", 20, 0)})
    assert (watch.others_share, watch.stolen_share) == (pytest.approx(0.2), 0.0)


@pytest.mark.parametrize(
    "broken",
    [
        {"proc/stat": ""},
        {"proc/stat": "cpu\n"},
        {"proc/stat": "cpu  one two three four\n"},
        {"proc/stat": "intr 1 2 3 4 5\n"},
        all_cores(100, 10, 50, 1000, 20, 5, 5, 10, 70, 0),  # no tick has passed
    ],
)
def test_shares_of_an_unreadable_time_are_not_known(tmp_path: Path, broken: dict[str, str]):
    watch = watched(tmp_path, BEFORE, AFTER | broken)
    assert (watch.others_share, watch.stolen_share) == (None, None)


@pytest.mark.parametrize("broken", ["", "42 (name", "42 (name) S 1 1", "42 (n) S " + "x " * 30])
def test_others_share_needs_own_time(tmp_path: Path, broken: str):
    watch = watched(tmp_path, BEFORE, AFTER | {"proc/self/stat": broken})
    assert watch.others_share is None
    assert watch.stolen_share == pytest.approx(0.020)


def test_where_there_is_no_linux_nothing_is_known(tmp_path: Path):
    with Watch(lambda: [1, 2], tmp_path, nothing) as watch:
        assert watch.others_share is watch.throttled is None  # before the end neither
    assert conditions(watch, None) == Conditions(None, None, None, None, ())


def test_a_watch_that_never_began_knows_nothing(tmp_path: Path):
    write(tmp_path, AFTER)
    watch = Watch(root=tmp_path, ask=nothing)
    watch.end()
    assert conditions(watch, None) == Conditions(None, None, None, None, ())


@pytest.mark.parametrize(
    ("before", "after", "throttled", "by"),
    [
        (("5", "0"), ("5", "0"), False, ()),
        (("5", "0"), ("6", "0"), True, ("a core 1 time",)),
        (("5", "0"), ("6", "3"), True, ("a core 3 times",)),
        (("5", "0"), ("0", "0"), False, ()),  # a core that was off and on again
        (("five", "5"), ("six", "5"), False, ()),
        (("five",), ("six",), None, ()),
    ],
)
def test_cores_are_throttled_where_their_count_grows(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], throttled: bool | None, by: tuple[str, ...]
):
    counts = [{THROTTLE.format(core): f"{text}\n" for core, text in enumerate(texts)} for texts in (before, after)]
    watch = watched(tmp_path, *counts)
    assert (watch.throttled, watch.throttled_by) == (throttled, by)


@pytest.mark.parametrize("field", [EVENT, THROTTLE_REASONS])  # by new drivers and old ones
@pytest.mark.parametrize(
    ("before", "after", "throttled", "named"),
    [
        ("0x0000000000000001", "0x0000000000000001", False, ""),  # idle
        ("0x0000000000000001", "0x0000000000000116", False, ""),  # clocks and power that were set, sync, display
        ("0x0000000000000000", "0x0000000000000068", True, "the GPU (hardware slowdown, thermal slowdown by the "),
        ("0x0000000000000080", "0x0000000000000001", True, "the GPU (power brake)"),
        ("0x0", "[N/A]", None, ""),
        ("Not Active", "Active", None, ""),
    ],
)
def test_a_gpu_is_throttled_by_heat_and_supply(
    tmp_path: Path, field: str, before: str, after: str, throttled: bool | None, named: str
):
    watch = watched(tmp_path, {}, {}, asks=({field: before}, {field: after}))
    assert watch.throttled is throttled
    assert "".join(watch.throttled_by).startswith(named) and bool(watch.throttled_by) == bool(named)


@pytest.mark.parametrize(
    ("grown", "by"),
    [
        ("", ()),
        ("sw_thermal_slowdown", ("the GPU (thermal slowdown by the driver)",)),
        ("hw_thermal_slowdown", ("the GPU (thermal slowdown by the hardware)",)),
        ("hw_power_brake_slowdown", ("the GPU (power brake)",)),
    ],
)
def test_a_gpu_that_was_throttled_between_the_looks_has_counted_it(tmp_path: Path, grown: str, by: tuple[str, ...]):
    names = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
    before = {EVENT: "0x0", **{f"{COUNTERS}.{name}": "1000" for name in names}}
    after = before | ({f"{COUNTERS}.{grown}": "1001"} if grown else {})
    assert watched(tmp_path, {}, {}, asks=(before, after)).throttled_by == by


def test_a_core_that_is_told_is_enough_beside_a_gpu_that_is_not(tmp_path: Path):
    count = {THROTTLE.format(0): "1"}
    assert watched(tmp_path, count, count).throttled is False


def test_slowdown_compares_the_last_third_with_the_first():
    steady = [[10.0]] * 6
    # thirds of 2 rounds: medians 1.5 and 3 → 2; the middle does not count
    slower = [[1.0], [2.0, 2.0, 9.0], [50.0], [60.0], [3.0], [3.0]]
    # it ran in four rounds, so thirds of one: 4 → 5 is 1.25
    rare = [[], [4.0], [], [9.0], [9.0], [], [5.0]]
    assert slowdown([slower]) == pytest.approx(2.0)
    assert slowdown([rare]) == pytest.approx(1.25)
    assert slowdown([steady, rare, slower]) == pytest.approx(1.25)
    assert slowdown([steady, slower]) == pytest.approx(1.5)


@pytest.mark.parametrize("rounds", [[], [[]], [[[1.0], [2.0]]], [[[1.0], [], [2.0], []]]])
def test_slowdown_needs_three_rounds(rounds: list[list[list[float]]]):
    assert slowdown(rounds) is None
    assert slowdown([*rounds, [[1.0], [1.0], [1.1]]]) == pytest.approx(1.1)


def test_each_trouble_has_a_warning_with_its_figure_and_a_cure(tmp_path: Path):
    """The shares are those of `test_shares_are_of_all_cores_time`, but 21 stolen: 160 and 21 of 1001."""
    after = AFTER | all_cores(250, 40, 90, 1700, 60, 15, 15, 31, 120, 0)
    watch = watched(tmp_path, BEFORE | {THROTTLE.format(0): "3"}, after | {THROTTLE.format(0): "15"})
    found = conditions(watch, 1.083)
    assert found == Conditions(pytest.approx(160 / 1001), pytest.approx(21 / 1001), True, 1.083, found.warnings)
    assert found.warnings == (
        "others used 16 % of the cores' time: close what else runs",
        "the host gave 2.1 % of the cores' time to other guests: measure on a host of its own",
        "throttled: a core 12 times: cool the machine, check its power supply, and measure again",
        "the last runs took 8.3 % longer than the first: cool the machine, close what else runs",
    )


@pytest.mark.parametrize(
    ("ratio", "said"), [(1.05, None), (0.95, None), (1.051, "5.1 % longer"), (0.86, "14 % less time"), (None, None)]
)
def test_slowdown_is_told_beyond_five_percent(tmp_path: Path, ratio: float | None, said: str | None):
    warnings = conditions(watched(tmp_path, {}, {}), ratio).warnings
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_small_shares_are_no_trouble(tmp_path: Path):
    """Others 130 - 80 = 50 of 1000, stolen 20: the bounds themselves."""
    after = AFTER | all_cores(150, 30, 90, 1810, 60, 15, 15, 30, 120, 0)
    found = conditions(watched(tmp_path, BEFORE, after), 1.0)
    assert (found.others_share, found.stolen_share) == (0.05, 0.02)
    assert found.warnings == ()


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


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_a_real_busy_child_is_among_the_others_unless_it_is_named():
    """Both watches see the same interval, so that what else runs here cancels in their difference."""
    command = [sys.executable, "-c", SPIN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdout.readline()
        unnamed, named = Watch(ask=nothing), Watch(lambda: [child.pid], ask=nothing)
        started = time.monotonic()
        with unnamed, named:
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
        child_share = 0.3 / (time.monotonic() - started) / (os.cpu_count() or 1)
        child.communicate("\n")
    assert unnamed.others_share is not None and named.others_share is not None
    # ticks are 10 ms and the system samples them: half is far more than that loses, and far more than nothing
    assert unnamed.others_share > 0.5 * child_share
    assert unnamed.others_share - named.others_share > 0.5 * child_share


def test_medians_that_moved_are_a_warning_with_the_figure():
    watch = Watch()
    assert conditions(watch, 1.0, 0.05).warnings == ()
    (warning,) = conditions(watch, 1.0, 0.123).warnings
    assert warning.startswith("medians moved by 12 % between parts of the measurement")
