"""In which number format the matrix products of training are computed.

Small products are most of a step's time on a CPU, and a processor with instructions for bfloat16 computes them about
twice as fast. Held-out images, the threshold and everything after training are judged in float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from train.loop.schedule import AUTO_PRECISION, Recipe

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, and Arm


def bfloat16_is_fast() -> bool:
    """Return whether this processor multiplies bfloat16 matrices by instructions of its own, as far as torch says."""
    ask: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # not in older releases
    known = ask()
    return any(known.get(name, False) for name in INSTRUCTIONS)


def settle(recipe: Recipe, device: torch.device) -> Recipe:
    """Return `recipe` with the precision that "auto" stands for on `device`."""
    if recipe.matmul_precision != AUTO_PRECISION:
        return recipe
    return replace(recipe, matmul_precision="medium" if device.type == "cpu" and bfloat16_is_fast() else "highest")


def products_type(recipe: Recipe) -> torch.dtype | None:
    """Set the precision of all float32 products, and return the format of a step's: None for its parameters' own."""
    medium = recipe.matmul_precision == "medium"  # the encoder, and what judges, stay above it
    torch.set_float32_matmul_precision("high" if medium else recipe.matmul_precision)
    return torch.bfloat16 if medium else None
