"""Metrics in the Prometheus text format, read from the counters at each scrape."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from runtime.serve.history import BUCKETS_S
from runtime.serve.observed import Observed

CONTENT_TYPE = CONTENT_TYPE_LATEST
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
        results = ("taken", "answered", "late", "refused", "lost")
        yield _counter("triggers", "Triggers.", ("result",), [((name,), getattr(counts, name)) for name in results])
        newest = {"0.5": counts.p50_ms, "0.99": counts.p99_ms}
        samples = [((quantile,), ms / 1e3) for quantile, ms in newest.items() if ms is not None]
        yield _gauge("answer_seconds", "From trigger to answer, of the newest.", ("quantile",), samples)


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
