"""What Prometheus is told: requests, stages, queue, cache, fallbacks, model."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from recsys.api.batcher import Fallback
from recsys.api.cache import ResponseCache
from recsys.api.shared_metrics import Shared
from recsys.retrieved import Step
from recsys.schema import Source

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    """The server's metrics, in a registry of their own.

    Args:
        shared: the files through which several processes are added up, after
            ``recsys.api.shared_metrics.share``; None for one process, whose metrics are its own.
    """

    def __init__(self, shared: Sequence[str] | None = None) -> None:
        self.shared = shared
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "recsys_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "recsys_request_seconds",
            "From request to answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._lists = Counter(
            "recsys_lists", "Lists made, by who ordered them.", ["source"], registry=registry
        )
        self._fallbacks = Counter(
            "recsys_fallbacks", "Lists of a lesser stage.", ["reason"], registry=registry
        )
        self._steps = Histogram(
            "recsys_step_seconds",
            "A step of making a batch of lists.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._spent = Counter(
            "recsys_request_step_seconds",
            "Time that requests have spent in a step of their batch.",
            ["step"],
            registry=registry,
        )
        self._waits = Histogram(
            "recsys_queue_seconds", "Wait for a batch.", buckets=_SECONDS, registry=registry
        )
        self._batches = Histogram(
            "recsys_batch_size", "Requests in a batch.", buckets=_SIZES, registry=registry
        )
        self._depth = Gauge(
            "recsys_queue_depth",
            "Requests that wait for a batch.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._cache = Counter(
            "recsys_cache_requests", "Look-ups of the cache.", ["result"], registry=registry
        )
        self._cache_bytes = Gauge(
            "recsys_cache_bytes",
            "Memory of cached answers.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._events = Counter("recsys_events", "Events received.", ["result"], registry=registry)
        for result in ("accepted", "duplicate"):  # so that there is a rate from the first one on
            self._events.labels(result)
        self._store = Gauge(
            "recsys_store_up",
            "Workers that can read the event store.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._model = Gauge(
            "recsys_model_info",
            "For each model that is served, the number of workers that serve it.",
            ["version"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._version: str | None = None
        self._watched: list[tuple[Gauge, Callable[[], int]]] = []

    def watch(
        self, queue_depth: Callable[[], int], cache: ResponseCache, store_up: Callable[[], int]
    ) -> None:
        """Read these whenever the metrics are asked for."""
        self._watched = [
            (self._depth, queue_depth),
            (self._cache_bytes, lambda: cache.num_bytes),
            (self._store, store_up),
        ]

    def events(self, accepted: int, duplicates: int) -> None:
        """Events were stored."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("duplicate").inc(duplicates)

    def refresh(self) -> None:
        """Read what is watched now.

        With several processes, each calls this every second: the one that is asked for the metrics
        cannot read the others' queues, and writing them down at each request would slow that down.
        """
        for gauge, read in self._watched:
            gauge.set(read())

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """A batch starts, whose requests have waited this many seconds."""
        self._batches.observe(size)
        for seconds in waited:
            self._waits.observe(seconds)

    def step(self, name: Step, seconds: float, size: int) -> None:
        """A step of a batch of this size took this long."""
        self._steps.labels(name).observe(seconds)
        self._spent.labels(name).inc(seconds * size)

    def answered(self, source: Source, fallback: Fallback | None) -> None:
        """A list was made."""
        self._lists.labels(source).inc()
        if fallback is not None:
            self._fallbacks.labels(fallback).inc()

    def cached(self, hit: bool) -> None:
        """The cache was asked."""
        self._cache.labels("hit" if hit else "miss").inc()

    def serves(self, version: str) -> None:
        """From now on this model answers."""
        if self._version is not None:
            if self.shared is None:
                self._model.remove(self._version)
            else:
                self._model.labels(self._version).set(0)
        self._model.labels(version).set(1)
        self._version = version

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self.refresh()
        if self.shared is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        Shared(registry, self.shared)
        return generate_latest(registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
