"""Overlapped copies on the counting stand-in (see fake_cuda_device), and, marked gpu, on a device."""

import itertools
import sys

import numpy as np
import pytest

from runtime.common.errors import UserError
from runtime.common.machine import own_bytes
from runtime.detector import Detector
from runtime.engines.trt import cuda
from runtime.engines.trt.session import TensorRTSession
from tests.runtime.engines.trt.test_device import on_device  # noqa: F401
from tests.runtime.engines.trt.test_session import ARTEFACT
from tests.support.fake_cuda_device import FakeDevice, fake_captured_graph, fake_driver, fake_library
from tests.support.small_graphs import MAX_BATCH, SIZE, frames_of, sidecar_for

MAIN, COPY = 17, 18  # handles of the stand-in's streams, in the order that they are made


@pytest.fixture
def open_on(tmp_path, monkeypatch):
    """Return a function that opens a plan on a `FakeDevice`."""
    (tmp_path / "cable.onnx").write_bytes(b"onnx")
    (tmp_path / "cable.plan").write_bytes(b"plan")

    def open_session(device, artefact=ARTEFACT):
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake_driver(device))
        monkeypatch.setitem(sys.modules, "tensorrt", fake_library(device, SIZE, MAX_BATCH))
        monkeypatch.setattr(cuda, "device_problem", lambda: None)
        monkeypatch.setattr(cuda, "compute_capability", lambda: "8.7")
        monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in")
        monkeypatch.setattr(cuda, "CapturedGraph", fake_captured_graph(device))
        return TensorRTSession(tmp_path / "cable.plan", sidecar_for(tmp_path / "cable.onnx"), artefact)

    return open_session


def expected_maps(frames):
    return (frames.mean(axis=3) / 255).astype(np.float32)


def check(run, frames):
    np.testing.assert_array_equal(run.maps, expected_maps(frames))
    np.testing.assert_array_equal(run.scores, expected_maps(frames).max(axis=(1, 2)))


@pytest.mark.parametrize("lazy", [False, True])
def test_submitted_runs_equal_single_ones_whatever_is_under_way(open_on, lazy):
    batches = [frames_of(batch, seed=i) for i, batch in enumerate((1, 1, 1, 3, 2, 2, 1, 1))]
    with open_on(FakeDevice(lazy=lazy)) as session:
        before = session.submit(batches[0])
        for last, frames in itertools.pairwise(batches):
            reused = frames.copy()
            pending = session.submit(reused)
            reused[:] = 0  # a camera's buffer is its own again
            check(before.result(), last)
            between = frames_of(2, seed=99)
            np.testing.assert_array_equal(session.run(between)[0], expected_maps(between))
            before = pending
        check(before.result(), batches[-1])


def test_the_next_copy_does_not_wait_for_the_execution(open_on):
    """With the first run still to be executed, the second one's copy can be done: it is on a stream of its own."""
    device = FakeDevice(lazy=True)
    with open_on(device) as session:
        session.submit(frames_of(1)).result()
        device.order.clear()
        first, second = session.submit(frames_of(1, seed=1)), session.submit(frames_of(1, seed=2))
        device.streams[COPY].finish(lambda: False)
        assert [step for step in device.order if step[1] != "record"] == [(COPY, "copy in")] * 2
        first.result()
        after = [step for step in device.order if step[1] not in ("record", "copy in")]
        assert after == [(MAIN, what) for what in ("wait", "copy within", "execute", "copy out", "copy out")]
        second.result()


def test_memory_is_allocated_once_and_only_where_runs_overlap(open_on):
    device = FakeDevice()
    session = open_on(device)
    session.run(frames_of(1))
    assert device.calls.count("make buffer") == 3
    for seed in range(4):
        session.submit(frames_of(1, seed=seed)).result()
    kinds = sorted(thing.kind for thing in device.live)
    assert kinds == ["buffer"] * (3 + 2) + ["context", "graph"] + ["host"] * (3 + 2 * 3)
    session.close()
    assert device.live == device.stack == []


def test_a_third_run_under_way_is_refused_and_a_discarded_one_makes_room(open_on):
    with open_on(FakeDevice(lazy=True)) as session:
        first, second = session.submit(frames_of(1, seed=1)), session.submit(frames_of(1, seed=2))
        with pytest.raises(RuntimeError, match="2 runs are under way"):
            session.submit(frames_of(1))
        first.discard()
        first.discard()
        with pytest.raises(RuntimeError, match="once"):
            first.result()
        third = session.submit(frames_of(1, seed=3))
        check(second.result(), frames_of(1, seed=2))
        check(third.result(), frames_of(1, seed=3))


@pytest.mark.parametrize("step", ["make stream", "make event", "make host", "make buffer"])
def test_no_room_for_overlapping_gives_everything_back(open_on, step):
    device = FakeDevice()
    with open_on(device) as session:
        before = len(device.live)
        device.fail = step
        with pytest.raises(UserError, match=f"{step} failed: out of memory"):
            session.submit(frames_of(1))
        assert (len(device.live), device.stack) == (before, [])
        device.fail = ""
        check(session.submit(frames_of(1)).result(), frames_of(1))
    assert device.live == []


@pytest.mark.parametrize("step", ["copy in", "copy within", "launch", "record", "copy out"])
def test_a_run_that_fails_under_way_leaves_the_one_before_whole(open_on, step):
    device = FakeDevice(lazy=True)
    with open_on(device) as session:
        session.submit(frames_of(1)).result()
        first = session.submit(frames_of(1, seed=1))
        device.fail = step
        with pytest.raises(UserError, match=f"{step} failed"):
            session.submit(frames_of(1, seed=2))
        device.fail = ""
        check(first.result(), frames_of(1, seed=1))
        for seed in (3, 4):  # both slots are free again
            check(session.submit(frames_of(1, seed=seed)).result(), frames_of(1, seed=seed))
    assert device.live == device.stack == []


def test_a_result_that_fails_frees_its_slot(open_on):
    device = FakeDevice()
    with open_on(device) as session:
        pending = session.submit(frames_of(1))
        device.fail = "synchronize event"
        with pytest.raises(UserError, match="synchronize event failed"):
            pending.result()
        device.fail = ""
        runs = [session.submit(frames_of(1, seed=seed)) for seed in (5, 6)]
        check(runs[1].result(), frames_of(1, seed=6))
        check(runs[0].result(), frames_of(1, seed=5))


def test_closing_with_a_run_under_way_releases_everything(open_on):
    device = FakeDevice(lazy=True)
    session = open_on(device)
    pending, other = session.submit(frames_of(1)), session.submit(frames_of(1))
    session.close()
    assert device.live == device.stack == []
    other.discard()
    with pytest.raises(UserError, match="session must be open; found closed"):
        pending.result()
    with pytest.raises(UserError, match="session must be open; found closed"):
        session.submit(frames_of(1))


def test_frames_are_checked_before_anything_is_submitted(open_on):
    device = FakeDevice()
    with open_on(device) as session, pytest.raises(UserError, match="frames must be uint8"):
        session.submit(np.zeros((1, *SIZE, 4), np.uint8))
    assert device.calls.count("make stream") == 1


def test_a_stream_overlaps_and_one_that_is_left_lets_go(open_on):
    device = FakeDevice(lazy=True)
    frames = [frames_of(1, seed=seed)[0] for seed in range(7)]
    taken = []

    def camera():
        for frame in frames:
            taken.append(len(taken))
            yield frame

    session = open_on(device)
    with Detector(session, sidecar_for_session(session)) as detector:
        results = []
        for result in detector.stream(camera()):
            results.append(result)
            assert len(taken) == min(len(results) + 1, len(frames))  # one further is under way
            detector(frames[3])  # a call in between disturbs nothing
        for result, frame in zip(results, frames, strict=True):
            np.testing.assert_array_equal(result.anomaly_map, expected_maps(frame[None])[0])
        assert list(results[0].latency_ms) == ["preprocess", "copy_in", "execute", "copy_out", "total"]
        stream = detector.stream(camera())
        next(stream)
        stream.close()
        assert len(list(detector.stream(frames))) == len(frames)  # no slot is left busy
        assert list(detector.stream([])) == []
    assert device.live == device.stack == []


def test_a_padded_batch_returns_what_was_given(open_on):
    device = FakeDevice()
    session = open_on(device)
    frames = list(frames_of(2))
    with Detector(session, sidecar_for_session(session)) as detector:
        for given in (frames, frames[:1], frames):
            results = detector.submit(given, batch=MAX_BATCH).results()
            assert len(results) == len(given)
            np.testing.assert_array_equal(results[-1].anomaly_map, expected_maps(given[-1][None])[0])
    assert device.calls.count("make graph") == 2  # the warm-up's, and one for all of these


def sidecar_for_session(session):
    return session._sidecar


def test_ten_thousand_frames_leave_no_memory(open_on):
    """Device and pinned memory are counted; this process's own grows by less than ten frames' results."""
    device = FakeDevice()
    with open_on(device) as session:
        frames = frames_of(1)
        for number in range(11_000):
            pending = session.submit(frames)
            pending.result()
            device.calls.clear()
            device.order.clear()
            if number == 1000:
                live, resident = len(device.live), own_bytes()
        assert len(device.live) == live
        # one result kept a frame would be 10,000 times 1.5 kB = 15 MB
        assert own_bytes() - resident < 4 << 20
    assert device.live == []


@pytest.mark.gpu
def test_on_a_device_overlapped_runs_have_the_bits_of_single_ones(on_device):  # noqa: F811
    plan_path, sidecar, artefact, *_ = on_device
    batches = [frames_of(batch, seed=20 + i) for i, batch in enumerate((1, 1, 1, 2, 2, MAX_BATCH, 1, 1))]
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        single = [session.run(frames) for frames in batches]
        before = session.submit(batches[0])
        for number, frames in enumerate(batches[1:]):
            pending = session.submit(frames)
            run, before = before.result(), pending
            np.testing.assert_array_equal(run.maps, single[number][0])
            np.testing.assert_array_equal(run.scores, single[number][1])
        np.testing.assert_array_equal(before.result().maps, single[-1][0])


@pytest.mark.gpu
def test_on_a_device_ten_thousand_frames_leave_no_memory(on_device):  # noqa: F811
    plan_path, sidecar, artefact, *_ = on_device
    driver = pytest.importorskip("pycuda.driver", reason="pycuda is not installed")
    frames = frames_of(1)
    free = []
    with TensorRTSession(plan_path, sidecar, artefact) as session:
        for number in range(11_000):
            session.submit(frames).result()
            if number in (1000, 10_999):
                with session._current():
                    free.append((driver.mem_get_info()[0], own_bytes()))
    (device_before, host_before), (device_after, host_after) = free
    assert device_before - device_after < 1 << 20  # a leaked event or map a frame would be several times that
    assert host_after - host_before < 8 << 20
