"""Training's distribution as the sidecar keeps it, and the stability index against it."""

import json
import math

import numpy as np
import pytest

from runtime.images.population import Population, expected_index


def _population(values: np.ndarray) -> Population:
    return Population.of([{"light": float(value)} for value in values], {"layer1": 64})


def _index(population: Population, values: np.ndarray, least: float = 1e-6) -> float:
    return population.stability_index("light", values, least)


def test_it_is_the_textbooks_sum():
    population = _population(np.arange(100.0))
    values = np.repeat(np.arange(0.5, 100, 10), [4, 1, 1, 1, 1, 1, 1, 0, 0, 0]).repeat(100)  # of ten bins of 10 %
    shares = np.array([4, 1, 1, 1, 1, 1, 1, 0, 0, 0]) * 100
    now, before = (shares + 0.5) / (shares + 0.5).sum(), np.full(10, 0.1)
    assert _index(population, values) == pytest.approx(float(((now - before) * np.log(now / before)).sum()), rel=1e-9)


def test_stationary_values_are_stable_and_a_shift_is_not():
    random = np.random.default_rng(0)
    population = _population(random.normal(0, 1, 200))
    found = [_index(population, random.normal(0, 1, 1000)) for _ in range(50)]
    assert np.mean(found) < 2 * expected_index(200, 1000) and max(found) < 0.25
    assert _index(population, random.normal(1, 1, 1000)) > 0.25


def test_where_all_images_are_alike_a_shift_is_large_too():
    population = _population(np.full(40, 3.0))
    assert _index(population, np.full(1000, 3.0), 0.01) < 0.1
    assert _index(population, np.full(1000, 3.1), 0.01) > 1 and _index(population, np.full(1000, 2.9), 0.01) > 1


def test_json_gives_it_back_equal():
    population = _population(np.random.default_rng(0).normal(0, 1, 3))
    assert Population.from_json(json.loads(json.dumps(population.to_json()))) == population


@pytest.mark.parametrize(
    "damage",
    [
        {"count": 0},
        {"count": True},
        {"points": {}},
        {"points": {"light": [2.0, 1.0]}},
        {"points": {"light": [math.nan]}},
        {"grids": {"a": 0}},
        {"grids": None},
    ],
)
def test_what_is_none_is_refused(damage: dict):
    whole = _population(np.arange(3.0)).to_json()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Population.from_json({**whole, **damage})
