"""What real pages expose under /metrics, with everything that a line may have: one that has all of it there is not."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric, parser

from runtime.recipes.book import Standing
from runtime.triggers.orders import Orders
from tests.support.drifting import standing
from tests.support.recipes import opened
from tests.support.serve_rig import ADelivery, Rig, serving
from tests.support.shadow_rig import BAD, GOOD, engines, shadowing

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
Exposed = dict[str, set[str]]  # names of series, and the labels that some sample of each has


def everything(folder: Path) -> Exposed:
    """Return what a line exposes that has recipes, triggers, checks, a drift watch and a candidate in shadow."""
    found: Exposed = {}
    for family in _families(folder):
        for suffix in SUFFIXES.get(family.type, ("",)):
            name = family.name + suffix
            labels = {label for sample in family.samples if sample.name == name for label in sample.labels}
            found[name] = found.get(name, set()) | labels
    return found


def _families(folder: Path) -> Iterator[Metric]:
    (folder / "recipes").mkdir()
    with opened(folder / "recipes") as recipes, serving(folder, recipes=recipes, orders=Orders()) as rig:
        recipes.checks = lambda: [Standing("low", "", 600.5)]
        rig.deliveries.append(ADelivery())
        rig.judge(60)
        yield from _scraped(rig)
    with serving(folder, drift=standing()) as rig:
        yield from _scraped(rig)
    (folder / "shadow").mkdir()
    engines(folder / "shadow")
    with shadowing(folder / "shadow") as shadow:
        shadow.judge(GOOD, BAD)
        yield from _scraped(shadow.page)


def _scraped(rig: Rig) -> list[Metric]:
    answer = rig.ask("/metrics")
    assert answer.status == 200
    return list(parser.text_string_to_metric_families(answer.body.decode()))
