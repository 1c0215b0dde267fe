"""The paper's accuracy (Tables 2 to 5), to stand beside what is measured here; all figures in percent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from export.model.encoders.spec import REFLECT
from runtime.common.text_table import align, percent
from train.data.mvtec import PAPER_INPUT_SIDES

TABLE_FILE = Path(__file__).with_name("paper_tables.json")
NOTES = {
    "Table 3": "CFLOW-AD in Table 3 is at the best input size of each class.",
    "Table 4": "The averages of SPADE's and PaDiM's AUPRO are the paper's own and do not follow from its per-class "
    "values.",
}


@dataclass(frozen=True)
class FigureRow:
    """One system's figures in percent, None where there is none.

    `source` is the paper's table or what was measured here, `setting` the encoder and what else is known.
    """

    source: str
    system: str
    setting: str
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    return tables


def find_class(name: str) -> str | None:
    """Return the MVTec AD class that a folder's name stands for (`screw`, `mvtec_screw`), None if it is none."""
    name = name.lower().removeprefix("mvtec_")
    return name if name in PAPER_INPUT_SIDES else None


def class_rows(class_name: str, encoder: str) -> list[FigureRow]:
    """Return a class's rows: those of `encoder` in Table 2 (by pixel only), and every system of Table 3.

    Raises `KeyError` for a name that is no class of MVTec AD.
    """
    plain = encoder.removesuffix(REFLECT)
    ablation = [row for row in _tables()["table2"] if row["encoder"] == plain]
    return [
        *(
            FigureRow("Table 2", "CFLOW-AD", _setting(row), pixel_auroc=row["pixel_auroc"][class_name])
            for row in ablation
        ),
        *(
            FigureRow("Table 3", row["model"], row["encoder"], **_of_class(row, class_name))
            for row in _tables()["table3"]
        ),
    ]


def _setting(row: dict[str, Any]) -> str:
    side = row["input_size"]
    flow = "" if row["flow"] == "conditional" else f", {row['flow']}"
    return f"{row['encoder']}, {side}x{side}, {row['taps']} taps, {row['coupling_blocks']} blocks{flow}"


def _of_class(row: dict[str, Any], class_name: str) -> dict[str, float]:
    return {key: row[key][class_name] for key in ("image_auroc", "pixel_auroc", "aupro") if key in row}


def average_rows(dataset: Literal["mvtec", "stc"] = "mvtec") -> list[FigureRow]:
    """Return the averages of every system: Table 4 over MVTec AD's classes, Table 5 over STC."""
    source = {"mvtec": "Table 4", "stc": "Table 5"}[dataset]
    rows = _tables()[source.lower().replace(" ", "")]
    return [
        FigureRow(source, row["model"], "average", row["image_auroc"], row["pixel_auroc"], row.get("aupro"))
        for row in rows
    ]


def format_rows(rows: Sequence[FigureRow]) -> str:
    """Return rows as an aligned table of text, with where the paper's figures are from and what to know of them."""
    heading = ["", "system", "setting", "image AUROC %", "pixel AUROC %", "AUPRO %"]
    cells = [
        [row.source, row.system, row.setting, percent(row.image_auroc), percent(row.pixel_auroc), percent(row.aupro)]
        for row in rows
    ]
    return "\n".join([align([heading, *cells], left=3), *notes(rows)])


def notes(rows: Sequence[FigureRow]) -> list[str]:
    """Return what a reader of `rows` should know: their source, and remarks on the tables among them."""
    shown = {row.source for row in rows}
    return [f"Tables: {_tables()['source']}.", *(note for table, note in NOTES.items() if table in shown)]
