"""Engines of several files, put in the place of each other as a build does, in processes that are killed meanwhile.

As a program: `python -m tests.support.engine_sets FOLDER FIRST_VERSION [KILLED_AT_REPLACE]` puts version after version
in place until it is killed; with a number it dies at that very replacement of a file.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import onnx

from export.staging import staged_engine
from runtime.common.files import sha256_of
from runtime.engines.sidecar import Artefact, Sidecar, Threshold, read_sidecar
from tests.support.tiny_engine import tiny_model, tiny_sidecar

SIZE = (16, 16)
TAPS = ("layer1", "layer2")
FILES = ("cable.unfused.onnx", "cable.onnx", "cable.fp16.onnx", "cable.plan")


def threshold_of(version: int) -> float:
    return 0.001 * version


def write_version(folder: Path, version: int) -> Sidecar:
    """Put version `version` of engine "cable" in place; a file's own doc string says which one it is."""
    out = folder / "cable.plan"
    with staged_engine(out) as staged:
        artefacts = []
        for name in FILES:
            path = staged.aside(folder / name)
            model = tiny_model(SIZE, float(len(TAPS)))
            model.doc_string = f"{name} of version {version}"
            onnx.save(model, path)
            kind = "plan" if name.endswith(".plan") else "onnx"
            artefacts.append(Artefact(kind, "fp16" if "fp16" in name else "fp32", sha256_of(path)))
        sidecar = tiny_sidecar(staged.aside(folder / "cable.onnx"), SIZE, TAPS)
        thresholds = {"good_quantile": Threshold(threshold_of(version), f"version {version}")}
        sidecar = replace(sidecar, thresholds=thresholds, artefacts=tuple(artefacts))
        return staged.put_in_place(lambda before: sidecar)


def versions_in(folder: Path) -> set[int]:
    """Return the versions of the files that stand. Fails where one is not described by the sidecar as what it is."""
    found = set()
    for name in FILES:
        path = folder / name
        version = int(onnx.load(path).doc_string.rpartition(" ")[2])
        sidecar = read_sidecar(path)
        sidecar.artefact_of(path)
        assert sidecar.threshold == Threshold(threshold_of(version), f"version {version}"), name
        found.add(version)
    return found


def _die_at(number: int) -> None:
    """End the process without a word at the `number`-th time that a file takes another's place."""
    real, calls = Path.replace, [0]

    def replace_or_die(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] == number:
            os._exit(9)
        return real(self, target)

    Path.replace = replace_or_die  # type: ignore[method-assign]


def main() -> None:
    folder, version = Path(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        _die_at(int(sys.argv[3]))
        write_version(folder, version)
        return
    print("ready", flush=True)
    while True:
        write_version(folder, version)
        version += 1


if __name__ == "__main__":
    main()
