"""Frames that show nothing: black, white, blurred, tiny, of another shape; and frames that are merely unusual."""

import json
import math
import re

import cv2
import numpy as np
import pytest

from runtime.images.facts import ImageFacts, measure, unfit

RNG = np.random.default_rng(5)


def part(seed: int, size: tuple[int, int] = (240, 320), light: float = 1.0) -> np.ndarray:
    """A textured disc on a bright ground, uint8 (H, W, 3); each has its own noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = np.hypot(rows - size[0] / 2, columns - size[1] / 2) < 0.3 * min(size)
    grey = np.where(disc, 90 + 30 * np.sin(rows / 3), 180) + rng.normal(0, 3, size)
    return np.repeat(np.clip(light * grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


FACTS = ImageFacts.of(part(seed, light=0.97 + 0.01 * (seed % 7)) for seed in range(30))


def test_numbers_are_those_of_numpy():
    image = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    image[:8] = 255
    numbers, grey = measure(image), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    assert numbers["brightness"] == pytest.approx(grey.mean()) and numbers["contrast"] == pytest.approx(grey.std())
    assert numbers["clipped"] == pytest.approx(((grey <= 1) | (grey >= 254)).mean())
    assert numbers["aspect"] == pytest.approx(math.log(1.5))
    mirrored = np.pad(grey, 1, mode="reflect")  # OpenCV's border
    edges = mirrored[:-2, 1:-1] + mirrored[2:, 1:-1] + mirrored[1:-1, :-2] + mirrored[1:-1, 2:] - 4 * grey
    assert numbers["sharpness"] == pytest.approx(math.log((np.abs(edges).mean() + 0.1) / (grey.std() + 1)))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda image: image * 0, "one grey all over"),
        (lambda image: image * 0 + 255, "one grey all over"),
        (lambda image: (image * 0.3).astype(np.uint8), "brightness"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 12), "sharpness"),
        (lambda image: np.clip(image.astype(int) + 77, 0, 255).astype(np.uint8), "brightness|clipped"),
        (lambda image: RNG.choice(np.array([0, 255], np.uint8), (240, 320, 1)).repeat(3, axis=2), "contrast|clipped"),
        (lambda image: image[:, :100], "aspect"),
        (lambda image: image[:15], "15 pixels|320x15"),
        (lambda image: image[:1, :1], "1x1"),
    ],
)
def test_a_frame_that_shows_nothing_is_told_why(spoil, word):
    assert re.search(word, unfit(np.ascontiguousarray(spoil(part(100))), FACTS))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: (image * 0.95).astype(np.uint8),
        lambda image: cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA),
        lambda image: cv2.rectangle(image.copy(), (120, 80), (200, 160), (20, 20, 20), -1),  # a large defect
    ],
)
def test_an_unusual_frame_is_still_judged(change):
    assert unfit(np.ascontiguousarray(change(part(200))), FACTS) == ""


def test_few_images_leave_more_room():
    few = ImageFacts(2, FACTS.ranges)
    numbers = {**measure(part(1)), "brightness": FACTS.ranges["brightness"][1] + 40}
    assert FACTS.far(numbers) and not few.far(numbers)


def test_they_are_the_same_after_json():

    again = ImageFacts.from_json(json.loads(json.dumps({"count": FACTS.count, "ranges": dict(FACTS.ranges)})))
    assert again == FACTS
    with pytest.raises(ValueError, match="ascending"):
        ImageFacts.from_json({"count": 3, "ranges": {**FACTS.ranges, "contrast": [5, 1]}})
    with pytest.raises(ValueError, match="at least one"):
        ImageFacts.of([])
