"""An event store for whoever asks now and then, or once: a batch, a Python program.

A server reads it all the time (``recsys.api.live_state``). What both tell a recommender is the
same, so the same bundle and the same store give the same lists.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import read_manifest
from recsys.errors import InputError
from recsys.events.database import parse_url, sqlite_url
from recsys.events.frames import catalogue_of
from recsys.events.store import SECONDS_OF_A_COMMAND, EventStore
from recsys.events.types import StoredItem, StoreReplacedError, StoreUnavailableError
from recsys.exploration import ReservedPlaces
from recsys.new_item_places import NewItemPlaces
from recsys.recommender import BATCH_SIZE, Recommender
from recsys.request import NO_EVENTS, Request, UserEvents
from recsys.schema import ExternalId, RankedList
from recsys.stored_state import TextUnavailableError, as_events, count_events, with_stored
from recsys.text.encoder import TextEncoder
from recsys.text.from_config import encoder_of_bundle

AUTO = "auto"
PLACES, DAYS = (11, 14, 17), 14.0
"""Of new items, as in configs/serve.yaml."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class OpenStore:
    """A store while it is read; made by ``StoreReader.reading``. recommender: up to date."""

    def __init__(
        self, recommender: Recommender, store: EventStore, run: Run, places: NewItemPlaces
    ) -> None:
        self.recommender = recommender
        self._store = store
        self._run = run
        self._places = places

    def recommend(self, requests: Sequence[Request], *, rerank: bool = True) -> list[RankedList]:
        """The lists that a server gives: ``Recommender.recommend`` with each user's events, and
        with new items at reserved places.
        """
        recommender, answers = self.recommender, list[RankedList]()
        for start in range(0, len(requests), BATCH_SIZE):
            some = self._with_events(requests[start : start + BATCH_SIZE])
            retrieved = recommender.retrieve(some, rerank=rerank)
            ranked = (
                recommender.rerank(retrieved) if rerank else recommender.as_retrieved(retrieved)
            )
            answers += self._places.lists(recommender, retrieved, ranked)
        return answers

    def users(self) -> "list[ExternalId]":
        """Those of the log and of the store, without those whose data was deleted and of whom
        nothing has come in since.
        """
        stored: list[ExternalId] = self._run(_users(self._store))
        forgotten = self._run(self._store.forgotten_users())
        logged = self.recommender.users.ids.tolist()
        if forgotten:
            logged = [user for user in logged if self._store.tombstone(user) not in forgotten]
        return list(dict.fromkeys([*logged, *stored]))

    def _with_events(self, requests: Sequence[Request]) -> list[Request]:
        asked = {request.user_id for request in requests if request.user_id is not None}
        ids = [user for user in asked if self._store.can_hold_user(user)]
        states = self._run(self._store.user_states(ids)) if ids else {}
        events: dict[ExternalId | None, UserEvents] = {
            user: as_events(state) for user, state in states.items()
        }
        return [replace(one, events=events.get(one.user_id, NO_EVENTS)) for one in requests]


async def _users(store: EventStore) -> list[ExternalId]:
    found: dict[ExternalId, None] = {}
    async for page in store.pairs():
        found |= dict.fromkeys(pair.user_id for pair in page)
    return list(found)


class StoreReader:
    """A recommender, and the store that tells it what has come in since training.

    Args:
        recommender: as loaded; popularity counts the store's events from the first reading on.
        url: of the store, see ``EventStore.open``; ``auto`` for the file beside the bundle, where a
            server has it. bundle: where the recommender comes from. text_model: where the text
            model lies, see ``encoder_of_bundle``, for items that another one has encoded. places,
            days: of new items, see ``NewItemPlaces``.

    Raises:
        InputError: when the URL is none, or a place.
    """

    def __init__(
        self,
        recommender: Recommender,
        url: str,
        bundle: Path,
        *,
        text_model: str | None = None,
        places: Sequence[int] = PLACES,
        days: float = DAYS,
    ) -> None:
        self.recommender = recommender
        self._url = parse_url(url) if url != AUTO else sqlite_url(own_store(bundle))
        self._text_model = text_model
        self._encoder: TextEncoder | None = None
        self._position = 0
        self._items: dict[ExternalId, StoredItem] = {}
        self._reading = threading.Lock()
        self._places = NewItemPlaces(ReservedPlaces(places), self._added_since, days)

    @contextmanager
    def reading(self) -> Iterator["OpenStore"]:
        """The store, open, with all that has come in until now in the recommender.

        For one thread at a time; others wait.

        Raises:
            InputError: when it is not there, cannot be reached, or is of another data set.
        """
        with self._reading, ThreadPoolExecutor(1, thread_name_prefix="store") as thread:
            # A loop of its own, since one may run in this thread already, as in a notebook.
            runner = thread.submit(asyncio.Runner).result()

            def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
                return thread.submit(runner.run, coroutine).result()

            try:
                store = run(self._opened())
                try:
                    run(self._take_in(store))
                    yield OpenStore(self.recommender, store, run, self._places)
                finally:
                    run(store.close())
            except StoreReplacedError as error:
                remedy = "load the model again"
                raise InputError("the store of before", str(error), remedy) from error
            except StoreUnavailableError as error:
                remedy = "try again, or see that the database runs"
                raise InputError("an event store that answers", str(error), remedy) from error
            finally:
                thread.submit(runner.close).result()

    async def _opened(self) -> EventStore:
        artifact = self.recommender.artifact
        store = await EventStore.open(
            self._url, timeout_seconds=SECONDS_OF_A_COMMAND, make_folder=False
        )
        try:
            store.check_id_types(artifact.users.holds_integers, artifact.items.holds_integers)
            await store.check_catalogue(catalogue_of(artifact.item_frame))
        except BaseException:
            await store.close()
            raise
        return store

    async def _take_in(self, store: EventStore) -> None:
        """Items and events since the last time."""
        more = True
        position, found = self._position, []
        while more:
            changes = await store.changes(position)
            found.append(changes)
            position, more = changes.position, changes.more
        items = [item for changes in found for item in changes.items]
        self.recommender = with_stored(self.recommender, items, self._encode)
        self._items |= {item.item_id: item for item in items}
        for changes in found:
            count_events(self.recommender, changes.events)
        if any(changes.events for changes in found):
            self.recommender.popularity.refresh()
        self._position = position

    def _added_since(self, time: float) -> dict[ExternalId, float]:
        return {key: item.added_at for key, item in self._items.items() if item.added_at >= time}

    def _encode(self, manifest: Mapping[str, Any], texts: Sequence[str]) -> NDArray[np.float32]:
        try:
            if self._encoder is None:
                self._encoder = encoder_of_bundle(manifest, self._text_model)
            vectors: NDArray[np.float32] = self._encoder.encode(texts)
        except InputError as error:
            raise TextUnavailableError(str(error)) from error
        return vectors


def own_store(bundle: Path) -> Path:
    """The file beside a bundle, where a server has its store.

    Raises:
        InputError: when there is no such bundle.
    """
    # Bundles lie side by side, and those of one data set go on with the same users.
    return bundle.absolute().parent / f"{read_manifest(bundle).get('dataset', 'data')}.events.db"
