"""What the weights of a foreign model say of its structure, held against what its file and the user say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.model.cflow import ModelConfig
from export.model.encoder import ENCODERS, REFLECT, build_encoder, check_size
from export.model.flow import CONDITION_DIMS
from runtime.common.errors import UserError
from train.foreign.weights import ForeignWeights, State, Stated, agreed

BLOCK_WEIGHTS = {
    "global_scale", "global_offset", "w_perm", "subnet.0.weight", "subnet.0.bias", "subnet.2.weight", "subnet.2.bias",
}  # fmt: skip
INVERSE = "w_perm_inv"  # the transpose of w_perm, not needed
# largest entry of WᵀW - 1: rounding to float32 leaves 1e-6, to float16 5e-4, to bfloat16 4e-3
ORTHOGONAL = {torch.float16: 3e-3, torch.bfloat16: 2e-2}
ORTHOGONAL_FLOAT32 = 1e-4
MOST_CHANNELS = 4096  # twice those of any encoder here
_KEY = re.compile(r"module_list\.(\d+)\.(.+)")


@dataclass(frozen=True)
class FlowStructure:
    """The structure of one decoder."""

    channels: int
    coupling_blocks: int
    conditional: bool
    soft_permutation: bool


def blocks_of(decoder: State) -> list[dict[str, Tensor]]:
    """Return a decoder's coupling blocks, each its weights by name without the inverse permutation.

    Raises `UserError` where a block or a weight is missing, or where one is that no coupling block of CFLOW has.
    """
    blocks: dict[int, dict[str, Tensor]] = {}
    for key, value in decoder.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError("a decoder must hold module_list.k.* alone", key)
        if match[2] != INVERSE:
            blocks.setdefault(int(match[1]), {})[match[2]] = value
    if not blocks or set(blocks) != set(range(len(blocks))):
        raise UserError("a decoder's coupling blocks must be numbered from 0", str(sorted(blocks)))
    for index, block in blocks.items():
        if set(block) != BLOCK_WEIGHTS:
            odd = sorted(set(block) ^ BLOCK_WEIGHTS)[0]
            raise UserError(
                f"coupling block {index} must hold {len(BLOCK_WEIGHTS)} weights",
                f"{'no' if odd in BLOCK_WEIGHTS else 'also'} {odd}",
            )
    return [{**blocks[index], "w_perm": _as_matrix(blocks[index]["w_perm"])} for index in range(len(blocks))]


def _as_matrix(permutation: Tensor) -> Tensor:
    """Return a permutation as the matrix W of y = Wx; FrEIA's later sources keep a hard one as indices: y = x[p].

    Raises `UserError` for indices that are no permutation.
    """
    if permutation.ndim != 1:
        return permutation
    count = len(permutation)
    whole = count <= MOST_CHANNELS and not permutation.is_floating_point() and not permutation.is_complex()
    if not whole or not torch.equal(permutation.sort().values.long(), torch.arange(count)):
        found = f"{permutation.dtype} {tuple(permutation.shape)} of others"
        raise UserError("w_perm must hold every channel's index once", found, "save the model again")
    return torch.eye(count)[permutation.long()]


def flow_of(decoder: State) -> FlowStructure:
    """Return a decoder's structure. Raises `UserError` where its weights do not fit together."""
    blocks = blocks_of(decoder)
    kinds = {_kind(block) for block in blocks}
    if len(kinds) > 1:
        raise UserError("a decoder's coupling blocks must be alike", f"(channels, conditional) {sorted(kinds)}")
    channels, conditional = kinds.pop()
    soft = [bool(((block["w_perm"] != 0) & (block["w_perm"] != 1)).any()) for block in blocks]
    return FlowStructure(channels, len(blocks), conditional, any(soft))


def _kind(block: dict[str, Tensor]) -> tuple[int, bool]:
    """Return (channels, conditional) of a coupling block."""
    permutation, hidden = block["w_perm"], block["subnet.0.weight"]
    if permutation.ndim != 2 or hidden.ndim != 2 or not 2 <= permutation.shape[0] <= MOST_CHANNELS:
        found = f"{tuple(permutation.shape)} and {tuple(hidden.shape)}"
        raise UserError("w_perm and subnet.0.weight must be matrices of an encoder's channels", found)
    channels, read = permutation.shape[0], hidden.shape[-1]
    condition_dims = read - (channels - channels // 2)
    if condition_dims not in (0, CONDITION_DIMS):
        raise UserError(f"the condition vector must have {CONDITION_DIMS} dimensions or none", str(condition_dims))
    expected = {
        "global_scale": (1, channels),
        "global_offset": (1, channels),
        "w_perm": (channels, channels),
        "subnet.0.weight": (2 * read, read),
        "subnet.0.bias": (2 * read,),
        "subnet.2.weight": (channels // 2 * 2, 2 * read),
        "subnet.2.bias": (channels // 2 * 2,),
    }
    for name, shape in expected.items():
        if block[name].shape != shape:
            raise UserError(f"{name} must be {shape}", f"{tuple(block[name].shape)}")
    error = permutation.float().T @ permutation.float() - torch.eye(channels)
    if not error.abs().max() < ORTHOGONAL.get(permutation.dtype, ORTHOGONAL_FLOAT32):
        raise UserError("w_perm must be an orthogonal matrix", f"W'W off by {error.abs().max():.1e}")
    return channels, condition_dims > 0


def encoder_of(source: ForeignWeights, channels: set[int]) -> tuple[str, tuple[str, ...]]:
    """Return the encoder whose weights `source` holds, and its taps of these numbers of channels.

    Raises `UserError` where the weights are none of `ENCODERS`'.
    """
    plain = [name for name in ENCODERS if not name.endswith(REFLECT)]
    for base in plain:
        name = base + REFLECT if source.reflection and base + REFLECT in ENCODERS else base
        taps = tuple(tap for tap, described in ENCODERS[name].taps.items() if described.channels in channels)
        if len(taps) == len(channels) and _fits(name, taps, source.encoder):
            agreed("the encoder", weights=base, file=source.stated.encoder)
            return name, taps
    widths = ", ".join(map(str, sorted(channels)))
    raise UserError(
        f"the encoder must be one of {', '.join(plain)}, whole up to its last tap",
        f"{source.stated.encoder or 'other weights'} with decoders of {widths} channels",
    )


def _fits(name: str, taps: tuple[str, ...], state: State) -> bool:
    """Tell whether `state` holds exactly the weights of this encoder in the modules up to its last tap."""
    with torch.device("meta"):
        wanted = build_encoder(name, taps).state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    if any(key not in state or state[key].shape != wanted[key].shape for key in wanted.keys() - counters):
        return False
    modules = {_module(key) for key in wanted}
    return all(key in wanted for key in state if _module(key) in modules)


def _module(key: str) -> str:
    first, second, *_ = [*key.split("."), ""]
    return f"{first}.{second}" if first == "features" else first


def config_of(source: ForeignWeights, size: tuple[int, int] | None) -> tuple[ModelConfig, tuple[State, ...]]:
    """Return the model's structure but for its clamp, and its decoders from the finest tap to the coarsest.

    `size` is what the user says of the input. Raises `UserError` where file, user and weights contradict each other.
    """
    flows = [flow_of(decoder) for decoder in source.decoders]
    agreed("the number of taps", weights=len(flows), file=source.stated.taps)
    decoders = dict(zip((flow.channels for flow in flows), source.decoders, strict=True))
    if len(decoders) != len(flows):
        raise UserError("each decoder must have a tap of its own", f"two of one width among {sorted(decoders)}")
    name, taps = encoder_of(source, set(decoders))
    blocks, conditional = _common_structure(flows, source.stated)
    input_size = _input_size(size, source.stated)
    check_size(name, taps, input_size)
    config = ModelConfig(
        name,
        taps,
        input_size,
        coupling_blocks=blocks,
        conditional=conditional,
        soft_permutation=any(flow.soft_permutation for flow in flows),
        mean=source.stated.mean,
        std=source.stated.std,
        score="paper",  # as the reference and anomalib score
    )
    return config, tuple(decoders[channels] for channels, _, _ in config.tap_sizes)


def _common_structure(flows: Sequence[FlowStructure], stated: Stated) -> tuple[int, bool]:
    """Return (coupling blocks, conditional) of all decoders."""
    kinds = {(flow.coupling_blocks, flow.conditional) for flow in flows}
    if len(kinds) > 1:
        raise UserError("all decoders must be alike", f"(coupling blocks, conditional) {sorted(kinds)}")
    blocks, conditional = kinds.pop()
    agreed("the number of coupling blocks", weights=blocks, file=stated.coupling_blocks)
    agreed("whether decoders are conditional", weights=conditional, file=stated.conditional)
    return blocks, conditional


def _input_size(size: tuple[int, int] | None, stated: Stated) -> tuple[int, int]:
    agreed_size = agreed("the input size", option=size, file=stated.input_size)
    if agreed_size is None:
        raise UserError("the input size must be known, and this file does not tell", "", "give it by --size")
    return agreed_size
