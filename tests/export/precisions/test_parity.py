"""What a precision changes, its cost in AUROC, and the budget it is held to."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from export.images.parity_images import Images, good_images
from export.precisions.answers import Answers, answers_of
from export.precisions.parity import (
    PIXEL_STEP,
    POINTS_PER_NOISE,
    Budget,
    areas,
    compare_answers,
)
from export.precisions.typing import to_fp16
from runtime.common.errors import UserError
from tests.support.export_fixtures import run_model
from tests.support.measured_parity import measure_parity
from tests.support.onnx_inspection import SIZE, small_model


def random_answers(seed, count=12, size=(8, 12)):
    rng = np.random.default_rng(seed)
    maps = rng.random((count, *size)).astype(np.float32)
    return Answers(maps, rng.random(count).astype(np.float32))


def labelled(count=12, size=(8, 12)):
    """Half good, half anomalous, the last anomalous one without ground truth."""
    anomalous = np.arange(count) >= count // 2
    mask = np.zeros(size, bool)
    mask[2:4, 3:7] = True
    masks = [mask if bad else None for bad in anomalous]
    return Images([np.zeros((*size, 3), np.uint8)] * count, anomalous, [*masks[:-1], None])


class TestDifferences:
    def test_are_numpys_over_all_images_and_the_noise_over_the_good(self):
        left, right, images = random_answers(0), random_answers(1), labelled()
        parity = compare_answers(left, right, images, 0.5)
        errors = np.abs(left.scores.astype(np.float64) - right.scores)
        assert parity.frames == 12
        # float32 differences against float64 ones
        assert parity.image_score_max == pytest.approx(errors.max(), rel=1e-6)
        assert parity.image_score_median == pytest.approx(np.median(errors), rel=1e-5)
        assert parity.image_score_p95 == pytest.approx(np.quantile(errors, 0.95), rel=1e-5)
        assert parity.anomaly_map_max == pytest.approx(np.abs(left.maps - right.maps).max(), rel=1e-6)
        assert parity.verdicts_changed == sum(
            (a > 0.5) != (b > 0.5) for a, b in zip(left.scores, right.scores, strict=True)
        )
        change = (right.scores[:6] - left.scores[:6]).astype(np.float64)
        assert parity.image_score_shift == pytest.approx(np.median(change), rel=1e-5)
        assert parity.image_noise == pytest.approx(math.sqrt((change**2).mean()) / left.scores[:6].std(), rel=1e-5)
        few = [maps[:6, ::PIXEL_STEP, ::PIXEL_STEP].astype(np.float64) for maps in (left.maps, right.maps)]
        expected = math.sqrt(((few[1] - few[0]) ** 2).mean()) / few[0].std()
        assert parity.pixel_noise == pytest.approx(expected, rel=1e-6)

    def test_equal_answers_differ_in_nothing(self):
        answers = random_answers(0, count=1)
        parity = compare_answers(answers, answers, good_images([np.zeros((8, 12, 3), np.uint8)]), 0.5)
        assert parity.image_noise == parity.pixel_noise == parity.image_score_max == 0
        assert not Budget(0, 0).excess(parity)

    def test_images_without_a_spread_allow_no_change(self):
        left = Answers(np.ones((3, 8, 12), np.float32), np.ones(3, np.float32))
        right = Answers(left.maps, left.scores + np.float32(1e-3))
        assert compare_answers(left, right, good_images([np.zeros((8, 12, 3), np.uint8)] * 3), 0.5).image_noise > 100

    def test_areas_by_pixel_need_every_mask(self):
        answers, images = random_answers(0), labelled()
        found = areas(answers, images)
        assert found.image == pytest.approx(roc_auc_score(images.anomalous, answers.scores), abs=1e-12)
        assert found.pixel is None
        whole = Images(images.frames, images.anomalous, [*images.masks[:-1], images.masks[-2]])
        truth = [mask if mask is not None else np.zeros((8, 12), bool) for mask in whole.masks]
        expected = roc_auc_score(np.stack(truth).ravel(), answers.maps.ravel())
        assert areas(answers, whole).pixel == pytest.approx(expected, abs=1e-12)
        assert areas(answers, good_images(images.frames)) is None

    def test_graphs_are_judged_as_onnx_runtime_does(self):
        frames = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)  # more than one batch
        answers = answers_of(small_model(), good_images(list(frames)))
        maps, scores = run_model(small_model(), frames)
        np.testing.assert_allclose(answers.maps, maps, atol=1e-6)  # another batch size may sum in another order
        np.testing.assert_allclose(answers.scores, scores, atol=1e-6)
        parity = measure_parity(small_model(), to_fp16(small_model()), good_images(list(frames)), 1.0)
        assert 0 < parity.image_score_max < 1e-2  # FP16's 11 bits over some ten layers

    def test_answers_that_are_not_finite_are_an_error(self):
        from tests.export.precisions.test_fp16 import scaled

        broken = scaled(small_model(), {"/block0/permutation/passive": [np.inf]})
        with pytest.raises(UserError, match="every score must be finite"):
            answers_of(broken, good_images([np.zeros((*SIZE, 3), np.uint8)]))


class TestCost:
    @pytest.mark.parametrize("distance", [0.2, 1.0, math.sqrt(2), 2.0, 4.0])
    @pytest.mark.parametrize("noise", [0.05, 0.2])
    def test_noise_costs_normal_scores_no_more_than_is_said(self, distance, noise):
        z = distance / math.sqrt(2)
        lost = 100 * (norm.cdf(z) - norm.cdf(z / math.sqrt(1 + noise**2)))
        assert 0 < lost <= POINTS_PER_NOISE * noise**2
        if distance == math.sqrt(2):  # the worst distance: only the r^4 term, at most 2 % here, is missing
            assert lost == pytest.approx(POINTS_PER_NOISE * noise**2, rel=0.05)

    def test_labels_tell_it_better(self):
        parity = compare_answers(random_answers(0), random_answers(1), labelled(), 0.5)
        assert parity.measured
        assert parity.image_cost == pytest.approx(100 * (parity.image_auroc_fp32 - parity.image_auroc))
        unlabelled = compare_answers(random_answers(0), random_answers(1), good_images([None] * 12), 0.5)
        assert not unlabelled.measured
        assert unlabelled.image_cost == pytest.approx(POINTS_PER_NOISE * unlabelled.image_noise**2)
        assert not any("auroc" in name for name in unlabelled.to_json())


class TestBudget:
    @pytest.fixture
    def parity(self):
        base = compare_answers(random_answers(0), random_answers(0), labelled(), 0.5)
        return dataclasses.replace(
            base, image_auroc_fp32=0.9, image_auroc=0.897, pixel_auroc_fp32=0.95, pixel_auroc=0.945
        )

    def test_is_met_or_says_by_what_it_is_missed(self, parity):
        assert Budget(0.31, 0.51).excess(parity) == ""
        assert Budget(0.29, 0.51).excess(parity) == "0.30 points of image AUROC (budget 0.29)"
        both = Budget(0.1, 0.1).excess(parity)
        assert "0.30 points of image AUROC (budget 0.1) and 0.50 points of pixel AUROC" in both

    def test_a_gain_costs_nothing(self, parity):
        gained = dataclasses.replace(parity, image_auroc=0.99, pixel_auroc=0.99)
        assert Budget(0, 0).excess(gained) == ""

    def test_nan_misses_it(self, parity):
        assert Budget(100, 100).excess(dataclasses.replace(parity, image_auroc=math.nan))

    @pytest.mark.parametrize("points", [-0.1, 101, math.nan])
    def test_must_be_points(self, points):
        with pytest.raises(UserError, match="0 to 100 points of AUROC"):
            Budget(points, 0.5)
