"""The score by place: its definition, what it is for, and what a few images may say of places."""

import numpy as np
import pytest
import torch

from export.model.score import (
    constant_shape,
    freeze_constants,
    freeze_places,
    image_score,
    likelihood_ratios,
)
from tests.support.export_fixtures import float64_constants, float64_places, float64_score


def likelihoods(images: int, seed: int = 0) -> list[np.ndarray]:
    """Two taps whose outermost ring is less likely, and less steady, on good images too."""
    rng = np.random.default_rng(seed)
    taps = []
    for height, width in ((20, 30), (10, 15)):
        logp = rng.normal(2, 0.3, (images, height, width))
        ring = np.ones((height, width), bool)
        ring[1:-1, 1:-1] = False
        logp[:, ring] -= 2 + rng.exponential(1, (images, 1))
        taps.append(logp)
    return taps


def tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("images", [1, 2, 40])
def test_places_constants_and_score_are_their_definition(images: int) -> None:
    good, seen = likelihoods(images), likelihoods(5, seed=1)
    places = freeze_places(tensors(good))
    for place, expected in zip(places, float64_places(good), strict=True):
        np.testing.assert_allclose(place.numpy(), expected, atol=1e-12)
        assert (place <= 0).all() and place.min() < 0
    constants = freeze_constants(tensors(good), "place_deviation", places)
    levelled = [logp - place for logp, place in zip(good, float64_places(good), strict=True)]
    expected = float64_constants(levelled, "place_deviation")
    assert constants.shape == constant_shape("place_deviation", 2) == (5, 3)
    np.testing.assert_allclose(constants.numpy(), expected, rtol=1e-9)
    assert float(constants[2:].sum()) == pytest.approx(2) and (constants > 0)[1:].all()
    ratios = likelihood_ratios(tensors(seen), constants, places)
    scores = image_score(ratios, torch.zeros(5, 4, 4), "place_deviation", constants)
    levelled = [logp - place for logp, place in zip(seen, float64_places(good), strict=True)]
    np.testing.assert_allclose(
        scores.numpy(), float64_score(levelled, expected, np.zeros((5, 4, 4)), "place_deviation"), rtol=1e-9
    )
    assert 0 <= scores.min() <= scores.max() <= 2


def test_a_border_that_strays_on_good_images_hides_no_defect_in_the_middle() -> None:
    good, seen = likelihoods(60), likelihoods(40, seed=1)
    # half of the images have a defect: no good position comes near it at its place, many at the border do
    seen[0][20:, 8:12, 12:18] -= 2
    seen[1][20:, 4:6, 6:9] -= 2

    def found(score: str) -> float:
        places = freeze_places(tensors(good)) if score == "place_deviation" else []
        constants = freeze_constants(tensors(good), score, places)  # type: ignore[arg-type]
        ratios = likelihood_ratios(tensors(seen), constants, places)
        scores = image_score(ratios, torch.zeros(40, 4, 4), score, constants)  # type: ignore[arg-type]
        return float((scores[20:, None] > scores[:20]).double().mean())  # AUROC

    assert found("place_deviation") > 0.9 > 0.7 > found("tap_deviation")


def test_no_place_is_held_to_a_higher_level_than_before() -> None:
    good = tensors(likelihoods(40))
    places = freeze_places(good)
    constants = freeze_constants(good, "place_deviation", places)
    for with_places, without in zip(
        likelihood_ratios(good, constants, places), likelihood_ratios(good, constants), strict=True
    ):
        assert (with_places >= without - 1e-12).all()


def test_a_few_images_hardly_tell_places_apart() -> None:
    many, few = (freeze_places(tensors(likelihoods(images)))[0][0].mean() for images in (200, 5))
    assert many < 2 * few < 0


def test_a_place_that_is_all_there_is_is_like_itself() -> None:
    (place,) = freeze_places([torch.randn(4, 1, 1, dtype=torch.float64)])
    assert place.shape == (1, 1) and float(place) == 0
