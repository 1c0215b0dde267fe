import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np
import pytest

from runtime.sinks.delivery import Deliveries, Delivery
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Counts, Queueing
from runtime.sources.frame import Frame
from tests.support.judgements import judgement


class Probe:
    """A sink that keeps what it got, and waits or raises where a test says so."""

    name = "probe"

    def __init__(self, trouble: Exception | None = None, queueing: Queueing | None = None) -> None:
        self.got: list[Judgement] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.trouble = trouble
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        if queueing is not None:
            self.queueing = queueing

    def write(self, judgement: Judgement) -> None:
        self.threads.add(threading.get_ident())
        self.busy.set()
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.got.append(judgement)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def indices(self) -> list[int]:
        return [item.frame.index for item in self.got]


@pytest.fixture
def hanging() -> Iterator[Probe]:
    probe = Probe()
    probe.gate.clear()
    yield probe
    probe.gate.set()


def _settled(delivery: Delivery) -> Counts:
    deadline = time.monotonic() + 120
    while delivery.counts().queued and time.monotonic() < deadline:
        time.sleep(0.001)
    return delivery.counts()


def _block(delivery: Delivery, probe: Probe) -> None:
    """Have the sink's thread hang in frame 0."""
    delivery.offer(judgement(0))
    assert probe.busy.wait(120)


def _total(counts: Counts) -> int:
    return counts.delivered + counts.lost + counts.failed + counts.queued


def test_everything_arrives_in_order_from_one_other_thread():
    probe = Probe()
    delivery = Delivery(probe, Queueing(capacity=1000))
    for i in range(500):
        delivery.offer(judgement(i))
    delivery.close()
    assert probe.indices == list(range(500))
    assert probe.closed == 1 and len(probe.threads) == 1 and threading.get_ident() not in probe.threads
    assert delivery.counts() == Counts("probe", delivered=500)


class Batches(Probe):
    """A sink that takes many at once, and notes how many they were."""

    def __init__(self, trouble: Exception | None = None, batch: int = 10, **queueing: float) -> None:
        super().__init__(trouble, Queueing(capacity=1000, keep="oldest", batch=batch, **queueing))
        self.sizes: list[int] = []

    def write_batch(self, judgements: list[Judgement]) -> None:
        self.sizes.append(len(judgements))
        self.busy.set()
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.got += judgements


def test_a_sink_of_batches_gets_all_in_order_and_no_more_at_once_than_it_takes():
    sink = Batches()
    sink.gate.clear()  # so that a full batch waits for it, however fast it is
    delivery = Delivery(sink, patience_s=30)
    for i in range(995):
        if i == 50:
            sink.gate.set()
        delivery.offer(judgement(i))
    delivery.close()
    assert sink.indices == list(range(995)) and max(sink.sizes) == 10 and sum(sink.sizes) == 995
    assert delivery.counts() == Counts("probe", delivered=995)


def test_a_batch_counts_once_it_is_written_and_not_before():
    sink = Batches()
    sink.gate.clear()
    delivery = Delivery(sink)
    for i in range(5):
        delivery.offer(judgement(i))
    assert sink.busy.wait(120) and delivery.counts() == Counts("probe", queued=5)
    sink.gate.set()
    assert _settled(delivery) == Counts("probe", delivered=5)
    delivery.close()


def test_a_batch_that_is_not_written_failed_as_a_whole_and_the_next_is_tried():
    sink = Batches(OSError(28, "No space left on device"), gather_s=60)
    delivery = Delivery(sink, say=lambda line: None)
    for i in range(10):
        delivery.offer(judgement(i))
    failed = _settled(delivery)
    assert (failed.failed, failed.delivered, sink.sizes) == (10, 0, [10])
    sink.trouble = None
    for i in range(10, 14):
        delivery.offer(judgement(i))
    delivery.close()  # ends the wait for more
    assert sink.indices == [10, 11, 12, 13] and delivery.counts().delivered == 4


def test_a_batch_that_is_gathered_does_not_wait_beyond_half_of_the_bytes():
    one = judgement(1).nbytes
    sink = Batches(batch=100, gather_s=60, max_bytes=4 * one)
    delivery = Delivery(sink, patience_s=30, say=lambda line: None)
    for i in range(30):
        delivery.offer(judgement(i))
    delivery.close()
    assert sink.indices == list(range(30)) and max(sink.sizes) <= 4
    assert delivery.counts() == Counts("probe", delivered=30)


def test_a_batch_that_hangs_at_the_end_is_lost_as_a_whole():
    sink = Batches()
    sink.gate.clear()
    delivery = Delivery(sink, say=lambda line: None)
    for i in range(4):
        delivery.offer(judgement(i))
    assert sink.busy.wait(120)
    delivery.close(0.01)
    counts = delivery.counts()
    assert (counts.delivered, counts.lost, counts.queued) == (0, 4, 0)
    sink.gate.set()
    delivery.running(30)
    assert delivery.counts().lost == 4


@pytest.mark.parametrize(("keep", "kept"), [("newest", [0, 7, 8, 9]), ("oldest", [0, 1, 2, 3])])
def test_a_full_queue_gives_up_the_oldest_or_the_newest(hanging: Probe, keep: str, kept: list[int]):
    delivery = Delivery(hanging, Queueing(capacity=3, keep=keep), say=lambda line: None)
    _block(delivery, hanging)
    for i in range(1, 10):
        delivery.offer(judgement(i))
    assert delivery.counts() == Counts("probe", lost=6, queued=4)
    hanging.gate.set()
    delivery.close()
    assert hanging.indices == kept
    assert delivery.counts() == Counts("probe", delivered=4, lost=6)


@pytest.mark.parametrize("keep", ["newest", "oldest"])
def test_bytes_bound_the_queue_too_but_one_always_fits(hanging: Probe, keep: str):
    one = judgement(1).nbytes
    assert one == 60 * 80 * 3 + 6 * 8 * 4
    delivery = Delivery(hanging, Queueing(capacity=100, max_bytes=3 * one + one // 2, keep=keep), say=lambda line: None)
    _block(delivery, hanging)
    for i in range(1, 10):
        delivery.offer(judgement(i))
    assert delivery.counts() == Counts("probe", lost=6, queued=4)
    large = Delivery(Probe(), Queueing(max_bytes=1))
    large.offer(judgement())
    assert _settled(large).delivered == 1
    large.close()


def test_ten_thousand_offers_to_a_dead_sink_take_bounded_memory_and_all_are_counted(hanging: Probe):
    queueing = Queueing(capacity=1000, max_bytes=2 << 20, keep="newest")
    said: list[str] = []
    delivery = Delivery(hanging, queueing, say=said.append)
    _block(delivery, hanging)
    gc.collect()
    tracemalloc.start()
    base = judgement()
    for i in range(10_000):  # 146 MB in all
        frame = Frame(np.full((60, 80, 3), i % 256, np.uint8), f"f{i}", i, 0.0)
        delivery.offer(replace(base, frame=frame))
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the queue's arrays, and as much again at most for 143 small objects around them
    assert used < 2 * queueing.max_bytes
    counts = delivery.counts()
    assert _total(counts) == 10_001 and counts.delivered == 0 and counts.lost > 9_800
    assert len(said) == 1 and "lost" in said[0]


def test_a_sink_that_hangs_for_ever_is_given_up_and_its_judgements_are_lost(hanging: Probe):
    delivery = Delivery(hanging, say=lambda line: None)
    for i in range(5):
        delivery.offer(judgement(i))
    assert hanging.busy.wait(120)
    delivery.close(timeout_s=0.05)
    counts = delivery.counts()
    assert (counts.delivered, counts.lost, counts.queued) == (0, 5, 0) and "did not end" in counts.last_error
    delivery.offer(judgement(5))  # after the end: lost as well, and no error
    assert delivery.counts().lost == 6
    hanging.gate.set()  # it comes back too late to be counted twice
    delivery._thread.join(120)
    delivery.close()
    assert delivery.counts().lost == 6 and delivery.counts().delivered == 0


def test_closing_interrupts_a_sink_that_can_be():
    class Waiting(Probe):
        def interrupt(self) -> None:
            self.trouble = OSError("interrupted")
            self.gate.set()

    probe = Waiting()
    probe.gate.clear()
    delivery = Delivery(probe, say=lambda line: None)
    _block(delivery, probe)
    delivery.offer(judgement(1))
    delivery.close(timeout_s=0.05)
    counts = delivery.counts()
    assert (counts.failed, counts.lost, counts.last_error) == (1, 1, "interrupted") and probe.closed == 1
    assert not delivery._thread.is_alive()


def test_failures_are_counted_and_said_once_not_once_a_frame():
    probe = Probe(OSError(28, "No space left on device", "/out/a.png"))
    said: list[str] = []
    delivery = Delivery(probe, Queueing(capacity=1000), say=said.append)
    for i in range(100):
        delivery.offer(judgement(i))
    assert _settled(delivery) == Counts("probe", failed=100, last_error="No space left on device (/out/a.png)")
    probe.trouble = None
    delivery.offer(judgement(100))
    delivery.offer(judgement(101))
    assert _settled(delivery).delivered == 2
    for i in range(20):  # a loose contact: the second time within ten minutes is counted, not said
        probe.trouble = OSError("again") if i % 2 else None
        delivery.offer(judgement(i))
        _settled(delivery)
    delivery.close()
    assert delivery.counts().failed == 110 and delivery.counts().last_error == "again"
    assert len(said) == 2
    assert "cannot deliver: No space left" in said[0] and "delivers again, 100 not delivered" in said[1]


def test_a_defect_of_a_sink_ends_neither_its_thread_nor_the_inspection():
    probe = Probe(ValueError("a defect"))
    delivery = Delivery(probe, say=lambda line: None)
    delivery.offer(judgement())
    assert _settled(delivery).last_error == "ValueError: a defect"
    probe.trouble = None
    delivery.offer(judgement())
    delivery.close()
    assert (delivery.counts().delivered, delivery.counts().failed) == (1, 1)


def test_an_error_on_closing_is_told():
    class Unclosable(Probe):
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    said: list[str] = []
    delivery = Delivery(Unclosable(), say=said.append)
    delivery.close()
    assert "could not be closed: No space left" in said[0] and "No space" in delivery.counts().last_error


def test_good_frames_do_not_push_out_anomalies(hanging: Probe):
    delivery = Delivery(hanging, Queueing(capacity=2, anomalies_only=True))
    delivery.offer(judgement(0, score=2.0))
    assert hanging.busy.wait(120)
    for i in range(1, 100):
        delivery.offer(judgement(i, score=2.0 if i in (10, 20) else 0.5))
    hanging.gate.set()
    delivery.close()
    assert hanging.indices == [0, 10, 20] and delivery.counts() == Counts("probe", delivered=3)


def test_a_sink_without_need_of_pictures_gets_none_that_take_memory():
    probe = Probe(queueing=Queueing(pictures=False))
    delivery = Delivery(probe)
    original = judgement(3, score=2.0)
    delivery.offer(original)
    delivery.close()
    (got,) = probe.got
    assert got.frame.image.shape == (60, 80, 3) and not got.frame.image.any()
    assert got.nbytes == 1 + 6 * 8 * 4 and got.frame.index == 3
    np.testing.assert_array_equal(got.result.anomaly_map, original.result.anomaly_map)


def test_with_patience_a_slow_sink_loses_nothing_of_a_file():
    class Slow(Probe):
        def write(self, judgement: Judgement) -> None:
            time.sleep(0.002)
            super().write(judgement)

    probe = Slow(queueing=Queueing(capacity=2, keep="oldest"))
    delivery = Delivery(probe, patience_s=60)
    for i in range(50):
        delivery.offer(judgement(i))
    delivery.close()
    assert probe.indices == list(range(50)) and delivery.counts().lost == 0


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
def test_with_patience_the_end_waits_as_long_as_a_slow_sink_takes_something(patience_s: float):
    class Slow(Probe):
        def write(self, judgement: Judgement) -> None:
            time.sleep(0.05)
            super().write(judgement)

    probe = Slow()
    with Deliveries([probe], patience_s=patience_s, close_timeout_s=1.0, say=lambda line: None) as deliveries:
        for i in range(60):  # 3 s
            deliveries.offer(judgement(i))
    assert (probe.indices == list(range(60))) == bool(patience_s)
    assert bool(deliveries.counts()[0].lost) != bool(patience_s)


def test_patience_with_a_dead_sink_ends_once_and_returns_when_it_moves(hanging: Probe):
    delivery = Delivery(hanging, Queueing(capacity=1, keep="oldest"), patience_s=0.2, say=lambda line: None)
    _block(delivery, hanging)
    waits = []
    wait_for = delivery._changed.wait_for
    delivery._changed.wait_for = lambda *arguments: waits.append(1) or wait_for(*arguments)  # type: ignore[method-assign]
    for i in range(1, 200):
        delivery.offer(judgement(i))
    assert delivery.counts().lost == 198 and len(waits) == 1  # not 198 times 0.2 seconds
    hanging.gate.set()
    assert _settled(delivery).delivered == 2
    delivery.close()


def test_all_sinks_get_all_and_close_at_the_same_time(hanging: Probe):
    healthy = Probe()
    with Deliveries([hanging, healthy], close_timeout_s=0.2, say=lambda line: None) as deliveries:
        for i in range(10):
            deliveries.offer(judgement(i))
    assert healthy.indices == list(range(10)) and healthy.closed == 1
    assert [(counts.delivered, counts.lost) for counts in deliveries.counts()] == [(0, 10), (10, 0)]
    deliveries.close()
    assert "10 delivered, 0 lost, 0 failed" in deliveries.counts()[1].text()
    assert deliveries.counts()[0].undelivered == 10


@pytest.mark.parametrize("hurried", [False, True])
def test_after_a_signal_closing_is_bounded_for_files_too(hurried: bool):
    """A supervisor that gets no end kills, and then nobody counts what was lost."""
    written = []

    class Slow:
        name = "slow"

        def write(self, judgement):
            time.sleep(0.1)
            written.append(judgement)

        def close(self):
            pass

    deliveries = Deliveries([Slow()], patience_s=30.0, close_timeout_s=0.3, say=lambda text: None)
    for index in range(10):
        deliveries.offer(judgement(index))
    if hurried:
        deliveries.hurry()
    deliveries.close()
    [counts] = deliveries.counts()
    assert counts.delivered + counts.lost == 10 and (counts.lost > 0) == hurried
