"""What Prometheus is told: requests, stages, queue, cache, fallbacks, model."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from recsys.api.batcher import Fallback
from recsys.api.cache import ResponseCache
from recsys.schema import Source

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
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
        self._stages = Histogram(
            "recsys_stage_seconds",
            "A stage of a batch.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._waits = Histogram(
            "recsys_queue_seconds", "Wait for a batch.", buckets=_SECONDS, registry=registry
        )
        self._batches = Histogram(
            "recsys_batch_size", "Requests in a batch.", buckets=_SIZES, registry=registry
        )
        self._depth = Gauge(
            "recsys_queue_depth", "Requests that wait for a batch.", registry=registry
        )
        self._cache = Counter(
            "recsys_cache_requests", "Look-ups of the cache.", ["result"], registry=registry
        )
        self._cache_bytes = Gauge(
            "recsys_cache_bytes", "Memory of cached answers.", registry=registry
        )
        self._model = Gauge(
            "recsys_model_info", "1 for the model that is served.", ["version"], registry=registry
        )

    def watch(self, queue_depth: Callable[[], int], cache: ResponseCache) -> None:
        """Read these whenever the metrics are asked for."""
        self._depth.set_function(queue_depth)
        self._cache_bytes.set_function(lambda: cache.num_bytes)

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """A batch starts, whose requests have waited this many seconds."""
        self._batches.observe(size)
        for seconds in waited:
            self._waits.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a batch took this long."""
        self._stages.labels(name).observe(seconds)

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
        self._model.clear()
        self._model.labels(version).set(1)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
