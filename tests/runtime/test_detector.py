import json
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.common.errors import UserError
from runtime.engines.sidecar import sidecar_path
from runtime.images.preprocess import resize_for_engine
from runtime.result import result_of
from tests.support.tiny_engine import THRESHOLD, write_tiny_engine


def _frames(count: int, shape: tuple[int, int] = (40, 70)) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (*shape, 3)).astype(np.uint8) for _ in range(count)]


def test_judges_a_frame_of_any_size(tmp_path: Path):
    frame = _frames(1)[0]
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        result = detector(frame)
    expected = resize_for_engine(frame, (32, 48)).astype(np.float64).mean(axis=2) / 255 * 3
    assert result.anomaly_map.shape == (32, 48) and result.anomaly_map.dtype == np.float32
    np.testing.assert_allclose(result.anomaly_map, expected, rtol=1e-6)  # float32: three roundings of 6e-8
    assert result.image_score == result.anomaly_map.max()
    assert set(result.latency_ms) == {"preprocess", "execute", "total"}
    assert result.latency_ms["total"] >= result.latency_ms["preprocess"] + result.latency_ms["execute"]


@pytest.mark.parametrize(("grey", "verdict"), [(84, "good"), (85, "good"), (86, "anomalous")])
def test_the_verdict_is_anomalous_strictly_above_the_threshold(tmp_path: Path, grey: int, verdict: str):
    threshold = float(np.float32(85) * np.float32(3 / 255))  # the score of grey level 85, to the bit
    with runtime.load(write_tiny_engine(tmp_path), threshold=threshold) as detector:
        result = detector(np.full((32, 48, 3), grey, np.uint8))
        assert (result.verdict, result.threshold) == (verdict, threshold)


def test_the_threshold_comes_from_the_sidecar(tmp_path: Path):
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        assert detector(_frames(1)[0]).threshold == THRESHOLD
    with runtime.load(write_tiny_engine(tmp_path, threshold=2.5)) as detector:
        assert detector.threshold == 2.5


def test_the_maps_threshold_is_its_own_where_the_sidecar_has_one(tmp_path: Path):
    engine = write_tiny_engine(tmp_path)
    with runtime.load(engine, threshold=0.7) as detector:
        assert detector(_frames(1)[0]).map_threshold == 0.7
    sidecar = json.loads(sidecar_path(engine).read_text())
    sidecar["thresholds"]["good_quantile"]["map_value"] = 2.25
    sidecar_path(engine).write_text(json.dumps(sidecar))
    with runtime.load(engine, threshold=0.7) as detector:
        result = detector(_frames(1)[0])
    assert (result.threshold, result.map_threshold) == (0.7, 2.25)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_decides_nothing_is_refused(tmp_path: Path, threshold: float):
    with pytest.raises(UserError, match="on the score's scale"):
        runtime.load(write_tiny_engine(tmp_path), threshold=threshold)


def test_a_result_does_not_depend_on_the_frames_before(tmp_path: Path):
    first, *others = _frames(4)
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        before = detector(first)
        for other in others:
            detector(other)
        after = detector(first)
    assert before.anomaly_map.tobytes() == after.anomaly_map.tobytes()
    assert before.image_score == after.image_score


def test_a_batch_equals_single_frames_in_order(tmp_path: Path):
    frames = _frames(70, (16, 20)) + _frames(1, (90, 31))  # more than one run takes, of two sizes
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        assert len(frames) > 2 * detector.session.max_batch
        batch, singles = detector.batch(frames), [detector(frame) for frame in frames]
        assert detector.batch([]) == []
    for one, single in zip(batch, singles, strict=True):
        # a batch may sum in another order: within rounding, as the design allows
        np.testing.assert_allclose(one.anomaly_map, single.anomaly_map, rtol=1e-6)
        assert one.verdict == single.verdict


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_frames_that_are_no_rgb8_are_refused(tmp_path: Path, frame: np.ndarray):
    with runtime.load(write_tiny_engine(tmp_path)) as detector, pytest.raises(UserError, match="uint8"):
        detector(frame)


def test_a_score_that_is_no_number_is_never_good(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    with runtime.load(path) as detector:
        result = detector(_frames(1)[0])
    spoiled = result.anomaly_map.copy()
    spoiled[3, 5] = np.nan
    bad_score = result_of(result.anomaly_map, float("nan"), (1.0, 1.0), {})
    bad_map = result_of(spoiled, 0.1, (1.0, 1.0), {})
    infinite = result_of(np.where(np.isnan(spoiled), -np.inf, spoiled), 0.1, (1.0, 1.0), {})
    for none in (bad_score, bad_map, infinite):
        assert (none.verdict, none.score, none.reason) == ("none", None, "the engine's result is not finite")
        assert not none.anomaly_map.any()


def test_engines_are_refused_before_they_are_deserialised(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        runtime.load(tmp_path / "other.onnx")
    (tmp_path / "model.pt").touch()
    with pytest.raises(UserError, match=r"\.plan or \.onnx"):
        runtime.load(tmp_path / "model.pt")

    path.with_suffix(".plan").write_bytes(path.read_bytes())  # the sidecar knows these bytes as an ONNX
    with pytest.raises(UserError, match="must be a plan"):
        runtime.load(path.with_suffix(".plan"))

    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="sha256"):
        runtime.load(path)

    sidecar_path(path).unlink()
    with pytest.raises(UserError, match=r"needs tiny\.json"):
        runtime.load(path)


def test_a_threshold_edited_by_hand_is_obeyed(tmp_path: Path):
    path = write_tiny_engine(tmp_path)
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["thresholds"]["good_quantile"]["value"] = 0.25
    sidecar_path(path).write_text(json.dumps(sidecar))
    with runtime.load(path) as detector:
        assert detector.threshold == 0.25


@pytest.mark.parametrize("frame", [[[0, 0, 0]], None, "frame.png", 3, (1, 2)])
def test_what_is_no_array_is_refused_in_one_line(tmp_path: Path, frame: object):
    with runtime.load(write_tiny_engine(tmp_path)) as detector:
        with pytest.raises(UserError, match="a frame must be uint8"):
            detector(frame)
        with pytest.raises(UserError, match="a frame must be uint8"):
            detector.batch([frame])
