"""What a candidate costs that judges the same frames beside."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.detector import Detector
from runtime.engines.remote.address import EngineAt
from runtime.overheads.timing import ratios, time_frames
from runtime.sinks.judgement import Judgement


def shadow_overhead(detector: Detector, engine: EngineAt, candidate: Path, frames: int, rounds: int) -> str:
    """Return the table: frames judged with no candidate beside, and with one that is offered each of them, in turn."""
    from runtime.recipes.book import Recipes
    from runtime.recipes.recipe import Recipe
    from runtime.shadow.beside import Shadow
    from runtime.shadow.candidate import Candidate

    rows: dict[str, list[tuple[float, float]]] = {"no candidate": [], "a candidate beside": []}
    recipes = Recipes([Recipe.plain(detector, engine)])
    with Shadow(Candidate.of_file(candidate), "", recipes, {}) as shadow:

        def beside_it(judgement: Judgement) -> None:  # frames of noise have no verdict, and would not be given to it
            shadow.offer(replace(judgement, result=replace(judgement.result, verdict="good")))

        offers: list[Callable[[Judgement], None]] = [lambda _: None, beside_it]
        time_frames(detector, frames, beside_it)  # warm-up
        for _ in range(rounds):
            for offer, values in zip(offers, rows.values(), strict=True):
                shadow.wait()  # what waits from before is not this one's
                values.append(time_frames(detector, frames, offer))
    plain, beside = ([ms for ms, _ in values] for values in rows.values())
    lines = [f"{'':<20}{'ms a frame':>12}{'best round':>12}   (medians of {rounds} rounds in turn)"]
    for name, ms in zip(rows, (plain, beside), strict=True):
        lines.append(f"{name:<20}{np.median(ms):>12.2f}{min(ms):>12.2f}")
    return "\n".join([*lines, ratios(beside, plain), shadow.text()])
