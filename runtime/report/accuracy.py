"""What the files' answers are worth: read from `export.verify --json`, to stand beside their latency."""

import json
from pathlib import Path

from runtime.common.errors import UserError
from runtime.report.schema import Accuracy, parse

SCHEMA = "cflow-edge/verify/1"


def read_accuracy(path: Path) -> list[Accuracy]:
    """Return the AUROC of every file in a JSON of `export.verify`. Raises `UserError` for any other file."""
    cure = "make it with: python -m export.verify MODEL --data DATASET --json FILE"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema {value['schema']}")
        of_all = {"images": value["images"], "data": value["data"]}
        return [parse(Accuracy, {**of_all, **row, "model_sha256": row["sha256"]}) for row in value["rows"]]
    except OSError as error:
        raise UserError(f"{path} must be a file of export.verify", str(error.strerror), cure) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must be a file of export.verify ({SCHEMA})", repr(error), cure) from None
