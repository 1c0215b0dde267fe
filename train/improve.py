"""From operators' marks to candidates beside an engine: `cflow improve --log inspections.db --engine cable.onnx`.

A threshold, a mask for places that are always wrong, and with --data and --checkpoint a renewed model; each with the
mistakes that it would have made. The engine in force stays as it is.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.argument_types import output_folder, size
from runtime.common.errors import run_command
from runtime.common.notices import say
from runtime.common.program import program_name
from runtime.detector import load
from runtime.engines.sidecar import Sidecar, read_sidecar
from runtime.improve.case import Case
from runtime.improve.evidence import read_evidence
from runtime.improve.marked import KnownPart
from runtime.improve.proposal import Nothing, Proposal, too_few
from runtime.improve.rejudge import judge_known, rejudge
from runtime.improve.shares import FEWEST
from runtime.improve.staging import Stage, staged

if TYPE_CHECKING:
    from train.data.dataset import Dataset
    from train.renewal.renew import Renewal

NOTHING_STATUS = 1
RENEWED = "renewed model"
NO_DATA = "it needs the good images and the checkpoint (--data, --checkpoint)"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `train.improve`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m train.improve"),
        description="Propose from operators' marks a threshold, a mask, a renewed model: each a candidate of its own.",
        epilog="Status 1: nothing is proposed. The engine, its sidecar and the log stay as they are.",
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, metavar="FILE.db", help="what runtime.infer --log writes, with marks")
    add("--engine", type=Path, required=True, help="the engine in force, .onnx or .plan")
    add("--out", type=output_folder, required=True, metavar="DIR", help="the folder that candidates are written into")
    add("--data", type=Path, help="the good images that it was trained on; labelled ones there count as known parts")
    add("--checkpoint", type=Path, metavar="FILE.pt", help="with --data: what the engine was built from, to renew it")
    add("--recipe", metavar="NAME", help="the recipe, where the engine has judged with several")
    camera = "of the camera's frame, where the line has --roi and no mask"
    add("--camera-size", type=size, metavar="WxH", help=camera)
    add(
        "--calibration-data",
        type=Path,
        metavar="DIR",
        help="good images for an FP16 or INT8 engine (default: those of --data)",
    )
    add("--json", action="store_true", help="a JSON object a line: the evidence, then what is proposed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 where nothing is proposed."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.checkpoint and not args.data:
        parser.error("--checkpoint needs --data")
    sidecar = read_sidecar(args.engine)
    evidence = read_evidence(args.log, sidecar.artefact_of(args.engine).sha256, args.recipe)
    dataset, renewal = _data(args, sidecar) if evidence.marks else (None, None)
    camera_size = None if args.camera_size is None else args.camera_size[::-1]
    with load(args.engine, threshold=evidence.threshold) as detector, staged(args.engine, args.out) as stage:
        frames, known = rejudge(detector, evidence), judge_known(detector, _known(dataset, sidecar))
        case = Case(args.engine, sidecar, evidence, frames, known, camera_size)
        print(json.dumps(case.fields()) if args.json else case.text(), flush=True)
        if not evidence.marks:
            say(f"nothing to propose: {too_few(0, FEWEST, 'marks of this engine')}")
            return NOTHING_STATUS
        proposed = 0
        for found in _proposals(case, renewal, stage):
            placed = _put(found, stage) if isinstance(found, Proposal) else found
            print(json.dumps(placed.fields()) if args.json else f"\n{placed.text()}", flush=True)
            proposed += isinstance(placed, Proposal)
    return 0 if proposed else NOTHING_STATUS


def _proposals(case: Case, renewal: "Renewal | None", stage: Stage) -> Iterator[Proposal | Nothing]:
    yield from case.proposals(stage)
    yield Nothing(RENEWED, NO_DATA) if renewal is None else renewal.propose(case.frames, case.known, stage)


def _put(found: Proposal, stage: Stage) -> Proposal:
    """Put a candidate's files in their places, and return it with these."""
    stage.put(found.files)
    return replace(found, files=tuple(map(stage.place, found.files)))


def _data(args: argparse.Namespace, sidecar: Sidecar) -> "tuple[Dataset | None, Renewal | None]":
    """Open what the options name. Raises `UserError` where the checkpoint is another engine's."""
    if args.data is None:
        return None, None
    from train.data.open import open_dataset

    dataset = open_dataset(args.data)
    if args.checkpoint is None:
        return dataset, None
    from train.renewal.renew import Renewal  # torch comes with it

    calibration = args.calibration_data or (dataset.train[0].parent if dataset.train else args.data)
    renewal = Renewal(args.engine, sidecar, args.checkpoint, dataset, calibration)
    renewal.check()
    return dataset, renewal


def _known(dataset: "Dataset | None", sidecar: Sidecar) -> list[KnownPart]:
    """Return the labelled images of a data set, with where their defects lie on the map."""
    if dataset is None:
        return []
    from export.images.labelled import read_masks

    places = read_masks(dataset.test, sidecar.input_size)
    return [
        KnownPart(image.path, image.anomalous, place if image.anomalous else None)
        for image, place in zip(dataset.test, places, strict=True)
    ]


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
