"""The time from a trigger to the JSON line that answers it."""

import threading
import time
from pathlib import Path

import numpy as np

from runtime.detector import Detector
from runtime.inspection import Inspection
from runtime.overheads.generated import Generated, from_memory
from runtime.overheads.timing import SESSION, WARM_UP
from runtime.sinks.delivery import Deliveries
from runtime.sinks.json_lines import LinesSink
from runtime.sinks.judgement import Judgement
from runtime.triggers.options import TriggerOptions
from runtime.triggers.orders import Orders
from runtime.triggers.trigger import Trigger


class _Noted(LinesSink):
    """Notes when each line was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[tuple[Judgement, float]] = []
        self._changed = threading.Condition()

    def write(self, judgement: Judgement) -> None:
        """Append one line."""
        super().write(judgement)
        with self._changed:
            self.written.append((judgement, time.monotonic()))
            self._changed.notify_all()

    def wait_for(self, lines: int) -> None:
        """Wait until so many were written."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.written) >= lines)


def trigger_overhead(detector: Detector, parts: int, folder: Path) -> str:
    """Return the table of `parts` triggers, in milliseconds from the trigger to its written line, and the execution."""
    orders, noted = Orders(TriggerOptions(deadline_s=60.0)), _Noted(folder / "frames.jsonl")
    source = Generated("memory", from_memory(parts + WARM_UP, []))
    with Deliveries([noted]) as deliveries, Inspection([source], detector, [deliveries], orders=orders) as inspection:
        judging = threading.Thread(target=inspection.run)
        judging.start()
        for number in range(1, parts + WARM_UP + 1):
            orders.take(Trigger("", time.monotonic(), "bench"))
            noted.wait_for(number)
        judging.join()
    counted = noted.written[WARM_UP:]
    whole = [1e3 * (written_s - j.trigger.asked_s) for j, written_s in counted if j.trigger is not None]
    execute = [sum(j.result.latency_ms.get(stage, 0.0) for stage in SESSION) for j, _ in counted]
    rows = {"trigger to written verdict": whole, "execution": execute, "difference": np.subtract(whole, execute)}
    lines = [f"{parts} parts, {detector.session.device}", f"{'milliseconds':<36}{'p50':>9}{'p99':>9}"]
    for name, values in rows.items():
        p50, p99 = np.percentile(values, (50, 99))
        lines.append(f"  {name:<34}{p50:9.3f}{p99:9.3f}")
    ratio = np.percentile(whole, 99) / np.percentile(execute, 99)
    return "\n".join([*lines, f"p99 of the trigger to its verdict is {ratio:.3f} times p99 of the execution"])
