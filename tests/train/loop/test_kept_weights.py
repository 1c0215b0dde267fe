"""A tap goes back to its best weights from a pass that led it astray, and from no other."""

import math

import pytest
import torch

from runtime.common.errors import UserError
from tests.support.small_decoder import GRID, decoder_of
from train.loop.kept_weights import CLEAR_FALL, CLEAR_RISE, WARM_UP_STEPS, KeptWeights, check_learnt
from train.loop.processes import one_process
from train.loop.tap_training import Fibers, TapTraining

GOOD = torch.tensor([1.0, 1.1, 0.9, 1.2, 0.8])


def trained(tap: TapTraining) -> torch.Tensor:
    """Take a step, so that weights and the optimiser's averages are no longer those of the start."""
    fibers = torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tap.train(Fibers(fibers, torch.arange(64)), 2, 32, 1e-2, one_process())
    return tap.flow.parameters.clone()


@pytest.mark.parametrize(
    ("logps", "astray", "best_pass"),
    [
        (GOOD + 0.1, False, 2),
        (GOOD - 0.9 * CLEAR_FALL, False, 1),
        (GOOD - 1.1 * CLEAR_FALL, True, 1),
        (GOOD - torch.tensor([0, 0, 0, 50.0, 50]), False, 1),  # two odd images of five
        (GOOD + torch.tensor([0.1, 0.1, 0.1, 0.1, -50]), False, 1),  # one that is lost counts against the pass
        (GOOD - torch.tensor([0, 0, 1.0, 1, 1]), True, 1),
        (GOOD - torch.tensor([0, 0, 0, 0, math.nan]), True, 1),
        (GOOD - torch.tensor([0, 0, 0, 0, math.inf]), True, 1),
    ],
)
def test_held_out_images_say_which_pass_is_best_and_which_went_wrong(
    logps: torch.Tensor, astray: bool, best_pass: int
) -> None:
    tap = TapTraining(decoder_of(), GRID, 1e-3)
    kept = KeptWeights(tap)
    best = trained(tap)
    assert not kept.judge(GOOD, 1)
    after = trained(tap)
    assert kept.judge(logps, 2) == astray
    assert torch.equal(tap.flow.parameters, best if astray else after)
    assert kept.rate_share == pytest.approx(1 / 3 if astray else 1)
    assert bool(tap.optimizer.state) != astray  # averages of the way that led astray are forgotten
    assert kept.best_pass == best_pass
    kept.take_best()
    assert torch.equal(tap.flow.parameters, after if best_pass == 2 else best)


@pytest.mark.parametrize(("others", "odd", "best_pass"), [(0.1, -9.0, 2), (-0.1, 9.0, 1)])
def test_an_odd_image_does_not_choose_the_pass(others: float, odd: float, best_pass: int) -> None:
    first = torch.cat([GOOD, torch.tensor([-20.0])])
    kept = KeptWeights(TapTraining(decoder_of(), GRID, 1e-3))
    kept.judge(first, 1)
    assert not kept.judge(first + torch.tensor([others] * 5 + [odd]), 2)
    assert kept.best_pass == best_pass


def test_an_odd_image_does_not_hide_a_pass_that_strayed() -> None:
    first = torch.cat([GOOD, torch.tensor([-600.0])])  # its mean would let a loss of 100 pass
    kept = KeptWeights(TapTraining(decoder_of(), GRID, 1e-3))
    kept.judge(first, 1, 0.3)
    assert kept.judge(first - 0.1, 2, 17.2)


@pytest.mark.parametrize(
    ("first", "change", "loss", "astray"),
    [
        (0.3, -0.1, 17.2, True),  # went astray and nearly came back: no held-out image fell by much
        (0.3, -0.1, math.nan, True),
        (0.3, -0.1, 0.31 + 0.9 * CLEAR_RISE, False),  # softplus(-1.0) = 0.31
        (0.3, -0.1, 0.32 + CLEAR_RISE, True),
        (2.0, -0.1, 2.0 + 0.9 * CLEAR_RISE, False),  # images are varied: training is harder than what is held out
        (2.0, -0.1, 2.0 + 1.1 * CLEAR_RISE, True),
        (0.3, 0.1, 17.2, False),  # and found better weights behind
    ],
)
def test_a_pass_that_strayed_and_came_back_went_wrong_too(
    first: float, change: float, loss: float, astray: bool
) -> None:
    kept = KeptWeights(TapTraining(decoder_of(), GRID, 1e-3))
    best = trained(kept.tap)
    assert not kept.judge(GOOD, 1, first)
    after = trained(kept.tap)
    assert kept.judge(GOOD + change, 2, loss) == astray
    assert torch.equal(kept.tap.flow.parameters, best if astray else after)
    assert kept.rate_share == pytest.approx(1 / 3 if astray else 1)


def test_the_first_steps_of_an_optimiser_are_small_ones() -> None:
    kept = KeptWeights(TapTraining(decoder_of(), GRID, 1e-3))
    shares = [kept.share]
    for _ in range(WARM_UP_STEPS // 2):
        trained(kept.tap)
        shares.append(kept.share)
    assert shares[0] == 1 / WARM_UP_STEPS and shares == sorted(shares) and shares[-1] == 1
    kept.judge(GOOD, 1)
    kept.judge(GOOD - 1, 2)  # the optimiser begins anew
    assert kept.share == pytest.approx(1 / WARM_UP_STEPS / 3)


def test_a_fall_in_small_steps_is_held_against_the_best() -> None:
    kept = KeptWeights(TapTraining(decoder_of(), GRID, 1e-3))
    went_back = [kept.judge(GOOD - 0.4 * CLEAR_FALL * number, number + 1) for number in range(4)]
    assert went_back == [False, False, False, True]


def test_what_is_kept_goes_on_from_its_state() -> None:
    tap, other = (TapTraining(decoder_of(), GRID, 1e-3) for _ in range(2))
    kept, resumed = KeptWeights(tap), KeptWeights(other)
    best = trained(tap)
    kept.judge(GOOD, 1)
    trained(tap)
    kept.judge(GOOD - 1, 2)
    resumed.load_state_dict(kept.state_dict())
    trained(tap)
    resumed.load_state_dict(kept.state_dict())
    assert resumed.share == kept.share != KeptWeights(TapTraining(decoder_of(), GRID, 1e-3)).share
    assert (resumed.best_pass, resumed.rate_share, resumed.logp) == (1, kept.rate_share, kept.logp)
    assert resumed.loss == kept.loss
    assert resumed.judge(GOOD - 1, 3) and torch.equal(other.flow.parameters, best)


def test_a_training_that_always_went_wrong_is_refused() -> None:
    kept = [KeptWeights(TapTraining(decoder_of(), GRID, 1e-3)) for _ in range(2)]
    for each in kept:
        each.begin(GOOD)
        each.judge(GOOD * math.nan, 1)
    with pytest.raises(UserError, match="found 1 passes that all went wrong; lower --learning-rate"):
        check_learnt(kept, 1)
    kept[0].judge(GOOD + 1, 2)
    check_learnt(kept, 2)
