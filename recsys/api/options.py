"""How the server is to behave, as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from recsys.errors import InputError
from recsys.exploration import ReservedPlaces


@dataclass(frozen=True)
class ServingOptions:
    """deadline_ms: for an answer, unless a request says otherwise.
    max_batch: requests run at once. max_queue: requests that may wait for it; more are refused.
    cache_mb: memory for answers; 0 for no cache.
    threads: batches run at the same time.
    workers: processes that answer.
    rate_limit: of one client, such as ``20/second``; None for none.
    keys_for_reads: whether recommendations, too, are for holders of an API key alone.
    allowed_hosts: names besides localhost by which this machine is asked where no keys are set.
    preload_text_model: whether it is loaded before the first text comes.
    text_model: where it lies, see ``encoder_from_config``.
    store_url: of the event store, or ``auto`` for a file beside the bundle; None for no store.
    store_timeout_s: that it may take for a call. retention_days: after which events are deleted.
    live_events: of all users together, kept in memory.
    rules: of all lists, see ``Rules.from_config``; a request may change them.
    exploration_epsilon, exploration_slots: see ``Exploration``; an epsilon of 0 for none.
    exploration_places: see ``ReservedPlaces``. exploration_days: that an item counts as new.
    tracing_endpoint: of an OTLP/HTTP receiver of traces; None for no traces.
    tracing_sample_rate: share of requests that are traced. tracing_service_name: of the traces.

    Raises:
        InputError: when one is out of range, or when the packages that tracing needs are missing.
    """

    deadline_ms: float = 1000.0
    max_batch: int = 32
    max_queue: int = 512
    cache_mb: float = 64.0
    threads: int = 1
    workers: int = 1
    rate_limit: str | None = None
    keys_for_reads: bool = False
    allowed_hosts: Sequence[str] = ()
    preload_text_model: bool = False
    text_model: str | None = None
    store_url: str | None = None
    store_timeout_s: float = 2.0
    retention_days: float | None = None
    live_events: int = 1_000_000
    rules: Mapping[str, Any] = field(default_factory=dict)
    exploration_epsilon: float = 0.0
    exploration_slots: int = 1
    exploration_places: Sequence[int] = (11, 14, 17)
    exploration_days: float = 14.0
    tracing_endpoint: str | None = None
    tracing_sample_rate: float = 0.01
    tracing_service_name: str = "two-stage-recsys"

    def __post_init__(self) -> None:
        for name, lowest in (
            ("deadline_ms", 1),
            ("max_batch", 1),
            ("max_queue", 1),
            ("cache_mb", 0),
            ("threads", 1),
            ("workers", 1),
            ("store_timeout_s", 0.01),
            ("retention_days", 0.01),
            ("live_events", 1),
            ("exploration_epsilon", 0),
            ("exploration_slots", 1),
            ("exploration_days", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InputError(f"{name} of at least {lowest}", str(value), f"set {name}={lowest}")
        ReservedPlaces(self.exploration_places)
        if self.tracing_endpoint is not None:
            _check_tracing(self.tracing_endpoint, self.tracing_sample_rate)


def _check_tracing(endpoint: str, sample_rate: float) -> None:
    if not _is_http(endpoint):
        raise InputError(
            "tracing.endpoint to be an http:// or https:// URL",
            repr(endpoint),
            "set tracing.endpoint=http://localhost:4318",
        )
    if not 0 <= sample_rate <= 1:
        raise InputError(
            "tracing.sample_rate in 0..1", str(sample_rate), "set tracing.sample_rate=0.01"
        )
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError as error:
        raise InputError(
            "OpenTelemetry's packages, since tracing.endpoint is set",
            str(error),
            "run: pip install -r requirements-tracing.txt",
        ) from error


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False


DEFAULT_OPTIONS = ServingOptions()
