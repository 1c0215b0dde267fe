"""What an ablation compares: variants of one detector, and the decoders that they are made of."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FlowKind:
    """What a decoder is made of; the defaults are the paper's."""

    coupling_blocks: int = 8
    conditional: bool = True
    soft_permutation: bool = True

    def __str__(self) -> str:
        return f"{self.coupling_blocks} blocks, {self.condition}, {self.permutation}"

    @property
    def condition(self) -> str:
        """The paper's word for whether the flow knows its position: CFLOW or UFLOW."""
        return "conditional" if self.conditional else "unconditional"

    @property
    def permutation(self) -> str:
        """How channels are mixed between blocks."""
        return "soft" if self.soft_permutation else "hard"


DecoderKey = tuple[FlowKind, int]  # what it is made of; the index of its tap among all taps, fine to coarse


@dataclass(frozen=True)
class Variant:
    """A detector: `flow` on each of the `taps` coarsest taps."""

    flow: FlowKind
    taps: int

    def decoders(self, all_taps: int) -> Iterator[DecoderKey]:
        """Yield every decoder of this detector, given how many taps there are in all."""
        return ((self.flow, tap) for tap in range(all_taps - self.taps, all_taps))


def default_variants(taps: int) -> list[Variant]:
    """Return the paper's full model on `taps` taps, one change at a time from it, and the cheapest conditional one."""
    return [
        Variant(FlowKind(), taps),
        Variant(FlowKind(coupling_blocks=4), taps),
        Variant(FlowKind(), taps - 1),
        Variant(FlowKind(conditional=False), taps),
        Variant(FlowKind(soft_permutation=False), taps),
        Variant(FlowKind(coupling_blocks=4, soft_permutation=False), taps - 1),
    ]


def all_variants(taps: int) -> list[Variant]:
    """Return the full grid of 16, the paper's full model first."""
    return [
        Variant(FlowKind(blocks, conditional, soft), count)
        for blocks in (8, 4)
        for count in (taps, taps - 1)
        for conditional in (True, False)
        for soft in (True, False)
    ]
