"""A picture that repeats for ever is told; a still scene in front of a real sensor is not."""

import numpy as np

from runtime.images.frozen import FrozenCheck

SCENE = np.random.default_rng(0).integers(0, 250, (480, 640, 3)).astype(np.uint8)


def test_equal_pictures_are_borne_for_a_while_only():
    check = FrozenCheck(10.0)
    said = [check.reason(SCENE.copy(), now) for now in np.arange(0.0, 12.0, 0.5)]
    assert said[:20] == [""] * 20 and said[20] == "the picture has not changed for 10 s"
    assert said[-1] == "the picture has not changed for 12 s"


def test_a_change_begins_anew_and_noise_is_a_change():
    check = FrozenCheck(2.0)
    rng = np.random.default_rng(1)
    for now in range(10):
        noisy = SCENE + rng.integers(0, 2, SCENE.shape).astype(np.uint8)
        assert check.reason(noisy, float(now)) == ""
    assert check.reason(SCENE, 10.0) == "" and check.reason(SCENE, 12.0)


def test_a_source_without_noise_can_be_left_out():
    check = FrozenCheck(0.0)
    assert all(check.reason(SCENE, float(now)) == "" for now in range(1000))
