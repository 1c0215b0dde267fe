"""Every command of this kit under one name: `cflow train`, `cflow build`, `cflow infer`, ..., each with --help.

A table and nothing more: a subcommand's module is imported when it is asked for, so that the list needs no library.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.common.errors import USAGE_STATUS
from runtime.common.program import PROGRAM
from runtime.common.version import DISTRIBUTION, installed_version

OURS = frozenset({"cflow", "train", "export", "runtime"})


@dataclass(frozen=True)
class Subcommand:
    """A module with a `command()` of its own, its line in the list, and the pip extra that holds its libraries."""

    module: str
    summary: str
    extra: str = "train"


LINE = "runtime"
GROUPS: dict[str, dict[str, Subcommand]] = {
    "train": {
        "train": Subcommand("train.fit", "learn from a folder of good images"),
        "train-classes": Subcommand("train.fit_classes", "learn several products, one after the other"),
        "evaluate": Subcommand("train.evaluate", "judge labelled images: AUROC, AUPRO and the mistakes"),
        "threshold": Subcommand("train.set_threshold", "choose the score above which a frame is anomalous"),
        "improve": Subcommand("train.improve", "propose a better threshold, mask or model from marks"),
        "import": Subcommand("train.import_checkpoint", "take over a checkpoint of anomalib or of the paper's code"),
        "ablation": Subcommand("train.ablation", "what each part of the model is worth, in a table"),
        "synthetic": Subcommand("train.synthetic", "draw a small data set with defects, to try everything on"),
        "demo": Subcommand("train.demo", "the whole way once on drawn images, to see it work"),
    },
    "export": {
        "to-onnx": Subcommand("export.to_onnx", "write a checkpoint as ONNX, as torch exports it"),
        "fuse": Subcommand("export.fuse", "rewrite that ONNX exactly, into fewer and faster steps"),
        "precision": Subcommand("export.precision", "make an FP16 or INT8 ONNX of a fused FP32 one"),
        "frame-size": Subcommand("export.frame_size", "let an ONNX resize the camera's frames itself"),
        "build": Subcommand("export.build_engine", "build a TensorRT engine from a checkpoint or ONNX"),
        "triton": Subcommand("export.triton", "write engines as a model repository for a Triton server", LINE),
        "verify": Subcommand("export.verify", "compare a detector in all its forms: torch, ONNX, plan"),
        "sensitivity": Subcommand("export.sensitivity", "what INT8 costs, group of layers by group"),
        "calibration-data": Subcommand("export.calibration_data", "choose the good images that INT8 ranges come from"),
    },
    "line": {
        "infer": Subcommand("runtime.infer", "judge the frames of cameras, streams, videos and folders", LINE),
        "capture": Subcommand("runtime.capture", "take good images to train on", LINE),
        "check": Subcommand("runtime.check", "known parts at shift start: as they were recorded?", LINE),
        "trace": Subcommand("runtime.trace", "find in the log what was judged and what was changed", LINE),
        "review": Subcommand("runtime.review", "correct verdicts in the log, or list what was corrected", LINE),
    },
    "measure": {
        "report": Subcommand("runtime.report.main", "measure speed and accuracy, with tables and charts", "report"),
        "gauge": Subcommand("runtime.gauge.main", "repeatability of the score: %GRR, kappa, a plot", "statistics"),
        "soak": Subcommand("runtime.soak", "run for long: is memory flat, is nothing lost?", LINE),
        "overhead": Subcommand("runtime.overhead", "time what the runtime costs around the engine", LINE),
    },
}
SUBCOMMANDS = {name: subcommand for group in GROUPS.values() for name, subcommand in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (default: the command line) begins with, and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(overview(), file=sys.stderr)
        return USAGE_STATUS
    name, *rest = words
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(version())
        return 0
    if name not in SUBCOMMANDS:
        return _refuse(_unknown(name))
    sys.argv = [f"{PROGRAM} {name}", *rest]  # as the subcommand's own program would find it
    return _run(name, SUBCOMMANDS[name])


def overview() -> str:
    """Return what there is, by group, a line each."""
    lines = [f"usage: {PROGRAM} SUBCOMMAND ...", "", f"{PROGRAM} SUBCOMMAND --help says more; --version tells it."]
    width = max(map(len, SUBCOMMANDS))
    for group, subcommands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<{width}}  {sub.summary}" for name, sub in subcommands.items())]
    return "\n".join(lines)


def version() -> str:
    """Return the installed distribution's name and version, or say that it is not installed."""
    found = installed_version()
    return (
        f"{DISTRIBUTION} {found}" if found else f"{DISTRIBUTION}, a checkout that is not installed (pip install -e .)"
    )


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, SUBCOMMANDS, 1)
    cure = f"did you mean {PROGRAM} {nearest[0]}?" if nearest else f"see {PROGRAM} --help"
    return f"{PROGRAM} needs one of its subcommands; found {name!r}; {cure}"


def _run(name: str, subcommand: Subcommand) -> int:
    """Import and run a subcommand; a library that is not installed is one line with the cure."""
    try:
        status: int = importlib.import_module(subcommand.module).command()
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in OURS:
            raise
        cure = f"pip install '{DISTRIBUTION}[{subcommand.extra}]'"
        return _refuse(f"{PROGRAM} {name} needs the library {library}; found none; {cure}")
    return status


def _refuse(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return USAGE_STATUS


def command() -> int:
    """Run as a console script and return the exit status."""
    return main()


if __name__ == "__main__":
    sys.exit(command())
