"""The frames that an inspection log's line kept, judged again by the mask that the line had."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.archive.listing import list_archive
from runtime.archive.run import judge_shard
from runtime.common.errors import UserError
from runtime.infer import main as infer
from runtime.records.log import Log
from runtime.records.marks import FALSE_ALARM, pictures_of
from runtime.records.read import Query, judgements
from tests.support.archives import rows_of, run_of
from tests.support.marked_log import MarkedLog, open_tiny, with_spots


def _line(tmp_path: Path, engine: Path, *more: str) -> Path:
    """Run a line over pictures, with events and a log; return the log."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        spots = [(20, 10)] if number % 2 else []
        Image.fromarray(with_spots((20, 40), *spots, size=(40, 60), level=250)).save(pictures / f"{number}.png")
    log = tmp_path / "inspections.db"
    words = ["--engine", str(engine), "--source", str(pictures), "--log", str(log), "--threads", "1"]
    words += [
        "--events",
        str(tmp_path / "events"),
        "--event-before",
        "0",
        "--event-after",
        "0",
        "--backend",
        "onnxruntime",
    ]
    infer([*words, *more])
    return log


def _mask(tmp_path: Path) -> Path:
    mask = np.full((40, 60), 255, np.uint8)
    mask[:, 32:] = 0  # where every frame has a spot
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_the_frames_of_events_are_judged_by_the_lines_mask(engine: Path, tmp_path: Path):
    log = _line(tmp_path, engine, "--mask", str(_mask(tmp_path)), "--flip", "h")
    rows = rows_of(judge_shard(run_of(log, engine, tmp_path / "scores")).file)
    known = {f"{record['id']:012d}/{record['name']}": record for record in judgements(log, Query())}
    assert set(rows) == {name for name, record in known.items() if record["verdict"] == "anomalous"}
    assert len(rows) == 3  # those with a second spot: the first is under the mask
    for name, row in rows.items():
        assert row["verdict"] == "anomalous"
        # the event's frame is a JPEG of quality 95, whose grey levels move by a few of 255; the map is 3 grey / 255
        assert row["score"] == pytest.approx(known[name]["score"], abs=3 * 8 / 255)
    (tmp_path / "mask.png").unlink()
    outcome = judge_shard(run_of(log, engine, tmp_path / "again"))
    assert outcome.errors == 3 and "the mask that" in next(iter(rows_of(outcome.file).values()))["error"]


def test_a_marks_frame_gives_the_very_score(tmp_path: Path):
    engine, detector = open_tiny(tmp_path)
    with detector, Log(tmp_path / "i.db") as log:
        marked = MarkedLog(tmp_path / "i.db", log)
        marked.begin_as(engine, detector, "--camera", "0")
        marked.source = "camera:0"
        shown = with_spots((8, 8), level=230)
        number = marked.judge(detector, shown, FALSE_ALARM)
        marked.judge(detector, with_spots())  # of which no frame was kept
        score = detector(shown).image_score
    [item] = list_archive(str(tmp_path / "i.db"))
    assert item.place == str(pictures_of(tmp_path / "i.db") / f"{number:09d}.png")
    [row] = rows_of(judge_shard(run_of(tmp_path / "i.db", engine, tmp_path / "scores")).file).values()
    assert (row["score"], row["verdict"]) == (score, "anomalous")


def test_a_log_without_frames_and_what_is_none(engine: Path, tmp_path: Path):
    with Log(tmp_path / "i.db") as log:
        marked = MarkedLog(tmp_path / "i.db", log)
        marked.begin()
        marked.add(0.5)
    with pytest.raises(UserError, match="found no frame that was kept; events and marks keep frames"):
        list_archive(str(tmp_path / "i.db"))
    (tmp_path / "other.db").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"other\.db"):
        list_archive(str(tmp_path / "other.db"))
