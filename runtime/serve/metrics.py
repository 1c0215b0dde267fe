"""Metrics in the Prometheus text format, read from the counters at each scrape."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runtime.serve.history import BUCKETS_S
from runtime.serve.observed import Observed

PREFIX = "cflow"


class Metrics(Collector):
    """`text()` is what `/metrics` answers; `errors()` counts the page's own errors by kind."""

    def __init__(self, observed: Observed, errors: Callable[[], dict[str, int]]) -> None:
        self._observed = observed
        self._history = observed.history
        self._errors = errors
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing is promised before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family; the names end in their units, seconds where they are times."""
        yield _counter(
            "frames", "Frames judged.", ("source", "verdict"), [(k, v) for k, v in self._history.verdicts().items()]
        )
        yield _gauge(
            "threshold", "An image score above this is anomalous.", (), [((), self._observed.control.status().value)]
        )
        yield _gauge("frames_per_second", "Over the last seconds, all sources.", (), [((), self._history.fps())])
        age_s = self._history.age_s()
        if age_s is not None:
            yield _gauge("last_judgement_age_seconds", "Seconds since the last verdict.", (), [((), age_s)])
        last = {point[2]: point[3] for point in self._history.points_after(0) if point[3] is not None}
        yield _gauge("score", "The last image score.", ("source",), [((name,), score) for name, score in last.items()])
        yield self._stages()
        yield from self._of_sources()
        yield from self._of_sinks()
        yield from self._of_triggers()
        yield from self._of_checks()
        yield from self._of_shadow()
        yield from self._of_drift()
        yield _counter("page_errors", "Errors of this page.", ("kind",), [((k,), n) for k, n in self._errors().items()])

    def _stages(self) -> Metric:
        family = HistogramMetricFamily(f"{PREFIX}_stage_seconds", "Latency of a stage.", labels=["stage"])
        for stage, (counts, total_s) in self._history.histograms().items():
            bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
            buckets = list(zip(bounds, (float(n) for n in accumulate(counts)), strict=True))
            family.add_metric([stage], buckets, total_s)
        return family

    def _of_sources(self) -> Iterator[Metric]:
        sources = self._observed.sources()
        yield _gauge("source_up", "1 while it delivers.", ("source",), [((s.name,), float(s.up)) for s in sources])
        dropped = [((s.name,), s.dropped) for s in sources]
        yield _counter("source_dropped", "Frames that a newer one replaced.", ("source",), dropped)
        yield _counter(
            "source_reconnects", "Connections again.", ("source",), [((s.name,), s.reconnects) for s in sources]
        )

        incomplete = [((s.name,), s.incomplete) for s in sources]
        yield _counter("source_incomplete", "Frames that came with parts missing.", ("source",), incomplete)
        missing = [((s.name,), s.missing) for s in sources]
        yield _counter("source_missing", "Frames that the camera numbered and that never came.", ("source",), missing)

    def _of_sinks(self) -> Iterator[Metric]:
        sinks = self._observed.sinks()
        delivered = [((s.name,), s.delivered) for s in sinks]
        yield _counter("sink_delivered", "Judgements delivered.", ("sink",), delivered)
        yield _counter(
            "sink_lost", "Judgements that a slow sink lost.", ("sink",), [((s.name,), s.lost) for s in sinks]
        )
        failed = [((s.name,), s.failed) for s in sinks]
        yield _counter("sink_failed", "Judgements that a sink failed to deliver.", ("sink",), failed)

    def _of_triggers(self) -> Iterator[Metric]:
        if self._observed.triggers is None:
            return
        counts = self._observed.triggers()
        results = ("taken", "answered", "late", "refused", "lost", "unnamed", "unused")
        yield _counter("triggers", "Triggers.", ("result",), [((name,), getattr(counts, name)) for name in results])
        newest = {"0.5": counts.p50_ms, "0.99": counts.p99_ms}
        samples = [((quantile,), ms / 1e3) for quantile, ms in newest.items() if ms is not None]
        yield _gauge("answer_seconds", "From trigger to answer, of the newest.", ("quantile",), samples)

    def _of_checks(self) -> Iterator[Metric]:
        standings = self._observed.checks()
        if not standings:
            return
        passed = [((s.recipe,), float(not s.reason)) for s in standings]
        yield _gauge("check_valid", "1 while a check of reference parts lets it judge.", ("recipe",), passed)
        due = [((s.recipe,), s.due_s) for s in standings if s.due_s is not None]
        yield _gauge("check_due_seconds", "Seconds until the next check must have passed.", ("recipe",), due)

    def _of_shadow(self) -> Iterator[Metric]:
        if self._observed.shadow is None:
            return
        found = self._observed.shadow()
        counts = {k: v for k, v in found["counts"].items() if not k.endswith("_events")}
        samples = [((result,), count) for result, count in counts.items()]
        yield _counter("shadow_frames", "Frames by what the candidate said of them.", ("result",), samples)
        events = [(("running_only",), found["counts"]["running_events"])]
        events.append((("candidate_only",), found["counts"]["candidate_events"]))
        yield _counter("shadow_disagreements", "Parts on which the two disagree.", ("result",), events)
        yield _gauge("shadow_up", "1 while the candidate judges.", (), [((), float(not found["trouble"]))])

    def _of_drift(self) -> Iterator[Metric]:
        watch = self._observed.drift
        if watch is None:
            return
        alarms, states = watch.alarms(), watch.states()
        standing = {(alarm.source, alarm.recipe, one.number): one.sigmas for alarm in alarms for one in alarm.moved}
        count = {(state["source"], state["recipe"]): 0 for state in states}
        count |= {(alarm.source, alarm.recipe): 1 for alarm in alarms}
        yield _gauge("drift", "1 while a drift alarm stands.", ("source", "recipe"), count.items())
        moved = "By how many standard deviations of a minute's mean a number has moved, while a drift alarm stands."
        yield _gauge("drift_moved", moved, ("source", "recipe", "number"), standing.items())
        yield _counter("drift_alarms", "Drift alarms since the start.", (), [((), watch.found)])
        indices = {(one["source"], one["recipe"], number): i for one in states for number, i in one["indices"].items()}
        index = "Population stability index against training's good images; 0.25 is a large change."
        yield _gauge("drift_stability_index", index, ("source", "recipe", "number"), indices.items())


Samples = Iterable[tuple[Sequence[str], float]]


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
