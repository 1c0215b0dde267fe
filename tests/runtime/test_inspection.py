import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

import runtime
from runtime.common.errors import UserError
from runtime.detector import Detector
from runtime.engines.trt import cuda
from runtime.engines.trt.session import TensorRTSession
from runtime.images.facts import ImageFacts
from runtime.images.view import View, ViewOptions
from runtime.inspection import Inspection, InspectionOptions
from tests.runtime.engines.trt.test_session import ARTEFACT
from tests.support.controlled_source import ControlledSource
from tests.support.fake_cuda_device import FakeDevice, fake_captured_graph, fake_driver, fake_library
from tests.support.small_graphs import MAX_BATCH, SIZE, sidecar_for
from tests.support.tiny_engine import write_tiny_engine
from tests.support.waiting import wait_until


class Kept:
    """Keeps what it is offered."""

    def __init__(self):
        self.judgements = []

    def offer(self, judgement):
        self.judgements.append(judgement)

    def of(self, source):
        return [judgement for judgement in self.judgements if judgement.source == source]

    def scores(self):
        return [judgement.result.image_score for judgement in self.judgements]


@pytest.fixture
def detector(tmp_path):
    with runtime.load(write_tiny_engine(tmp_path)) as opened:
        yield opened


@pytest.fixture
def open_on(tmp_path, monkeypatch):
    """Return a function that opens a detector with two slots on a `FakeDevice`."""
    (tmp_path / "cable.onnx").write_bytes(b"onnx")
    (tmp_path / "cable.plan").write_bytes(b"plan")

    def open_detector(device):
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake_driver(device))
        monkeypatch.setitem(sys.modules, "tensorrt", fake_library(device, SIZE, MAX_BATCH))
        monkeypatch.setattr(cuda, "device_problem", lambda: None)
        monkeypatch.setattr(cuda, "compute_capability", lambda: "8.7")
        monkeypatch.setattr(cuda, "device_name", lambda: "Stand-in")
        monkeypatch.setattr(cuda, "CapturedGraph", fake_captured_graph(device))
        sidecar = sidecar_for(tmp_path / "cable.onnx")
        return Detector(TensorRTSession(tmp_path / "cable.plan", sidecar, ARTEFACT), sidecar)

    return open_detector


def inspect(detector, sources, options=None, **more):
    kept = Kept()
    with Inspection(sources, detector, [kept], options, **more) as inspection:
        inspection.run()
    return kept, inspection


def score_of(level):
    return pytest.approx(3 * level / 255, rel=1e-6)  # the tiny engine's, in float32


def test_every_frame_of_a_file_is_judged_in_order_with_its_stages(detector):
    kept, inspection = inspect(detector, [ControlledSource("file", False, *range(0, 250, 10), None)])
    assert kept.scores() == [score_of(level) for level in range(0, 250, 10)]
    assert [judgement.frame.index for judgement in kept.judgements] == list(range(25))
    assert list(kept.judgements[0].result.latency_ms) == ["capture", "preprocess", "execute", "total"]
    assert inspection.summary.frames == 25
    assert list(inspection.summary.percentiles_ms()) == ["capture", "preprocess", "execute", "total", "deliver"]
    assert inspection.dropped() == {"file": 0}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("batch_cameras", [False, True])
def test_overlapped_runs_judge_every_frame_of_every_source_once_in_order(open_on, lazy, batch_cameras):
    device = FakeDevice(lazy=lazy)
    levels = {"a": list(range(0, 40)), "b": list(range(100, 115)), "c": [200]}
    with open_on(device) as detector:
        sources = [ControlledSource(name, False, *found, None, size=SIZE) for name, found in levels.items()]
        kept, inspection = inspect(detector, sources, InspectionOptions(batch_cameras=batch_cameras))
    for name, found in levels.items():
        assert [j.result.image_score for j in kept.of(name)] == [pytest.approx(level / 255) for level in found]
    assert inspection.summary.frames == 40 + 15 + 1
    text = inspection.summary.text("device", inspection.dropped())
    assert "\n  b: 15 frames: 15 good, 0 anomalous\n" in text
    assert device.live == device.stack == []
    if batch_cameras:  # padded: a graph for the warm-up's batch and one for all of these
        assert device.calls.count("make graph") == 2


def test_frames_of_several_cameras_go_into_one_execution(detector, monkeypatch):
    monkeypatch.setattr("runtime.sources.feed.RECENT_S", 1e6)  # however slow this machine is, a frame can be expected
    batches = []
    run = detector.session.run
    monkeypatch.setattr(detector.session, "run", lambda frames: (batches.append(len(frames)), run(frames))[1])
    sources = [
        ControlledSource(name, False, *(base + i for i in range(4)), None) for name, base in (("a", 0), ("b", 9))
    ]
    kept, _ = inspect(detector, sources, InspectionOptions(batch_cameras=True, gather_ms=10_000))
    assert batches == [2] * 4
    assert [[j.result.image_score for j in kept.of(name)] for name in ("a", "b")] == [
        [score_of(base + i) for i in range(4)] for base in (0, 9)
    ]
    batches.clear()
    sources = [ControlledSource(name, False, 1, 2, None) for name in ("a", "b")]
    inspect(detector, sources)
    assert batches == [1] * 4  # unless it is asked for


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_counts_frames_of_all_sources(open_on, limit):
    with open_on(FakeDevice()) as detector:
        for batch_cameras in (False, True):
            sources = [ControlledSource(name, False, *range(10), None, size=SIZE) for name in ("a", "b")]
            kept, _ = inspect(detector, sources, InspectionOptions(limit=limit, batch_cameras=batch_cameras))
            assert len(kept.judgements) == limit


def test_a_live_source_at_rest_gets_its_result_without_another_frame(open_on):
    """The overlap must not hold a verdict back until the next part comes by."""
    source = ControlledSource("camera", True, 40, size=SIZE)
    kept, seen = Kept(), threading.Event()
    with open_on(FakeDevice(lazy=True)) as detector, Inspection([source], detector, [kept]) as inspection:

        def tick():
            if kept.judgements:
                seen.set()
                inspection.stop()

        watchdog = threading.Timer(60, inspection.stop)
        watchdog.start()
        inspection.run(tick)
        watchdog.cancel()
    assert seen.is_set()
    assert kept.scores() == [pytest.approx(40 / 255)]


def test_a_stop_finishes_what_is_under_way_and_needs_no_frame(open_on):
    device = FakeDevice(lazy=True)
    source = ControlledSource("file", False, *range(100), size=SIZE)
    kept = Kept()
    with open_on(device) as detector, Inspection([source], detector, [kept]) as inspection:
        inspection.add(type("Stop", (), {"offer": lambda self, judgement: inspection.stop()})())
        wait_until(lambda: source.asked >= 3)  # two frames are there before the first is judged
        inspection.run()
        assert len(kept.judgements) == 2  # the one that stopped it, and the one under way beside it
    silent = ControlledSource("camera", True)
    with open_on(device) as detector, Inspection([silent], detector) as inspection:
        inspection.stop()
        inspection.run()
    assert silent.closed
    assert device.live == []


def test_a_failing_source_ends_the_run_after_its_frames(detector):
    kept = Kept()
    with Inspection([ControlledSource("file", False, 1, 2, UserError("torn"))], detector, [kept]) as inspection:
        with pytest.raises(UserError, match=r"^torn$"):
            inspection.run()
        assert len(kept.judgements) == 2
        assert inspection.summary.frames == 2


def test_of_several_sources_one_may_fail_and_is_told_once(detector, capsys):
    torn = ControlledSource("left", True, UserError("cable pulled"))
    whole = ControlledSource("right", False, *range(30))
    kept = Kept()
    with Inspection([torn, whole], detector, [kept]) as inspection:

        def tick():
            if len(kept.of("right")) == 30 and not whole.closed:
                whole.put(None)

        with pytest.raises(UserError, match=r"^left: cable pulled$"):
            inspection.run(tick)
    assert len(kept.of("right")) == 30
    assert capsys.readouterr().err == "error: left ended, the others go on: cable pulled\n"


def test_a_source_that_failed_is_lost_though_a_limit_ends_the_run(detector):
    torn, whole = ControlledSource("left", True, UserError("cable pulled")), ControlledSource("right", False)
    with Inspection([torn, whole], detector, options=InspectionOptions(limit=1)) as inspection:
        inspection.run(lambda: whole.put(1) if inspection.lost() else None)
        assert inspection.lost() == ["left"]


def test_one_source_that_gave_what_was_asked_for_is_not_lost(detector):
    source = ControlledSource("camera", True, 1, UserError("cable pulled"))
    with Inspection([source], detector, options=InspectionOptions(limit=1)) as inspection:
        inspection.run()
        wait_until(inspection._feed.failures, "the error does not come")
        assert inspection.lost() == []


def test_a_frame_that_cannot_be_judged_ends_the_run_and_leaves_nothing_under_way(open_on):
    class BadFromTheSecond(Whole):
        seen = 0

        def __call__(self, image):
            self.seen += 1
            return image if self.seen == 1 else image[:, :, :2]  # with the first one under way

    device = FakeDevice(lazy=True)
    with open_on(device) as detector:
        bad = ControlledSource("bad", False, 1, 2, 3, None, size=SIZE)
        with Inspection([bad], detector, [Kept()], views=[BadFromTheSecond()]) as inspection:
            wait_until(lambda: bad.asked >= 3)
            with pytest.raises(UserError, match="must be uint8"):
                inspection.run()
        kept, _ = inspect(detector, [ControlledSource("good", False, 3, 4, None, size=SIZE)])  # both slots are free
        assert len(kept.judgements) == 2
    assert device.live == []


class Whole:
    """A view of everything."""

    def __call__(self, image):
        return image

    def inspected(self, result, scoring):
        return result

    def describe(self):
        return {}


class RightHalf(Whole):
    """A view of the right half, whose results get twice the score."""

    def __call__(self, image):
        return image[:, image.shape[1] // 2 :]

    def inspected(self, result, scoring):
        assert scoring.kind in ("deviation", "paper")
        return replace(result, image_score=2 * result.image_score)

    def describe(self):
        return {"roi": "right"}


def test_each_source_has_its_view(detector):
    sources = [ControlledSource(name, False, 50, None) for name in ("a", "b")]
    kept, _ = inspect(detector, sources, views=[RightHalf(), Whole()])
    (first,), (second,) = kept.of("a"), kept.of("b")
    assert first.frame.image.shape == (32, 24, 3)
    assert first.frame.image.flags.c_contiguous
    assert first.view.describe() == {"roi": "right"}
    assert first.result.image_score == pytest.approx(2 * second.result.image_score)
    assert second.view.describe() == {}
    assert list(first.result.latency_ms)[:2] == ["capture", "view"]
    with pytest.raises(ValueError, match="1 views for 2 sources"):
        Inspection(sources, detector, views=[Whole()])


def test_memory_does_not_grow_with_the_frames(detector):
    from runtime.common.machine import own_bytes

    class Many(ControlledSource):
        def __iter__(self):
            frame = next(super().__iter__())
            for index in range(4000):
                yield replace(frame, index=index)

    sizes = []
    with Inspection([Many("file", False, 7)], detector) as inspection:
        inspection.run(lambda: sizes.append(own_bytes()) if inspection.summary.frames in (1000, 4000) else None)
    # one map kept a frame would be 3000 times 6 kB = 18 MB
    assert sizes[-1] - sizes[0] < 6 << 20
    assert np.isfinite(inspection.summary.fps)


def test_one_frame_that_cannot_be_judged_ends_neither_its_source_nor_another(detector, tmp_path):
    """Two sources, a region of interest that does not fit the one's frames: those have no verdict, the others do."""
    small = ControlledSource("small", False, *range(0, 60, 10), None, size=(20, 20))
    large = ControlledSource("large", False, *range(0, 60, 10), None)
    views = [View(ViewOptions(roi=(0, 0, 40, 30))), View(ViewOptions(roi=(0, 0, 40, 30)))]
    kept, inspection = inspect(detector, [small, large], views=views)
    assert inspection.summary.verdicts == {"good": 6, "none": 6}
    assert [j.result.verdict for j in kept.of("large")] == ["good"] * 6
    for judgement in kept.of("small"):
        assert judgement.result.score is None and not judgement.result.anomaly_map.any()
        assert "must lie within the camera's frame; found a frame of 20x20" in judgement.result.reason
    assert "6 without a verdict" in inspection.summary.text("device")


def test_the_reason_is_the_frames_own_though_the_engine_was_given_a_black_one_in_its_place(detector):
    facts = ImageFacts.of([np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)])
    detector.sidecar = replace(detector.sidecar, image_facts=facts)
    sources = [ControlledSource(name, False, 9, None, size=(20, 20)) for name in ("a", "b")]
    views = [View(ViewOptions(roi=(0, 0, 40, 30)))] * 2
    kept, _ = inspect(detector, sources, views=views)
    assert all("must lie within the camera's frame" in judgement.result.reason for judgement in kept.judgements)


def test_a_region_that_never_fits_a_single_source_is_the_users_mistake(detector):
    source = ControlledSource("small", False, 1, 2, None, size=(20, 20))
    with pytest.raises(UserError, match="must lie within"):
        inspect(detector, [source], views=[View(ViewOptions(roi=(0, 0, 40, 30)))])


class AllAtOnce(ControlledSource):
    """A live source whose frames wait for the inspection, so that none is replaced."""

    def __iter__(self):
        for frame in super().__iter__():
            yield frame
            self.taken.acquire()


@pytest.mark.parametrize(("live", "verdicts"), [(True, ["good"] + ["none"] * 3), (False, ["good"] * 4)])
def test_a_picture_that_does_not_change_gets_no_verdict_from_a_camera(detector, live, verdicts):
    source = AllAtOnce("camera", live, *[7] * 4, None)
    source.taken = threading.Semaphore(0)
    kept = Kept()
    with Inspection([source], detector, [kept], InspectionOptions(frozen_after_s=1e-6)) as inspection:
        inspection.add(type("Receiver", (), {"offer": lambda self, judgement: source.taken.release()})())
        inspection.run()
    assert [judgement.result.verdict for judgement in kept.judgements] == verdicts
    assert all("not changed" in j.result.reason for j in kept.judgements if j.result.verdict == "none")
