"""Judgements into the inspection log (`runtime.records`), many in one transaction."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from runtime.common.closing import Closing
from runtime.common.files import printable
from runtime.records.log import Log
from runtime.sinks.json_lines import as_json
from runtime.sinks.judgement import Judgement, Sink
from runtime.sinks.queueing import Queueing


class LogSink(Closing):
    """Writes each judgement as a row of `log`, which it closes. What counts as delivered is on the disk."""

    queueing = Queueing(capacity=4096, max_bytes=256 << 20, keep="oldest", pictures=False, batch=256, gather_s=0.25)

    def __init__(self, log: Log) -> None:
        self.name = str(log.path)
        self.log = log

    def write(self, judgement: Judgement) -> None:
        """Write one row; raises as `write_batch`."""
        self.write_batch([judgement])

    def write_batch(self, judgements: Sequence[Judgement]) -> None:
        """Write all of them or none. Raises `OSError` or `UserError` where the file cannot be written."""
        self.log.append([row_of(judgement) for judgement in judgements])

    def close(self) -> None:
        """Close the log; a second call does nothing."""
        self.log.close()


def log_among(sinks: Iterable[Sink]) -> Log | None:
    """Return the log that one of `sinks` writes; None where none does."""
    return next((sink.log for sink in sinks if isinstance(sink, LogSink)), None)


def row_of(judgement: Judgement) -> tuple[Any, ...]:
    """Return the values of `runtime.records.schema.INSPECTION_COLUMNS`."""
    line, frame, trigger = as_json(judgement), judgement.frame, judgement.trigger
    values = (
        judgement.run,
        None if trigger is None else trigger.part,
        judgement.recipe,
        judgement.source,
        frame.name,
        frame.index,
        frame.captured_s,
        frame.camera_s,
        None if trigger is None else trigger.origin,
        judgement.asked_s,
        line["age_ms"],
        line.get("answer_ms"),
        int(judgement.late),
        int(judgement.answers),
        judgement.decision,
        line["verdict"],
        line["score"],
        line["threshold"],
        line.get("reason", ""),
        json.dumps(line["boxes"]),
        json.dumps(line["latency_ms"]),
        json.dumps(line["parts"]) if "parts" in line else "",
    )
    return tuple(printable(value) if isinstance(value, str) else value for value in values)
