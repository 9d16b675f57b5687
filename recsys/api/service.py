"""What the routes share: from a request to the body of its answer, through cache and batcher."""

import asyncio
import logging
import time
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.api.answer_body import AnswerBody
from recsys.api.batcher import Answer, Batcher
from recsys.api.cache import CacheKey, ResponseCache
from recsys.api.explainer import Explainer
from recsys.api.list_exploration import ListExploration
from recsys.api.live_state import Degraded, LiveState, store_url
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.api.telemetry import Telemetry
from recsys.errors import InputError
from recsys.exploration import Exploration, ReservedPlaces
from recsys.recommender import Recommender
from recsys.request import NO_EVENTS, Request, UserEvents
from recsys.schema import ExternalId
from recsys.stored_state import TextUnavailableError

if TYPE_CHECKING:
    from recsys.api.tracing import Tracing

log = logging.getLogger(__name__)

_UNTOLD = UserEvents(version=0, forgets_log=True)


class Service:
    """The served model, the threads it runs in, and what is measured.

    Args:
        models: the served model; what it swaps to is watched from here on.
    """

    def __init__(
        self, models: ModelStore, options: ServingOptions, telemetry: Telemetry | None = None
    ) -> None:
        self.models = models
        self.options = options
        self.telemetry = telemetry or Telemetry()
        self.tracing = _tracing(options)
        self.cache = ResponseCache(int(options.cache_mb * 1e6))
        self.explainer = Explainer()
        self.rules = models.current.checked_rules(options.rules)
        self.exploration = _exploration(options, models)
        self.live = _live_state(options, models)
        self.batcher = Batcher(
            options.max_batch,
            options.max_queue,
            self.telemetry,
            options.threads,
        )
        self.telemetry.watch(self.batcher.__len__, self.cache, self._store_up)
        self.telemetry.serves(models.current.model_version)
        models.swapped = self._swapped
        models.forgotten, models.kept_users = self.cache.forget, self.cache.users

    @property
    def holds_integer_users(self) -> bool:
        """Whether user ids are integers (else strings); no reload changes that."""
        return self.models.current.users.holds_integers

    @property
    def holds_integer_items(self) -> bool:
        """Whether item ids are integers (else strings)."""
        return self.models.current.items.holds_integers

    @property
    def is_busy(self) -> bool:
        """Whether a request that comes now waits for more than the batch under way."""
        return len(self.batcher) >= self.batcher.max_batch

    async def list_of(
        self,
        request: Request,
        *,
        seconds: float,
        with_titles: bool = False,
        query: str | None = None,
        explained: bool = False,
        untold: bool = False,
        drawn: NDArray[np.bool_] | None = None,
    ) -> Answer:
        """The answer to one request, and its body as JSON, within ``seconds``.

        Args:
            query: what is wanted, as text. untold: whether it is made as if nothing were known of
                the user. drawn: of exploration, where that has been done.

        Raises:
            OverloadedError: when there is no room for it.
            TextUnavailableError: when there is a query, and no text model for it.
        """
        started = time.monotonic()
        degraded: list[Degraded] = []
        if query is not None:
            vector = await self._vector_of(query, seconds)
            request = replace(request, text_vector=vector)
            degraded += ["query"] if vector is None else []
        if untold:
            request = replace(request, events=_UNTOLD)
            degraded += ["history"]
        elif self.live is not None and request.user_id is not None:
            events, is_known = await self.events_of(request.user_id, seconds)
            if events.version:
                request = replace(request, events=events)
            degraded += [] if is_known else ["store"]
        recommender = self.models.current
        if self.exploration is not None and drawn is None:
            drawn = self.exploration.draw(request)
        sent = AnswerBody(self.exploration, recommender, request, degraded, drawn, with_titles)
        left = seconds - (time.monotonic() - started)
        # In the context of the request, for what is logged in the thread that makes the list.
        context = copy_context()

        def finish(answer: Answer) -> Answer:
            return context.run(sent.finish, answer)

        answering = self.batcher.submit(recommender, request, left, finish)
        if self.tracing is not None:
            answering = self.tracing.traced(answering, recommender.model_version)
        answer = await answering
        self.telemetry.answered(answer.ranked.source, answer.fallback)
        if not explained:
            return answer
        left = seconds - (time.monotonic() - started)
        explanations = await self.explainer.explain(recommender, request, answer.ranked, left)
        return sent.explained(answer, explanations)

    async def _vector_of(self, query: str, seconds: float) -> NDArray[np.float32] | None:
        """A text's vector; None when that takes more than half of the time that there is."""
        return await self.models.texts.encode_query(
            self.models.current.manifest, query, seconds / 2
        )

    async def events_of(self, user_id: ExternalId, seconds: float) -> tuple[UserEvents, bool]:
        """A user's events, and whether the store can be relied on for them.

        It has half of the time that there is to tell them.
        """
        live = self.live
        if live is None:
            return NO_EVENTS, True
        known = live.known(user_id)
        if known is None:
            try:
                async with asyncio.timeout(seconds / 2):
                    known = await live.events_of(user_id)
            except TimeoutError:
                return live.without_store(user_id), False
        return known, live.is_available

    async def body_of(self, request: Request, *, with_titles: bool, seconds: float) -> bytes:
        """The answer for a stored user as JSON, from the cache where it is there.

        Raises:
            OverloadedError: when there is no room for it.
        """
        if self.exploration is not None and (drawn := self.exploration.draw(request)).any():
            answer = await self.list_of(
                request, with_titles=with_titles, seconds=seconds, drawn=drawn
            )
            return answer.body
        kept = self.cached_body(request, with_titles=with_titles)
        if kept is not None:
            return kept
        return await self.new_body(request, with_titles=with_titles, seconds=seconds)

    def plain_request(self, user_id: ExternalId, top_k: int) -> Request:
        """For a user under the server's own rules."""
        return Request(top_k, user_id, rules=self.rules)

    def leaves_to_chance(self, request: Request) -> bool:
        """Whether two answers to the same request may differ."""
        exploration = self.exploration
        return exploration is not None and exploration.leaves_to_chance(
            self.models.current, request
        )

    def cached_body(self, request: Request, *, with_titles: bool) -> bytes | None:
        """The answer as JSON where it is in the cache."""
        if not self.cache.max_bytes:
            return None
        key = self._key(request, with_titles=with_titles)
        kept = None if key is None else self.cache.get(key)
        self.telemetry.cached(kept is not None)
        if self.tracing is not None:
            self.tracing.cached(kept is not None, self.models.current.model_version)
        return kept

    def _key(self, request: Request, *, with_titles: bool) -> CacheKey | None:
        """All that an answer depends on; None when not all of it is known yet."""
        current, user_id = self.models.current, request.user_id
        assert user_id is not None
        state, is_met = (0, True), user_id in current.users
        if self.live is not None:
            events = self.live.known(user_id)
            if events is None:
                return None
            state = (events.version, self.live.is_available)
            is_met = is_met and not events.forgets_log
        # It goes on while the model stays, and is in the lists of whom training has not met.
        popularity = 0 if is_met else current.popularity.version
        # Of one revision, the items that count as new only get fewer.
        num_new = 0 if self.exploration is None else self.exploration.num_new(current)
        model = (current.model_version, current.revision, num_new)
        asked = (request.top_k, with_titles, request.rules)
        return CacheKey(user_id, asked, state, model, popularity)

    async def new_body(self, request: Request, *, with_titles: bool, seconds: float) -> bytes:
        """A new answer as JSON, which the cache keeps.

        A list of a lesser stage is not kept: the next request may have more time. Nor is a popular
        list of somebody whom training has met, such as a user who has dismissed all that they had:
        their key does not change with popularity.

        Raises:
            OverloadedError: when there is no room for it.
        """
        if request.user_id is not None:  # after which the state is known
            await self.events_of(request.user_id, seconds)
        before = self._key(request, with_titles=with_titles)
        drawn = self.exploration.nothing if self.exploration is not None else None
        answer = await self.list_of(request, with_titles=with_titles, seconds=seconds, drawn=drawn)
        key = self._key(request, with_titles=with_titles)
        # Where something changed meanwhile, nobody knows whether the list knew it.
        if key is None or key != before or answer.fallback is not None:
            return answer.body
        if answer.ranked.source != "popular" or key.popularity:
            self.cache.put(key, answer.body)
        return answer.body

    def _store_up(self) -> int:
        return int(self.live is not None and self.live.is_available)

    def _swapped(self, recommender: Recommender) -> None:
        # What is cached is kept by version, and makes room by itself.
        self.telemetry.serves(recommender.model_version)
        try:
            recommender.histories.check_types(self.rules.exclude_types)
        except InputError as error:
            # Its own log has no such events, and those of before are gone from it.
            log.error("the new model does not fit rules.exclude_types: %s", error)

    async def start(self) -> None:
        """Begin to take in what comes since training.

        Raises:
            InputError: when the event store does not fit.
        """
        if self.live is not None:
            await self.live.start()
        if self.options.preload_text_model:
            try:
                await self.models.texts.load(self.models.current.manifest)
            except TextUnavailableError as error:
                log.error("queries and new items will be refused: %s", error)

    async def close(self) -> None:
        """Answer what waits, and send what is to be sent."""
        self.batcher.close()
        if self.live is not None:
            await self.live.close()
        self.models.texts.close()
        self.explainer.close()
        if self.tracing is not None:
            self.tracing.close()


def _exploration(options: ServingOptions, models: ModelStore) -> ListExploration | None:
    if not options.exploration_epsilon and not options.exploration_places:
        return None
    policy = Exploration(options.exploration_epsilon, options.exploration_slots)
    places = ReservedPlaces(options.exploration_places)
    return ListExploration(policy, places, models, options.exploration_days)


def _live_state(options: ServingOptions, models: ModelStore) -> LiveState | None:
    if options.store_url is None:
        return None
    return LiveState(
        store_url(options.store_url, models),
        models,
        timeout_seconds=options.store_timeout_s,
        max_events=options.live_events,
        retention_days=options.retention_days,
    )


def _tracing(options: ServingOptions) -> "Tracing | None":
    if options.tracing_endpoint is None:
        return None
    # Its packages are optional.
    from recsys.api.tracing import Tracing

    return Tracing(
        options.tracing_endpoint, options.tracing_sample_rate, options.tracing_service_name
    )
