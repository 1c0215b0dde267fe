"""Find the model that `build_engine` is meant to build when it is given none."""

from pathlib import Path

from runtime.common.errors import UserError
from runtime.engines.sidecar import VARIANTS, sidecar_path

# What a model can be built from, the best start first.
SUFFIXES = (".pt", ".onnx", ".unfused.onnx")


def find_model(folder: Path) -> Path:
    """Return the one checkpoint or ONNX in `folder`; files of one name count once, its checkpoint first.

    Raises `UserError` if there is none, and lists them if there are several.
    """
    names = sorted({name for path in folder.iterdir() if (name := _model_name(path))})
    if not names:
        raise UserError(
            f"{folder.resolve()} must hold a checkpoint (.pt) or an ONNX",
            "none",
            "train one with train.fit, or name a file",
        )
    if len(names) > 1:
        raise UserError("one model to build must stand in this folder", ", ".join(names), "name the one to build")
    paths = (folder / f"{names[0]}{suffix}" for suffix in SUFFIXES)
    return next(path for path in paths if path.is_file())


def _model_name(path: Path) -> str | None:
    """Return the name that a model's files share, None for a file that nothing is built from."""
    typed = any(path.name.endswith(f".{variant}.onnx") for variant in VARIANTS if variant != "unfused")
    if path.suffix not in (".pt", ".onnx") or typed or path.name.endswith(".training.pt") or path.name.startswith("."):
        return None
    return sidecar_path(path).stem
