"""An inspection with every sink on, for long: nothing lost, and nothing that grows.

As a program: `python -m tests.reliability.soak --minutes 60 --fps 5 --out FILE.json`.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.reliability.result import Result, Scale
from tests.reliability.surroundings import Webhook, broker, free_port, viewer
from tests.support.paths import ROOT
from tests.support.tiny_engine import write_tiny_engine

SIZE = (120, 160)
THRESHOLD = 2.85  # of 3: the scratch of every tenth frame is above it, the texture below
SHORT_FPS = 8.0


def soak(minutes: float, fps: float) -> dict[str, Any]:
    """Run `runtime.soak` with all sinks for `minutes` and return its figures, with how the page answered."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        webhook, mqtt = stack.enter_context(Webhook()), stack.enter_context(broker(folder))
        port = free_port()
        engine = write_tiny_engine(folder, size=SIZE, threshold=THRESHOLD)
        command = [
            *(sys.executable, "-m", "runtime.soak", "--engine", engine, "--threads", 1),
            *("--minutes", minutes, "--fps", fps, "--out", folder / "out", "--output", folder / "folder"),
            *("--log", folder / "inspections.db", "--log-cap", "16MB"),
            *("--json-file", folder / "lines.jsonl", "--video", folder / "line.mp4", "--events", folder / "events"),
            *(
                "--event-before",
                2,
                "--event-after",
                2,
                "--disk-cap",  # reached within the warm-up: what is known of files that may be removed is memory, too
                "10MB",
                "--webhook",
                webhook.url,
                "--webhook-all",
                "--serve",
                port,
            ),
            *(("--mqtt", mqtt[0]) if mqtt else ()),
        ]
        statuses = stack.enter_context(viewer(port))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if run.returncode not in (0, 1):
            raise AssertionError(f"runtime.soak ended with {run.returncode}: {run.stderr.strip()[-500:]}")
        figures: dict[str, Any] = json.loads((folder / "out" / "soak.json").read_text(encoding="utf-8"))
        return {
            **figures,
            "posted": len({line["frame"] for line in webhook.got}),
            "page_answers": len(statuses),
            "page_errors": sum(status >= 500 for status in statuses),
            "events": sum(1 for path in (folder / "events").iterdir() if path.is_dir()),
            "said": run.stdout,
        }


def result_of(figures: dict[str, Any], minutes: float) -> Result:
    """Return the row: a frame that a sink has not, a handle or a thread more at the end is wrong."""
    lost = figures["frames_read"] - figures["lines_written"] + sum(figures["undelivered"].values())
    more = sum(max(0, figures[f"{what}_after"] - figures[f"{what}_before"]) for what in ("handles", "threads"))
    growth = 100 * (figures["memory_after"] / figures["memory_before"] - 1)
    details = (
        f"{len(figures['delivered']) + 2} sinks, memory {growth:+.2f} %, handles {figures['handles_before']} -> "
        f"{figures['handles_after']}, threads {figures['threads_before']} -> {figures['threads_after']}"
    )
    return Result("soak", f"{minutes:g} minutes with every sink on", figures["frames_read"], lost + more, details)


def run(scale: Scale) -> list[Result]:
    """Run it for the scale's minutes."""
    return [result_of(soak(scale.soak_minutes, SHORT_FPS), scale.soak_minutes)]


def main() -> None:
    """Run it by itself and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    figures = soak(options.minutes, options.fps)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(result_of(figures, options.minutes))


if __name__ == "__main__":
    main()
