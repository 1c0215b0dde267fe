"""What log, page, drift watch and a candidate in shadow cost together."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.overheads.drift import FPS
from runtime.overheads.timing import ratios, time_frames
from runtime.records.log import Log
from runtime.sinks.delivery import Deliveries
from runtime.sinks.inspection_log import LogSink
from runtime.sinks.judgement import Judgement

CASES = ("nothing beside", "all of it on")


def everything_overhead(
    detector: Detector, engine: EngineAt, candidate: Path, frames: int, rounds: int, folder: Path
) -> str:
    """Return the table: frames of a camera judged with nothing beside, and with all of it on, in turn.

    They come `FPS` a second, so that what works beside has the time between them. On are an inspection log, the page
    with nobody looking, the drift watch, and `candidate` in shadow.
    """
    rows: dict[str, list[float]] = {name: [] for name in CASES}
    with ExitStack() as stack:
        offer, settle = _everything(detector, engine, candidate, folder, stack)
        offers: list[Callable[[Judgement], None]] = [lambda _: None, offer]
        time_frames(detector, frames, offer, FPS)  # warm-up
        for _ in range(rounds):
            for of_case, values in zip(offers, rows.values(), strict=True):
                settle()  # what waits from before is not this one's
                values.append(time_frames(detector, frames, of_case, FPS)[0])
    lines = [
        f"{'':<20}{'ms a frame':>12}{'best round':>12}   (medians of {rounds} rounds in turn, {FPS} frames a second)"
    ]
    for name, ms in rows.items():
        lines.append(f"{name:<20}{np.median(ms):>12.2f}{min(ms):>12.2f}")
    return "\n".join([*lines, ratios(rows[CASES[1]], rows[CASES[0]])])


def _everything(
    detector: Detector, engine: EngineAt, candidate: Path, folder: Path, stack: ExitStack
) -> tuple[Callable[[Judgement], None], Callable[[], None]]:
    """Return what is offered each judgement, and what waits until all of it has been worked off."""
    from runtime.drift.watch import DriftWatch
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe
    from runtime.serve.address import Address
    from runtime.serve.server import ServeOptions, Server
    from runtime.serve.status import SourceStatus
    from runtime.shadow.beside import Shadow
    from runtime.shadow.candidate import Candidate

    recipes = Recipes([Recipe.plain(detector, engine)])
    log = stack.enter_context(Deliveries([LogSink(Log(folder / "inspections.db"))]))
    sources = [SourceStatus("memory", True)]
    page = stack.enter_context(Server(ServeOptions(Address("127.0.0.1", 0)), recipes, lambda: sources))
    drift = stack.enter_context(DriftWatch({"memory"}, recipes))
    shadow = stack.enter_context(Shadow(Candidate.of_file(candidate), "", recipes, {}, live=["memory"]))

    def offer(judgement: Judgement) -> None:  # frames of noise have no verdict, and would not be given to all of it
        judged = replace(
            judgement,
            result=replace(judgement.result, verdict="good"),
            engine_sha256=detector.hashes.engine,
        )
        for part in (log, page, drift, shadow):
            part.offer(judged)

    def settle() -> None:
        shadow.wait()
        drift.settle()

    return offer, settle
