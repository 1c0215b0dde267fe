"""What a process held over a long run, and whether that is what a box that nobody watches needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.common.errors import UserError

GROWTH_LIMIT = 1.0  # per cent of its own memory, after the warm-up
TAIL_LIMIT = 1.5  # p99 of the execution over its p50
WARM_UP = 0.25  # of the time: libraries allocate, files reach their size, the page its 3,000 frames of history
SAMPLES = 600  # of what is held over the whole time


class Held(NamedTuple):
    """What the process holds at a moment."""

    memory: int  # bytes of its own, `own_bytes`
    handles: int
    threads: int


@dataclass(frozen=True)
class SoakResult:
    """What a soak came to, before and after: over the first and last tenth of the samples that follow the warm-up.

    Memory in bytes, handles and threads are the least of them: what waits in a queue or is opened for a moment does not
    count, what is never given back does. `undelivered` counts by sink, beside the JSON lines.
    """

    minutes: float
    frames_read: int
    frames_judged: int
    lines_written: int
    memory_before: int
    memory_after: int
    execute_p50_ms: float
    execute_p99_ms: float
    fps: float
    device: str
    handles_before: int = 0
    handles_after: int = 0
    threads_before: int = 0
    threads_after: int = 0
    delivered: dict[str, int] = field(default_factory=dict)
    undelivered: dict[str, int] = field(default_factory=dict)

    def checks(self) -> list[tuple[str, bool]]:
        """Return what was held against a limit, in words, and whether it held."""
        lost, tail = self.frames_read - self.lines_written, self.execute_p99_ms / self.execute_p50_ms
        growth = 100 * (self.memory_after / self.memory_before - 1)
        memory = f"{self.memory_before / 1e6:.1f} MB after warm-up, {self.memory_after / 1e6:.1f} MB at the end"
        times = f"p50 {self.execute_p50_ms:.2f} ms, p99 {self.execute_p99_ms:.2f} ms"
        held = f"{self.handles_before} handles and {self.threads_before} threads"
        then = f"{self.handles_after} and {self.threads_after}"
        more = self.handles_after > self.handles_before or self.threads_after > self.threads_before
        return [
            (f"lost results: {lost} of {self.frames_read}", lost == 0),
            *(
                (f"{name}: {self.delivered[name]} delivered, {count} not", not count)
                for name, count in self.undelivered.items()
            ),
            (f"own memory: {memory}, {growth:+.2f} % (limit {GROWTH_LIMIT:g} %)", growth <= GROWTH_LIMIT),
            (f"{held} after warm-up, {then} at the end", not more),
            (f"execution: {times}, ratio {tail:.2f} (limit {TAIL_LIMIT})", tail <= TAIL_LIMIT),
        ]

    def text(self) -> str:
        """Return the outcome as lines for a person."""
        head = f"{self.frames_judged} frames in {self.minutes:.1f} minutes, {self.fps:.1f} per second on {self.device}"
        return "\n".join([head, *(f"  {'held' if held else 'NOT HELD'}  {words}" for words, held in self.checks())])


def before_and_after(samples: Mapping[int, Held]) -> tuple[Held, Held]:
    """Return what was held in the first and in the last tenth of the samples after the warm-up."""
    counted = [samples[place] for place in sorted(samples) if place >= WARM_UP * SAMPLES]
    if not counted:
        raise UserError("a soak must judge frames after its warm-up", "none", "give it more --minutes")
    tenth = max(1, len(counted) // 10)
    return _typical(counted[:tenth]), _typical(counted[-tenth:])


def _typical(samples: Sequence[Held]) -> Held:
    memory, handles, threads = zip(*samples, strict=True)
    return Held(min(memory), min(handles), min(threads))
