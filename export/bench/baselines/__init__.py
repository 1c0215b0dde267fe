"""The methods that the paper's Table 6 compares with, written plainly, so that one machine can time them all."""

from typing import Any

from export.bench.baselines.common import Baseline
from export.bench.baselines.padim import Padim
from export.bench.baselines.spade import Spade

BASELINES: dict[str, type[Baseline[Any]]] = {"padim": Padim, "spade": Spade}
