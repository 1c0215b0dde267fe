"""Typing as a step of the build: what parity is measured on, the budget it is held to, and what the user is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from export.calibration_data import read_calibration_data
from export.graph.onnx_files import get_info
from export.images.parity_images import good_images
from export.precisions import typed_graph
from export.precisions.parity import Budget
from export.precisions.typed_graph import HELD_OUT_EVERY, TypingOptions, type_graph
from export.precisions.typing import to_fp16
from runtime.common.errors import UserError
from runtime.images.preprocess import read_image, resize
from tests.support.export_fixtures import CALIBRATION_DATA, run_model
from tests.support.measured_parity import measure_parity
from tests.support.onnx_inspection import SIZE, nodes_of, small_model


def own_images(folder: Path, count: int) -> Path:
    """Images of one's own: without the manifest that says they are generated."""
    folder.mkdir()
    for path in sorted(CALIBRATION_DATA.glob("*.jpg"))[:count]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture
def own(tmp_path):
    return own_images(tmp_path / "line3", 12)


@pytest.fixture
def labelled(tmp_path):
    """Three good images and three that are upside down."""
    for kind, paths in (("good", range(3)), ("turned", range(3, 6))):
        (tmp_path / "labelled" / "test" / kind).mkdir(parents=True)
        for index in paths:
            path = sorted(CALIBRATION_DATA.glob("*.jpg"))[index]
            shutil.copy(path, tmp_path / "labelled" / "test" / kind / path.name)
    return tmp_path / "labelled"


def typed(options):
    said = []
    return type_graph(small_model(), options, said.append), "\n".join(said)


class TestWhatIsMeasured:
    def test_fp32_is_left_as_it_is(self, own):
        result, said = typed(TypingOptions("fp32", own))
        assert result.model is small_model() and not result.parity and not said

    def test_fp16_on_all_good_images(self, own):
        result, said = typed(TypingOptions("fp16", own))
        frames = [resize(read_image(path), SIZE) for path in sorted(own.iterdir())]
        threshold = get_info(small_model(), "").sidecar.threshold.value
        expected = measure_parity(small_model(), to_fp16(small_model()), good_images(frames), threshold)
        assert result.parity.items() >= expected.to_json().items()
        assert (result.parity["within_budget"], result.parity["budget_image"]) == (1, 0.1)
        assert result.calibration_sha256 == "" and "12 good images" in said

    def test_int8_on_images_that_gave_no_ranges(self, own, monkeypatch):
        seen = []
        collect = typed_graph.collect_ranges
        monkeypatch.setattr(
            typed_graph, "collect_ranges", lambda model, data, *rest: seen.append(data) or collect(model, data, *rest)
        )
        result, said = typed(TypingOptions("int8", own, budget=Budget(100, 100)))
        paths = read_calibration_data(own).paths
        held_out = set(paths) - set(seen[0].paths)
        assert held_out == set(paths[::HELD_OUT_EVERY]) and len(held_out) == 4
        assert result.parity["frames"] == len(held_out)
        assert result.calibration_sha256 == read_calibration_data(own).sha256
        assert "fewer than 32 give ranges that clip good parts" in said and "freed for accuracy: none" in said

    def test_few_images_do_both(self, tmp_path):
        result, _ = typed(TypingOptions("int8", own_images(tmp_path / "few", 5), budget=Budget(100, 100)))
        assert result.parity["frames"] == 5

    def test_fewer_than_four_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="INT8 needs 4 or more calibration images; found 3"):
            typed(TypingOptions("int8", own_images(tmp_path / "few", 3)))

    def test_fp16_without_images_on_random_frames_and_held_to_nothing(self, tmp_path):
        result, said = typed(TypingOptions("fp16", tmp_path / "nowhere", budget=Budget(0, 0)))
        assert "random frames" in said and "within_budget" not in result.parity

    def test_auroc_of_labelled_images(self, own, labelled):
        result, said = typed(TypingOptions("fp16", own, labelled=labelled))
        frames = np.stack([resize(read_image(path), SIZE) for path in sorted(labelled.rglob("*.jpg"))])
        for name, model in (("image_auroc_fp32", small_model()), ("image_auroc", result.model)):
            expected = roc_auc_score([0, 0, 0, 1, 1, 1], run_model(model, frames)[1])
            assert result.parity[name] == pytest.approx(expected)  # six scores, far apart for any rounding
        assert result.parity["labelled_frames"] == 6 and result.parity["frames"] == 12
        assert "pixel_auroc" not in result.parity  # no ground truth
        assert "6 labelled images" in said and "image AUROC" in said


class TestBudget:
    def test_a_miss_is_an_error(self, own):
        with pytest.raises(UserError, match=r"fp16 must keep to .* a cost of an estimated .* --fp32"):
            typed(TypingOptions("fp16", own, budget=Budget(0, 0)))

    def test_unless_told_otherwise(self, own):
        result, said = typed(TypingOptions("int8", own, budget=Budget(0, 0), allow_miss=True))
        assert "PARITY MISSED: int8 costs an estimated" in said and result.parity["within_budget"] == 0
        assert not nodes_of(result.model, "QuantizeLinear")  # all was freed, and still it is not FP32

    def test_int8_frees_layers_and_prints_the_ranking(self, own):
        everything, _ = typed(TypingOptions("int8", own, budget=Budget(100, 100)))
        noise = max(everything.parity["image_noise"], everything.parity["pixel_noise"])
        points = 12.1 * noise**2 / 3
        result, said = typed(TypingOptions("int8", own, budget=Budget(points, points)))
        assert "group quantised alone" in said and "freed for accuracy: none" not in said
        assert result.parity["within_budget"] == 1
        assert 0 < len(nodes_of(result.model, "QuantizeLinear")) < len(nodes_of(everything.model, "QuantizeLinear"))

    def test_stand_in_images_judge_nothing(self):
        result, said = typed(TypingOptions("int8", CALIBRATION_DATA, budget=Budget(0, 0)))
        assert "parity is not held to a budget; refill it" in said
        assert "within_budget" not in result.parity and "freed for accuracy: none" in said
