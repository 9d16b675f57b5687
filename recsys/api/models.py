"""The model that is served, and how another takes its place while requests go on."""

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.api.live_items import with_stored
from recsys.api.texts import Texts
from recsys.bundle import METRICS_FILE, list_bundles, read_manifest
from recsys.errors import InputError
from recsys.events.frames import item_frame
from recsys.events.types import Event, StoredItem, rating_of
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId

log = logging.getLogger(__name__)

_MAX_EVENTS = 1_000_000
"""Of the latest so many events the next model, too, is told."""


class ModelStore:
    """Loads bundles, and holds the one that answers.

    Args:
        bundle: what is served first and again after a reload without a name: a bundle, or a link
            such as ``checkpoints/latest`` that names the newest.
        device: where models run. cache_bytes: see ``Recommender``.
        first: the bundle to begin with where that is not ``bundle``: what other workers serve.

    Set ``swapped`` to be told of each model that begins to answer, ``forgotten`` of each user whose
    data must not be kept, ``fits_store`` to refuse a model by InputError, and
    ``reload_everywhere`` where more processes serve: it is handed the folder of a bundle, and has
    each of them, this one among them, load and serve it.
    """

    def __init__(
        self, bundle: Path, device: str, cache_bytes: int = 0, first: Path | None = None
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.cache_bytes = cache_bytes
        self.texts = Texts()
        self.swapped: Callable[[Recommender], None] | None = None
        self.forgotten: Callable[[ExternalId], None] | None = None
        self.fits_store: Callable[[Recommender], None] | None = None
        self.reload_everywhere: Callable[[Path], None] | None = None
        self._loading = threading.Lock()
        # Held while the current model is replaced by another one that is made of it.
        self._changing = threading.Lock()
        self._items: dict[ExternalId, StoredItem] = {}
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self.current = self._loaded(first or bundle)

    def reload(self, name: str | None = None) -> Recommender:
        """Load the newest bundle, or that of this folder name, and let it answer from now on.

        The model that answers so far goes on until the other one has been loaded and has answered a
        request; when that fails, it stays.

        Raises:
            InputError: when the bundle is missing, damaged or cannot answer, or when the type of
                its user ids is another.
        """
        path = self.bundle if name is None else self._named(name)
        if self.reload_everywhere is not None:
            # The folder and not the link, which may name another one by the time others read it.
            self.reload_everywhere(path.resolve())
            return self.current
        with self._loading:
            loaded = self.prepared(path)
            self.swap(loaded)
        return loaded

    def prepared(self, path: Path) -> Recommender:
        """A bundle, loaded and fit to take the place of the current one.

        Raises:
            InputError: as ``reload`` does.
        """
        loaded = self._loaded(path)
        if loaded.users.holds_integers != self.current.users.holds_integers:
            raise InputError(
                "a bundle whose user ids have the type of the one that is served",
                f"another type in {path.name}",
                "restart the server with it",
            )
        if self.fits_store is not None:
            self.fits_store(loaded)
        return loaded

    def swap(self, loaded: Recommender) -> None:
        """Let a prepared model answer from now on."""
        with self._changing:
            # Those that came in since it was prepared are few.
            loaded = with_stored(loaded, self._missing(loaded), self.texts)
            _count(loaded, self._events)
            loaded.popularity.refresh()
            self.current = loaded
        if self.swapped is not None:
            self.swapped(self.current)

    async def add_items(self, items: Sequence[StoredItem]) -> None:
        """Let the current model and all that come after it recommend these, too."""
        if items:
            await asyncio.to_thread(self._add_items, items)

    def _add_items(self, items: Sequence[StoredItem]) -> None:
        with self._changing:
            for item in items:
                known = self._items.get(item.item_id)
                if known is None or known.position < item.position:
                    self._items[item.item_id] = item
            self.current = with_stored(self.current, self._missing(self.current), self.texts)

    async def begin_again(self, items: Sequence[StoredItem]) -> None:
        """Know these items and no events: the store is another one, e.g. restored."""
        await asyncio.to_thread(self._begin_again, items)

    def _begin_again(self, items: Sequence[StoredItem]) -> None:
        with self._changing:
            self._items = {item.item_id: item for item in items}
            self._events.clear()
            trained = Recommender(self.current.artifact, self.device, self.cache_bytes)
            trained.revision = self.current.revision + 1  # no answer of before is one of now
            self.current = with_stored(trained, items, self.texts)

    def _missing(self, recommender: Recommender) -> list[StoredItem]:
        """Items that the recommender does not have as they are now."""
        has = recommender.stored_positions
        return [item for item in self._items.values() if item.position > has.get(item.item_id, 0)]

    def count(self, events: Sequence[Event]) -> None:
        """Let features of items know of events that have come in since training."""
        told = [event for event in events if event.type != "dismiss"]
        with self._changing:
            self._events.extend(told)
            _count(self.current, told)

    def added_since(self, time: float) -> list[ExternalId]:
        """Items of the event store that were first put there after this time (unix seconds)."""
        return [item.item_id for item in list(self._items.values()) if item.added_at >= time]

    def later_items(self, item_ids: Collection[ExternalId]) -> pd.DataFrame:
        """Those of the items that the event store has, as in ``Dataset.items``."""
        return item_frame([self._items[one] for one in item_ids if one in self._items])

    def forget(self, user_id: ExternalId) -> None:
        """Drop what is kept of a user in memory."""
        self.current.cache.forget(user_id)
        if self.forgotten is not None:
            self.forgotten(user_id)

    def _loaded(self, path: Path) -> Recommender:
        loaded = Recommender.load(path, self.device, self.cache_bytes)
        with self._changing:
            items = list(self._items.values())
        return _checked(with_stored(loaded, items, self.texts))

    @property
    def folder(self) -> Path:
        """Where bundles lie side by side."""
        return self.bundle.absolute().parent

    def _named(self, name: str) -> Path:
        # Looked up rather than joined: a name is whatever a client sends.
        for path in self.folder.iterdir():
            if path.name == name:
                return path
        raise InputError("the name of a bundle's folder", repr(name), "see GET /admin/models")

    def listed(self) -> list[dict[str, Any]]:
        """Name, version and metrics of the bundles beside the served one, newest first.

        One that is damaged is left out, and told in the log.
        """
        found = []
        for path in reversed(list_bundles(self.folder)):
            metrics = path / METRICS_FILE
            try:
                version = read_manifest(path)["version"]
                content = json.loads(metrics.read_text()) if metrics.exists() else None
            except (InputError, OSError, ValueError) as error:
                log.warning("left out of the models: %s", error)
                continue
            found.append({"name": path.name, "version": version, "metrics": content})
        return found


def _count(recommender: Recommender, events: Collection[Event]) -> None:
    """Those from before the end of the training log are taken for part of it."""
    features = recommender.features
    item_idx = recommender.items.encode(event.item_id for event in events)
    times = np.array([event.timestamp for event in events], np.int64)
    ratings = [rating_of(event.type, event.value) for event in events]
    values = np.array(ratings, np.float64)  # None becomes NaN
    kept = (item_idx > 0) & (times > features.end_of_log)
    features.add(item_idx[kept], times[kept], values[kept])


def _checked(recommender: Recommender) -> Recommender:
    """Answer a request before users do: the first inference allocates, and shows what is broken."""
    first = recommender.users.ids.tolist()[:1]
    request = Request(top_k=1, user_id=first[0] if first else None)
    if not recommender.recommend([request])[0].item_ids:
        raise InputError("a bundle that recommends", "an empty list", "train it again")
    return recommender
