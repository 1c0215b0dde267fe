"""The paper's Table 6 (speed and size), to stand beside what is measured here."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("table6.json").read_text(encoding="utf-8"), parse_int=float)
PAPER_NAMES = {"resnet18": "R18", "wide_resnet50_2": "WRN50", "mobilenet_v3_large": "MNetV3"}
NOTE = (
    "The paper's fps is that of encoder and decoders alone, without upsampling the map or copying it back, "
    "and was measured on another machine (GTX 1080; PaDiM and SPADE on an Intel i7). Frame-to-verdict here "
    "includes both. So compare ratios between rows, never the paper's fps with the fps measured here."
)


@dataclass(frozen=True)
class PaperRow:
    """One row of the table at one input size: frames per second and megabytes; None where the paper has no figure."""

    model: str
    input_side: int  # pixels
    fps: float | None
    size_mb: float | None


def nearest_side(input_size: tuple[int, int]) -> int:
    """Return the paper's input side (256 or 512 pixels) whose area is nearest, as a ratio, to `input_size` (H, W)."""
    side = math.sqrt(input_size[0] * input_size[1])
    return min((int(known) for known in TABLE["input_sizes"]), key=lambda known: abs(math.log(side / known)))


def rows_for(encoder: str, input_size: tuple[int, int]) -> tuple[PaperRow, ...]:
    """Return all rows with this encoder at the nearest input size; none if the paper did not use it."""
    name, side = PAPER_NAMES.get(encoder), nearest_side(input_size)
    column = TABLE["input_sizes"].index(side)
    rows = [row for row in TABLE["rows"] if name in row["model"].replace("-", " ").split()]
    sizes_mb = [row["size_mb"].get("both", row["size_mb"].get("mvtec")) for row in rows]
    return tuple(PaperRow(row["model"], side, row["fps"][column], mb) for row, mb in zip(rows, sizes_mb, strict=True))


def cflow_row(encoder: str, input_size: tuple[int, int]) -> PaperRow | None:
    """Return CFLOW-AD's own row with this encoder at the nearest input size; None if there is none."""
    rows = rows_for(encoder, input_size)
    return next((row for row in rows if row.model.startswith("CFLOW-AD")), None)
