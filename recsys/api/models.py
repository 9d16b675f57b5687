"""The model that is served, and how another takes its place while requests go on."""

import asyncio
import contextlib
import ctypes
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.api.batcher import OverloadedError
from recsys.api.reload_queue import ReloadQueue
from recsys.api.texts import Texts
from recsys.bundle import list_bundles, read_manifest, read_metrics
from recsys.errors import InputError
from recsys.events.frames import item_frame
from recsys.events.types import Event, StoredItem
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import ExternalId
from recsys.stored_state import count_events, with_stored

log = logging.getLogger(__name__)

_MAX_EVENTS = 1_000_000
"""Of the latest so many events the next model, too, is told."""
_MAX_WAITING_RELOADS = 4
_SECONDS_TO_RETRY = 5
# More than it takes to load any bundle, after another one.
_SECONDS_TO_RELOAD = 900


class ModelStore:
    """Loads bundles, and holds the one that answers.

    Args:
        bundle: what is served first and again after a reload without a name: a bundle, or a link
            such as ``checkpoints/latest`` that names the newest.
        device: where models run.
        first: the bundle to begin with where that is not ``bundle``: what other workers serve.
        text_model: where the model of texts lies, see ``encoder_from_config``.

    Set ``swapped`` to be told of each model that begins to answer, ``kept_users`` to tell of whom
    answers are kept, ``forgotten`` to be told of each whose must not be, ``fits_store`` to refuse a
    model by InputError, and ``reload_everywhere`` where more processes serve: it is handed the
    folder of a bundle (None: the newest), and has each of them, this one among them, load and serve
    it.
    """

    def __init__(
        self,
        bundle: Path,
        device: str,
        first: Path | None = None,
        text_model: str | None = None,
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.texts = Texts(text_model)
        self.swapped: Callable[[Recommender], None] | None = None
        self.kept_users: Callable[[], Collection[ExternalId]] = tuple
        self.forgotten: Callable[[ExternalId], None] | None = None
        self.fits_store: Callable[[Recommender], None] | None = None
        self.reload_everywhere: Callable[[Path | None], Awaitable[None]] | None = None
        self._reloads = ReloadQueue(self._take_turn, _MAX_WAITING_RELOADS)
        # Of their own: others have work for the default ones that cannot wait.
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="reload")
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
        loaded = self.prepared(self.bundle if name is None else self._named(name))
        self.swap(loaded)
        return loaded

    async def reload_in_turn(self, name: str | None = None) -> Recommender:
        """``reload``, in a thread of its own and in all processes, once former ones are done.

        Who asks for the same while it waits shares it.

        Raises:
            InputError: as there, and when it takes too long.
            OverloadedError: when too many wait already.
        """
        try:
            async with asyncio.timeout(_SECONDS_TO_RELOAD):
                return await self.queued_reload(name)
        except asyncio.QueueFull:
            raise OverloadedError(_SECONDS_TO_RETRY) from None
        except TimeoutError:
            expected = f"a bundle that loads within {_SECONDS_TO_RELOAD} s"
            raise InputError(expected, "one that still loads", "see the log") from None

    def queued_reload(self, name: str | None = None) -> "asyncio.Future[Recommender]":
        """What ``reload_in_turn`` waits for.

        Raises:
            asyncio.QueueFull: when too many wait already.
        """
        return self._reloads.ask(name)

    @property
    def newest_waits(self) -> bool:
        """Whether a reload without a name is going to begin."""
        return self._reloads.waits(None)

    async def _take_turn(self, name: str | None) -> Recommender:
        loop = asyncio.get_running_loop()
        if self.reload_everywhere is None:
            return await loop.run_in_executor(self._loading, self.reload, name)
        folder = None
        if name is not None:
            # The folder and not a link, which may name another one by the time others read it.
            named = await loop.run_in_executor(self._loading, self._named, name)
            folder = named.resolve()
        await self.reload_everywhere(folder)
        return self.current

    def prepared(self, path: Path) -> Recommender:
        """A bundle, loaded and fit to take the place of the current one.

        Raises:
            InputError: as ``reload`` does.
        """
        try:
            loaded = self._loaded(path, self.current)
        except InputError:
            raise
        except Exception as error:
            # Such as out of memory, or of descriptors: the present one goes on.
            log.exception("a bundle could not be loaded")
            raise InputError(f"to load {path}", repr(error), "see the log") from error
        if self.fits_store is not None:
            self.fits_store(loaded)
        return loaded

    def swap(self, loaded: Recommender) -> None:
        """Let a prepared model answer from now on."""
        with self._changing:
            # Those that came in since it was prepared are few.
            loaded = self._with_stored(loaded, self._missing(loaded))
            count_events(loaded, self._events)
            loaded.popularity.refresh()
            self.current = loaded
        if self.swapped is not None:
            self.swapped(self.current)
        _give_back_memory()

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
            self.current = with_stored(
                self.current, self._missing(self.current), self.texts.encode_now
            )

    async def begin_again(self, items: Sequence[StoredItem]) -> None:
        """Know these items and no events: the store is another one, e.g. restored."""
        await asyncio.to_thread(self._begin_again, items)

    def _begin_again(self, items: Sequence[StoredItem]) -> None:
        with self._changing:
            self._items = {item.item_id: item for item in items}
            self._events.clear()
            trained = Recommender(self.current.artifact, self.device)
            trained.revision = self.current.revision + 1  # no answer of before is one of now
            self.current = self._with_stored(trained, items)

    def _with_stored(self, recommender: Recommender, items: Sequence[StoredItem]) -> Recommender:
        return with_stored(recommender, items, self.texts.encode_now)

    def _missing(self, recommender: Recommender) -> list[StoredItem]:
        """Items that the recommender does not have as they are now."""
        has = recommender.stored_positions
        return [item for item in self._items.values() if item.position > has.get(item.item_id, 0)]

    def count(self, events: Sequence[Event]) -> None:
        """Let features of items know of events that have come in since training."""
        told = [event for event in events if event.type != "dismiss"]
        with self._changing:
            self._events.extend(told)
            count_events(self.current, told)

    def added_since(self, time: float) -> dict[ExternalId, float]:
        """When items were first put into the store (unix seconds), of those after a time."""
        items = list(self._items.values())
        return {item.item_id: item.added_at for item in items if item.added_at >= time}

    def later_items(self, item_ids: Collection[ExternalId]) -> pd.DataFrame:
        """Those of the items that the event store has, as in ``Dataset.items``."""
        return item_frame([self._items[one] for one in item_ids if one in self._items])

    def forget(self, user_id: ExternalId) -> None:
        """Drop what is kept of a user in memory."""
        if self.forgotten is not None:
            self.forgotten(user_id)

    def _loaded(self, path: Path, before: Recommender | None = None) -> Recommender:
        loaded = Recommender.load(path, self.device)
        if before is not None:
            _check_id_types(loaded, before, path)
        with self._changing:
            items = list(self._items.values())
        return _checked(self._with_stored(loaded, items))

    @property
    def folder(self) -> Path:
        """Where bundles lie side by side."""
        return self.bundle.absolute().parent

    def _named(self, name: str) -> Path:
        # Looked up rather than joined: a name is whatever a client sends. One with a dot is that of
        # a bundle that is being written.
        if self.folder.is_dir() and not name.startswith("."):
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
            try:
                version, content = read_manifest(path)["version"], read_metrics(path)
            except (InputError, OSError) as error:
                log.warning("left out of the models: %s", error)
                continue
            found.append({"name": path.name, "version": version, "metrics": content})
        return found


def _give_back_memory() -> None:
    """What a replaced model has taken: glibc keeps it, in pieces that the next one may not fit."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _check_id_types(loaded: Recommender, before: Recommender, path: Path) -> None:
    """Clients and the event store go on with the ids that they know."""
    for kind, new, old in (
        ("user", loaded.users, before.users),
        ("item", loaded.items, before.items),
    ):
        if new.holds_integers != old.holds_integers:
            raise InputError(
                f"a bundle whose {kind} ids have the type of the one that is served",
                f"another type in {path.name}",
                "restart the server with it",
            )


def _checked(recommender: Recommender) -> Recommender:
    """Answer a request before users do: the first inference allocates, and shows what is broken."""
    first = recommender.users.ids.tolist()[:1]
    request = Request(top_k=1, user_id=first[0] if first else None)
    answer = recommender.recommend([request])[0]
    # A user who has every item is no fault.
    if not answer.item_ids and recommender.returnable(request, recommender.items.ids.tolist()):
        raise InputError("a bundle that recommends", "an empty list", "train it again")
    return recommender
