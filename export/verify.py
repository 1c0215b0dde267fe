"""One detector in all its forms, side by side: `python -m export.verify cable.pt [--data DATASET]`.

The checkpoint in torch, the unfused, fused, FP16 and INT8 ONNX that stand beside it and, where this machine can run
it, the plan: each file's size, how far its answers lie from those of the first row, and the AUROC where labelled images
are given. Exit status 1 if a form is not what it must be: FP32 the same but for rounding, the others within budget.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.calibration_data import DEFAULT_FOLDER, read_calibration_data
from export.images.parity_images import Images, read_good, read_labelled
from export.precisions.answers import Answers, batches
from export.precisions.detector_forms import DetectorForm, find_forms
from export.precisions.parity import BUDGETS, Parity, areas, compare_answers
from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of, write_json
from runtime.common.program import program_name
from runtime.common.side_by_side import side_by_side
from runtime.common.text_table import align
from runtime.images.preprocess import ReadOptions
from runtime.report import paper_table
from runtime.report.accuracy import SCHEMA

# Of FP32 forms. Their score is a mean over positions, and rounding of a float32 network, which trained flows amplify on
# what they never saw, reaches the fifth digit at single positions; a wrong rewrite moves the first.
EXACT = 1e-3
GOOD_IMAGES = 32  # of a folder without labels
HEADER = (
    "form",
    "file",
    "MB",
    "% of paper's",
    "map median",
    "map largest",
    "score median",
    "score p95",
    "score largest",
    "verdicts changed",
    "image AUROC",
    "pixel AUROC",
)


@dataclass(frozen=True, eq=False)
class FormRow:
    """What became of one form: its answers, how far they lie from the reference, or why there are none."""

    contender: DetectorForm
    answers: Answers | None = None
    parity: Parity | None = None
    unable: str = ""

    def fault(self, telling: bool = True) -> str:
        """Return what is wrong with it, empty if nothing is; `telling` images are of the kind that it was made for."""
        if self.parity is None:
            return ""
        precision = self.contender.precision
        if precision == "fp32":
            worst = max(self.parity.anomaly_map_median, self.parity.image_score_max)
            return "" if worst <= EXACT else f"differs by {worst:.1e} (must be below {EXACT:g})"
        if not telling:  # on others scores are saturated and have no spread to hold a change against
            return ""
        excess = BUDGETS[precision].excess(self.parity)
        return f"costs {excess}" if excess else ""


def verify(contenders: Sequence[DetectorForm], images: Images) -> list[FormRow]:
    """Judge `images` with every form of a detector; the first is the reference that the others are compared with.

    Raises `UserError` where the first cannot be run.
    """
    rows: list[FormRow] = []
    reference: Answers | None = None
    for contender in contenders:
        try:
            answers = _answers(contender, images)
        except UserError as error:
            if reference is None:
                raise
            rows.append(FormRow(contender, unable=str(error)))
            continue
        if reference is None:
            reference = answers
            rows.append(FormRow(contender, answers))
        else:
            rows.append(FormRow(contender, answers, compare_answers(reference, answers, images, contender.threshold)))
    return rows


def _answers(contender: DetectorForm, images: Images) -> Answers:
    judge, waiting = contender.open(), batches(images, contender.batch)
    parts = side_by_side(judge, waiting) if contender.side_by_side else map(judge, waiting)
    maps, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Answers(maps, scores)


def table(rows: Sequence[FormRow], images: Images) -> str:
    """Return the rows as a table for a person, and below it what could not be run."""
    kind = "labelled" if images.labelled else "good"
    lines = [f"{len(images)} {kind} images, against {rows[0].contender.form} ({rows[0].contender.path.name}):"]
    lines.append(align([HEADER, *(_cells(row, images) for row in rows)], left=2))
    lines.append("differences in score units; paper's size: its Table 6")
    lines += [f"{row.contender.path.name} could not run here: {row.unable}" for row in rows if row.unable]
    return "\n".join(lines)


def to_json(rows: Sequence[FormRow], images: Images, data: str) -> dict[str, Any]:
    """Return what each file's answers are worth, for `runtime.report --accuracy`."""
    found = [(row.contender, areas(row.answers, images)) for row in rows if row.answers is not None]
    return {
        "schema": SCHEMA,
        "data": data,
        "images": len(images),
        "rows": [
            {
                "file": contender.path.name,
                "form": contender.form,
                "precision": contender.precision,
                "sha256": sha256_of(contender.path),
                "image_auroc": None if area is None else area.image,
                "pixel_auroc": None if area is None else area.pixel,
            }
            for contender, area in found
        ],
    }


def _cells(row: FormRow, images: Images) -> list[str]:
    contender, parity = row.contender, row.parity
    paper = paper_table.cflow_row(contender.encoder, contender.input_size)
    share = f"{100 * contender.size_mb / paper.size_mb:.0f}" if paper and paper.size_mb else "-"
    cells = [contender.form, contender.path.name, f"{contender.size_mb:.1f}", share]
    if parity is None:
        cells += ["-"] * 6
    else:
        figures = (
            parity.anomaly_map_median,
            parity.anomaly_map_max,
            parity.image_score_median,
            parity.image_score_p95,
            parity.image_score_max,
        )
        cells += [*(f"{value:.1e}" for value in figures), f"{parity.verdicts_changed}"]
    found = areas(row.answers, images) if row.answers else None
    values = (None, None) if found is None else (found.image, found.pixel)
    return cells + ["-" if value is None else f"{100 * value:.2f}" for value in values]


def _images(options: argparse.Namespace, model: DetectorForm) -> tuple[Images, bool]:
    """Return the images to compare on, and whether they are of the kind that the model was made for."""
    read = ReadOptions(model.white)
    if options.data is None:
        data = read_calibration_data(options.images)
        return read_good(data, model.input_size, GOOD_IMAGES, read), not data.stands_in_for(model.data_origin)
    root = options.data / options.class_name if options.class_name else options.data
    return read_labelled(root, model.input_size, read), True


def _faults(rows: Sequence[FormRow], telling: bool) -> Iterator[str]:
    for row in rows:
        if fault := row.fault(telling):
            yield f"{row.contender.path.name} ({row.contender.form}) {fault}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit status 1 if a form is not what it must be."""
    parser = argparse.ArgumentParser(prog=program_name("python -m export.verify"), description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".pt, .onnx or .plan; what stands beside it is found")
    parser.add_argument("--data", type=Path, metavar="DATASET", help="labelled images, a folder or a list, for AUROC")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="the class, where DATASET holds several")
    parser.add_argument(
        "--images", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="good images, without --data (%(default)s)"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="also write each file's AUROC here, for runtime.report"
    )
    options = parser.parse_args(argv)
    if options.class_name and options.data is None:
        raise UserError("--class needs --data", "none", "name the folder that holds the classes")
    contenders = find_forms(options.models)
    images, telling = _images(options, contenders[0])
    rows = verify(contenders, images)
    print(table(rows, images))
    if options.json:
        write_json(options.json, to_json(rows, images, (options.data or options.images).resolve().name))
    if not telling:
        print(f"{options.images} holds the generated stand-in images: precisions are not held to a budget on them")
    faults = list(_faults(rows, telling))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
