"""Lightning checkpoints of anomalib's Cflow model, from its 0.3 to its 2.7.

The weights are `state_dict`'s `model.encoder.feature_extractor.*` (timm, by torchvision's names) and
`model.decoders.t.module_list.*`, from fine to coarse. `hyper_parameters` says the rest;
early releases keep it as OmegaConf containers, whose pickled state is read here without OmegaConf.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from export.model.flow import CLAMP
from export.model.tensor_files import StandIn, unwrapped
from runtime.common.errors import UserError
from train.foreign.weights import ForeignWeights, State, Stated

_ENCODER, _DECODERS = "model.encoder.feature_extractor.", "model.decoders."
_PRE_PROCESSOR = "anomalib_pre_processor_config"  # plain data, since 2.7


def is_lightning(content: Any) -> bool:
    """Tell whether a file's content is laid out as PyTorch Lightning does it."""
    return isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)


def read_anomalib(content: Mapping[str, Any], path: Path) -> ForeignWeights:
    """Take the content of `path` apart. Raises `UserError` where it is another model than Cflow."""
    state = unwrapped(content["state_dict"])
    encoder = {key.removeprefix(_ENCODER): value for key, value in state.items() if key.startswith(_ENCODER)}
    decoders = _decoders(state)
    if not encoder or not decoders:
        found = ", ".join(sorted({".".join(key.split(".")[:2]) for key in state})[:4])
        raise UserError(f"{path} must hold {_ENCODER}* and {_DECODERS}*, as anomalib's Cflow has them", found)
    return ForeignWeights(
        origin="anomalib",
        reflection=False,
        encoder=encoder,
        decoders=tuple(decoders[index] for index in sorted(decoders)),
        stated=_stated(content),
    )


def _decoders(state: Mapping[str, Tensor]) -> dict[int, State]:
    decoders: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        index, _, rest = key.removeprefix(_DECODERS).partition(".")
        if key.startswith(_DECODERS) and index.isdecimal():
            decoders.setdefault(int(index), {})[rest] = value
    return dict(decoders)


def _stated(content: Mapping[str, Any]) -> Stated:
    values = plain(content.get("hyper_parameters")) or {}
    values = {**values, **(values.get("model") or {})} if isinstance(values, dict) else {}
    if values.get("clamp_alpha", CLAMP) != CLAMP:
        raise UserError(f"clamp_alpha must be {CLAMP}, the paper's", str(values["clamp_alpha"]))
    layers, backbone, blocks = values.get("layers"), values.get("backbone"), values.get("coupling_blocks")
    resized, normalised = _pre_processing(content.get(_PRE_PROCESSOR))
    size = resized or values.get("input_size")
    return Stated(
        encoder=backbone.split(".")[0] if isinstance(backbone, str) else None,  # timm: resnet18.tv_in1k
        taps=len(layers) if isinstance(layers, list | tuple) else None,
        input_size=(int(size[0]), int(size[1])) if isinstance(size, list | tuple) and len(size) == 2 else None,
        coupling_blocks=blocks if isinstance(blocks, int) else None,
        conditional=True,
        clamp="tanh(a)",  # its own copy of FrEIA's block, in all releases
        **normalised,
    )


def _pre_processing(config: Any) -> tuple[Any, dict[str, Any]]:
    """Return the size that images are resized to and the mean and std, as far as they stand in plain data.

    Raises `UserError` for a transform that our frames do not go through.
    """
    spec = config.get("transform") if isinstance(config, Mapping) else None
    if not isinstance(spec, Mapping):
        return None, {}
    steps = spec["init_args"]["transforms"] if spec["class_path"].endswith(".Compose") else [spec]
    arguments = {step["class_path"].rpartition(".")[2]: step["init_args"] for step in steps}
    others = sorted(arguments.keys() - {"Resize", "Normalize"})
    if others:
        raise UserError("images must be resized and normalised only, as ours are", ", ".join(others))
    normalise = arguments.get("Normalize")
    if normalise is None:
        raise UserError("images must be normalised", "a pre-processor without Normalize")
    return arguments.get("Resize", {}).get("size"), {key: tuple(normalise[key]) for key in ("mean", "std")}


def plain(value: Any) -> Any:
    """Return `value` with OmegaConf's containers and nodes, which were read as stand-ins, as plain Python."""
    state = value.state if isinstance(value, StandIn) else None
    if isinstance(state, dict) and "_content" in state:
        return plain(state["_content"])
    if isinstance(state, dict) and "_val" in state:
        return plain(state["_val"])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
