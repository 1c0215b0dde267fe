"""What became of each class of a data set: a table to read and a JSON file that the next run reads back."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from runtime.common.files import write_json
from train.data.mvtec import PAPER_INPUT_SIDES
from train.data.stc import is_stc
from train.judging.paper_figures import average_rows, format_rows

SCHEMA = "cflow-edge/classes/1"
COLUMNS = {  # figures that are tabled; AUPRO-5 and AU-sPRO-5 go to 5 % of false pixels
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "aupro_5": "AUPRO-5",
    "seg_f1": "SegF1",
    "aupimo": "AUPIMO",
    "au_spro": "AU-sPRO-5",
}


@dataclass(frozen=True)
class ClassResult:
    """A class that was trained, or the `error` that stopped it.

    `input_size` is (height, width) of what is judged. `minutes` are those of the run that finished the training, None
    where it took place elsewhere. `figures` are the evaluation's, areas in [0, 1], empty until there is one.
    """

    name: str
    checkpoint_sha256: str = ""
    input_size: tuple[int, int] | None = None
    minutes: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def averages(results: Sequence[ClassResult]) -> dict[str, float]:
    """Return the mean of the minutes and of each tabled figure over the classes that have it and did not fail."""
    whole = [result for result in results if not result.error]
    columns = {"minutes": [result.minutes for result in whole]}
    columns |= {key: [result.figures.get(key) for result in whole] for key in COLUMNS}
    known = {key: [value for value in values if value is not None] for key, values in columns.items()}
    return {key: mean(values) for key, values in known.items() if values}


def format_table(results: Sequence[ClassResult]) -> str:
    """Return the results as lines of text, one a class and their average below; a figure that is not there is -."""
    keys = [key for key in COLUMNS if any(result.figures.get(key) is not None for result in results)]
    rows = [["class", "size", "minutes", *(COLUMNS[key] for key in keys)]]
    for result in results:
        size = "x".join(map(str, result.input_size)) if result.input_size else "-"
        figures = [_number(result.figures.get(key), 4) for key in keys]
        rows.append([result.name, *(["failed"] if result.error else [size, _number(result.minutes, 1), *figures])])
    average = averages(results)
    rows.append(["average", "", _number(average.get("minutes"), 1), *(_number(average.get(key), 4) for key in keys)])
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False))
    return "  ".join([row[0].ljust(widths[0]), *numbers]).rstrip()


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def paper_averages(root: Path, names: Sequence[str]) -> str:
    """Return the paper's averages over MVTec AD or STC as a table; nothing for other classes."""
    if is_stc(root):
        return format_rows(average_rows("stc"))
    return format_rows(average_rows("mvtec")) if set(names) & set(PAPER_INPUT_SIDES) else ""


def write_results(path: Path, results: Sequence[ClassResult]) -> None:
    """Write the results and their averages as JSON."""
    write_json(path, {"schema": SCHEMA, "classes": [asdict(r) for r in results], "average": averages(results)})


def read_results(path: Path) -> dict[str, ClassResult]:
    """Return an earlier run's results by class; none where there is no such file, or not of this schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            return {}
        results = [_result(values) for values in content["classes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {result.name: result for result in results}


def _result(values: dict[str, Any]) -> ClassResult:
    size = values["input_size"]  # JSON has no tuples
    return ClassResult(**{**values, "input_size": size and (int(size[0]), int(size[1]))})
