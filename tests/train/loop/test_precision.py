"""Which format training's products are computed in, and that "auto" is settled before anything is computed."""

from pathlib import Path

import pytest
import torch

from tests.support.small_decoder import GRID, decoder_of
from train.loop import precision
from train.loop.precision import bfloat16_is_fast, products_type, settle
from train.loop.processes import one_process
from train.loop.schedule import FAST, PAPER, Recipe
from train.loop.tap_training import Fibers, TapTraining

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("fast", "device", "settled"), [(True, CPU, "medium"), (False, CPU, "highest"), (True, GPU, "highest")]
)
def test_auto_is_bfloat16_where_a_cpu_is_fast_at_it(monkeypatch, fast, device, settled) -> None:
    monkeypatch.setattr(precision, "bfloat16_is_fast", lambda: fast)
    assert settle(FAST, device).matmul_precision == settled
    assert settle(PAPER, device) == PAPER
    assert settle(Recipe(matmul_precision="medium"), device).matmul_precision == "medium"


def test_what_the_processor_says_is_what_linux_says() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    if hasattr(torch.cpu, "get_capabilities"):
        assert bfloat16_is_fast() == any(name in flags for name in ("avx512_bf16", "amx_bf16", "bf16"))
    else:
        assert not bfloat16_is_fast()


@pytest.mark.parametrize(
    ("chosen", "everywhere", "products"),
    [("highest", "highest", None), ("high", "high", None), ("medium", "high", torch.bfloat16)],
)
def test_only_the_products_of_training_are_rounded(chosen, everywhere, products) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        assert products_type(Recipe(matmul_precision=chosen)) == products
        assert torch.get_float32_matmul_precision() == everywhere
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_tap_learns_as_much_with_rounded_products() -> None:
    fibers = torch.randn(512, 8, generator=torch.Generator().manual_seed(1)).double() * 0.3
    reached = {}
    for products in (None, torch.bfloat16):
        tap = TapTraining(decoder_of(), GRID, 1e-2, products)
        start = float(tap.log_likelihood(fibers[:45]).mean())
        for _ in range(10):
            tap.train(Fibers(fibers, torch.arange(512)), 8, 64, 1e-2, one_process())
        reached[products] = float(tap.log_likelihood(fibers[:45]).mean()) - start
    assert reached[None] > 0.3
    assert reached[torch.bfloat16] == pytest.approx(reached[None], abs=0.1)  # of two trainings whose steps differ
