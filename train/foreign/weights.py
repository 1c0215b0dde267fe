"""A foreign checkpoint taken apart: its weights by torchvision's and FrEIA's names, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from export.model.flow import Clamp
from runtime.common.errors import UserError

State = Mapping[str, Tensor]
Claim = TypeVar("Claim")


@dataclass(frozen=True)
class Stated:
    """What a file says of its model beside the weights; None where it says nothing."""

    encoder: str | None = None  # torchvision's name
    taps: int | None = None
    input_size: tuple[int, int] | None = None  # (height, width) in pixels
    coupling_blocks: int | None = None
    conditional: bool | None = None
    clamp: Clamp | None = None
    mean: tuple[float, ...] = ()  # as the encoder's weights were trained
    std: tuple[float, ...] = ()
    class_name: str = ""  # of the part that the images show


@dataclass(frozen=True)
class ForeignWeights:
    """A foreign model's weights.

    `encoder` has torchvision's names; each of `decoders` has those of FrEIA's `SequenceINN`,
    `module_list.k.w_perm` and so on, in whatever order the file has its taps. `reflection` says that
    the residual networks of this implementation pad by reflection.
    """

    origin: str
    reflection: bool
    encoder: State
    decoders: tuple[State, ...]
    stated: Stated


def agreed(what: str, **claims: Claim | None) -> Claim | None:
    """Return what all `claims` (by who makes them) say of `what`, None if nobody does; `UserError` if two differ."""
    made = {who.replace("_", " "): claim for who, claim in claims.items() if claim is not None}
    if len(set(made.values())) > 1:
        raise UserError(
            f"{what} must be one thing", " but ".join(f"{claim} in the {who}" for who, claim in made.items())
        )
    return next(iter(made.values()), None)
