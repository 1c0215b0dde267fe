"""Reference parts judged and held to what was recorded of them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.checks.gate import limits_of
from runtime.checks.reference import Recorded, ReferencePart, image_hash
from runtime.checks.showing import Show
from runtime.images.parts import joint
from runtime.recipes.recipe import Recipe
from runtime.recipes.several import judge
from runtime.records.checks import Check
from runtime.result import Result


def judged(recipe: Recipe, parts: Sequence[ReferencePart], show: Show) -> list[Result]:
    """Return what `recipe` says of each part, seen as the line sees it. Raises `UserError` as `show` and engines do."""
    results = []
    for part in parts:
        found = judge(recipe, 0, show(part), "", strict=True)
        results.append(joint(found) if recipe.several else found[0].result)
    return results


def wrongly(parts: Sequence[ReferencePart], results: Sequence[Result]) -> list[str]:
    """Return, in words, the parts that do not come out as they must."""
    return [
        f"{part.name} must come out {part.expected}, found {result.verdict}" + _why(result)
        for part, result in zip(parts, results, strict=True)
        if result.verdict != part.expected
    ]


def _why(result: Result) -> str:
    if result.reason:
        return f" ({result.reason})"
    return f" (score {result.image_score:.4f}, threshold {result.threshold:.4f})"


def check_of(
    recipe: Recipe,
    parts: Sequence[ReferencePart],
    results: Sequence[Result],
    recorded: Mapping[str, Recorded],
    tolerance: float,
    way: str,
    who: str,
) -> Check:
    """Return the check that these results are: each part as recorded, its score within `tolerance` of the record."""
    rows = [_row(part, result, recorded.get(part.name), tolerance) for part, result in zip(parts, results, strict=True)]
    shown = {part.name for part in parts}
    rows += [
        {"name": name, "expected": one.expected, "verdict": "none", "recorded": one.score, "score": None, "why": GONE}
        for name, one in recorded.items()
        if name not in shown
    ]
    passed = not any(row["why"] for row in rows)
    limits = limits_of(recipe)
    return Check(recipe.name, recipe.engine_sha256, limits, passed, tuple(rows), who, way, time.time())


GONE = "it was recorded, and is not there"


def _row(part: ReferencePart, result: Result, before: Recorded | None, tolerance: float) -> dict[str, Any]:
    row = {"name": part.name, "expected": part.expected, "verdict": result.verdict}
    recorded = None if before is None else before.score
    return {**row, "recorded": recorded, "score": result.score, "why": _fault(part, result, before, tolerance)}


def _fault(part: ReferencePart, result: Result, before: Recorded | None, tolerance: float) -> str:
    if before is None:
        return "it was not recorded; run --record"
    if before.expected != part.expected:
        return f"it was recorded as {before.expected}"
    if before.sha256 and before.sha256 != image_hash(part):
        return "its image is not the one that was recorded"
    if result.verdict != part.expected:
        return f"{result.verdict} instead of {part.expected}" + _why(result)
    if not abs(result.image_score - before.score) <= tolerance:
        return f"its score moved by {result.image_score - before.score:+.4f}, more than {tolerance:g}"
    return ""
