"""The learning rate against the steps of the paper's reference training, and recipes that cannot be."""

import itertools
import math
from dataclasses import replace

import pytest

from runtime.common.errors import UserError
from train.loop.schedule import FAST, PAPER, SCHEDULES, Recipe, learning_rate


def reference_rates(meta_epochs: int, sub_epochs: int, batches: int) -> list[float]:
    """Run the reference's nested loops: set the cosine once a meta-epoch, overwrite it while warming up."""
    base, warm_epochs = 2e-4, 2
    lowest, start = base * 0.1**3, base / 10
    end = lowest + (base - lowest) * (1 + math.cos(math.pi * warm_epochs / meta_epochs)) / 2
    rates = []
    for meta_epoch in range(meta_epochs):
        cosine = lowest + (base - lowest) * (1 + math.cos(math.pi * meta_epoch / meta_epochs)) / 2
        for sub_epoch in range(sub_epochs):
            for batch in range(batches):
                step = batch + sub_epoch * batches + meta_epoch * batches * sub_epochs
                share = step / (warm_epochs * batches * sub_epochs)
                rates.append(start + share * (end - start) if meta_epoch < warm_epochs else cosine)
    return rates


@pytest.mark.parametrize(("meta_epochs", "sub_epochs", "batches"), [(25, 8, 3), (8, 1, 5), (12, 3, 1)])
def test_every_step_has_the_references_rate(meta_epochs: int, sub_epochs: int, batches: int) -> None:
    recipe = Recipe(meta_epochs=meta_epochs, sub_epochs=sub_epochs)
    ours = [learning_rate(recipe, epoch, index / batches) for epoch in range(recipe.epochs) for index in range(batches)]
    # the same float64 formula in another order of operations
    assert ours == pytest.approx(reference_rates(meta_epochs, sub_epochs, batches), rel=1e-12)


@pytest.mark.parametrize(("meta_epochs", "sub_epochs"), [(1, 1), (1, 8), (3, 2), (5, 1)])
def test_a_short_schedule_warms_up_for_a_quarter_at_most(meta_epochs: int, sub_epochs: int) -> None:
    recipe = Recipe(meta_epochs=meta_epochs, sub_epochs=sub_epochs)
    assert recipe.warm_up_epochs <= recipe.epochs / 4
    rates = [learning_rate(recipe, epoch, 0.0) for epoch in range(recipe.epochs)]
    assert 2e-7 <= min(rates) <= max(rates) <= 2e-4


def test_the_fast_schedule_rises_for_a_pass_and_falls_with_every_batch() -> None:
    rates = [learning_rate(FAST, epoch, index / 10) for epoch in range(FAST.epochs) for index in range(10)]
    peak = rates.index(max(rates))
    assert peak == 10 and rates[0] == pytest.approx(1e-3)
    assert all(a < b for a, b in itertools.pairwise(rates[:peak]))
    assert all(a > b for a, b in itertools.pairwise(rates[peak:]))
    short = replace(FAST, meta_epochs=1)  # even a single pass warms up, for a quarter of it
    assert learning_rate(short, 0, 0.0) == pytest.approx(1e-3) and short.warm_up_epochs == 0.25


def test_the_default_schedule_is_the_papers() -> None:
    assert SCHEDULES["paper"] == PAPER == Recipe()
    assert (PAPER.learning_rate, PAPER.epochs, PAPER.batch, PAPER.fiber_batch) == (2e-4, 200, 32, 256)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"meta_epochs": 0}, "--meta-epochs"),
        ({"sub_epochs": -1}, "--sub-epochs"),
        ({"batch": 0}, "--batch"),
        ({"fiber_batch": 0}, "--fiber-batch"),
        ({"positions": -1}, "--positions"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"learning_rate": math.inf}, "--learning-rate"),
        ({"rotation_degrees": -1.0}, "--rotation"),
        ({"rotation_degrees": math.nan}, "--rotation"),
        ({"light": 1.0}, "--light"),
        ({"light": math.nan}, "--light"),
        ({"blur": -0.5}, "--blur"),
        ({"blur": math.nan}, "--blur"),
        ({"shift": 65.0}, "--shift"),
        ({"held_out": 1.0}, "--held-out"),
        ({"held_out": math.nan}, "--held-out"),
        ({"false_alarm_rate": 0.0}, "--false-alarm-rate"),
        ({"seed": -1}, "--seed"),
        ({"matmul_precision": "low"}, "--precision"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(changes: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"^{named} must"):
        Recipe(**changes)
