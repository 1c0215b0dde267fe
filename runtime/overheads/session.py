"""What a frame costs around the session, by stage, on the way of `runtime.infer`."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from timeit import repeat
from types import SimpleNamespace

import numpy as np

from runtime.common.summary import Summary
from runtime.detector import Detector
from runtime.images.regions import regions_above
from runtime.inspection import Inspection
from runtime.overheads.generated import HEIGHT, WIDTH, Generated, from_memory
from runtime.overheads.timing import SESSION, WARM_UP
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import JsonLines, LinesSink, as_json, encode
from runtime.sinks.judgement import Judgement
from runtime.sources.frame import Source


def judge_all(source: Source, detector: Detector, lines: Path, also: Callable[[Judgement], None]) -> Summary:
    """Judge every frame of `source` as `runtime.infer` does, into JSON lines and `also`."""
    with (
        Deliveries([LinesSink(lines)], patience_s=30.0) as deliveries,  # a file's frames wait for a slow disk
        Inspection([source], detector, [deliveries, SimpleNamespace(offer=also)]) as inspection,
    ):
        inspection.run()
    return inspection.summary


def measure(detector: Detector, frames: int, folder: Path) -> dict[str, list[float]]:
    """Return every frame's milliseconds by stage; "overhead" is all but the session, the line's parts are last."""
    convert_ms, last = list[float](), list[Judgement]()
    noted: list[tuple[float, dict[str, float]]] = []

    def note(judgement: Judgement) -> None:
        noted.append((time.perf_counter(), judgement.result.latency_ms))
        last[:] = [judgement]

    source = Generated("memory", from_memory(frames + WARM_UP + 1, convert_ms))
    judge_all(source, detector, folder / "frames.jsonl", note)
    whole_ms = 1e3 * np.diff([ended_s for ended_s, _ in noted])[WARM_UP:]
    counted = [stages for _, stages in noted[WARM_UP + 1 :]]
    session_ms = [sum(stages.get(stage, 0.0) for stage in SESSION) for stages in counted]
    return {
        "convert (capture's thread)": convert_ms[WARM_UP + 1 :],
        **{stage: [stages[stage] for stages in counted] for stage in counted[0] if stage != "total"},
        "overhead": list(whole_ms - session_ms),
        **_line_parts(last[0], frames, folder),
    }


def _line_parts(judgement: Judgement, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Time the parts of one judgement's JSON line, without anything beside it."""
    result, size, line = judgement.result, judgement.frame.image.shape[:2], as_json(judgement)
    empty = replace(judgement, result=replace(result, anomaly_map=np.zeros((1, 1), np.float32), map_threshold=1.0))
    with closing(JsonLines(folder / "parts.jsonl")) as lines:
        parts: dict[str, Callable[[], object]] = {
            "boxes (sink's thread)": lambda: regions_above(result.anomaly_map, result.map_threshold, size),
            "line without boxes (sink's thread)": lambda: encode(as_json(empty)),
            "write (sink's thread)": lambda: lines.append(line),
        }
        return {name: (1e3 * np.array(repeat(part, number=1, repeat=rounds))).tolist() for name, part in parts.items()}


def text(stages: dict[str, list[float]], device: str) -> str:
    """Return the table for a person: the median and the lowest decile by stage."""
    lines = [f"frames of {WIDTH}x{HEIGHT}, {device}", f"{'milliseconds':<36}{'median':>9}{'p10':>9}"]
    for stage, values in stages.items():
        median, low = np.percentile(values, (50, 10))
        lines.append(f"  {stage:<34}{median:9.3f}{low:9.3f}")
    return "\n".join(lines)
