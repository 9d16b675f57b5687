"""What has come in since training, on every worker: tails the event store.

The store decides. A worker keeps in memory what it has read of users, and reads anew what others
say has changed; while the store cannot be read it goes on with what it knows, and says so.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import URL

from recsys.api.live_users import LiveUsers
from recsys.api.models import ModelStore
from recsys.errors import InputError
from recsys.events.catalogue import CatalogueSketch
from recsys.events.database import parse_url, sqlite_url
from recsys.events.frames import catalogue_of
from recsys.events.ids import IdTypes
from recsys.events.prepare import check_catalogue
from recsys.events.store import EventStore
from recsys.events.types import (
    Appended,
    Changes,
    Event,
    Item,
    StoredItem,
    StoreReplacedError,
    StoreUnavailableError,
    UserState,
)
from recsys.recommender import Recommender
from recsys.request import NO_EVENTS, UserEvents
from recsys.schema import ExternalId

log = logging.getLogger(__name__)

Degraded = Literal["store", "query", "history", "explanations"]
"""What an answer had to do without."""

AUTO = "auto"
"""A SQLite file beside the bundle, one per data set."""

SECONDS_BETWEEN_LOOKS = 0.025
_SECONDS_TO_RETRY = 0.5
_SECONDS_BETWEEN_CHECKS = 1.0
_SECONDS_BETWEEN_PRUNES = 3600.0
_SECONDS_BETWEEN_REFRESHES = 5.0
_SECONDS_PER_DAY = 86_400

_FORGOTTEN = UserEvents(version=1, forgets_log=True)


class LiveState:
    """The event store's content as a worker knows it. For the event loop's thread alone.

    Args:
        url: of the store, see ``store_url``. models: are given the store's items.
        retention_days: after which events are deleted; None keeps them.
        max_events: of users, kept in memory.
    """

    def __init__(
        self,
        url: URL,
        models: ModelStore,
        *,
        timeout_seconds: float,
        max_events: int,
        retention_days: float | None = None,
    ) -> None:
        self.url = url
        self.models = models
        self.timeout_seconds = timeout_seconds
        self.retention_days = retention_days
        self.users = LiveUsers(self._read_states, self._read_now, max_events)
        self._is_readable = False
        self._is_writable = False
        self._store: EventStore | None = None
        self._position = 0
        self._tailing: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._refused = ""
        self._checked = self._next_prune = self._next_refresh = time.monotonic()
        self._is_popularity_stale = False
        # Tombstones, and how they are made of ids.
        self._forgotten: set[str] = set()
        self._tombstone: Callable[[ExternalId], str] | None = None
        current = models.current
        self._ids = IdTypes(current.users.holds_integers, current.items.holds_integers)
        self._catalogue = catalogue_of(current.artifact.item_frame)
        models.fits_store = self._check_data_set

    @property
    def is_available(self) -> bool:
        """Whether the store can be read and written, as far as is known."""
        return self._is_readable and self._is_writable

    async def start(self) -> None:
        """Read what there is, and go on reading; a store that cannot be reached is tried again.

        Raises:
            InputError: when the store does not fit the model.
        """
        try:
            await self._connect()
        except StoreUnavailableError as error:
            self._is_readable = self._failed(error)
        self._tailing = asyncio.create_task(self._tail())

    async def close(self) -> None:
        """Let go of the store; what was acknowledged is in it."""
        for task in (self._tailing, self._checking, self._counting):
            await _ended(task)
        if self._store is not None:
            await self._store.close()

    def known(self, user_id: ExternalId) -> UserEvents | None:
        """What is known of a user at once; None when ``events_of`` has to ask the store."""
        found = self.users.known(user_id)
        if found is None and not self._ids.can_hold_user(user_id):
            return NO_EVENTS
        if found is None and self._is_readable:
            found = self.users.now(user_id)
        return self.without_store(user_id) if found is None and not self._is_readable else found

    def without_store(self, user_id: ExternalId) -> UserEvents:
        """Of a user whom nothing is kept of; one who was deleted stays so."""
        if self._tombstone is None or not self._forgotten:
            return NO_EVENTS
        return _FORGOTTEN if self._tombstone(user_id) in self._forgotten else NO_EVENTS

    async def events_of(self, user_id: ExternalId) -> UserEvents:
        """A user's events; without the store, what is known of them."""
        found = self.known(user_id)
        if found is not None:
            return found
        try:
            return await self.users.of(user_id)
        except StoreUnavailableError as error:
            self._is_readable = self._failed(error)
            return self.without_store(user_id)

    async def append(self, events: Sequence[Event]) -> Appended:
        """Store events; when this returns they are durable, and count in this worker.

        Raises:
            StoreUnavailableError: when they could not be stored for certain.
        """
        with self._writing():
            appended = await self.store.append(events)
        with contextlib.suppress(StoreUnavailableError):  # the tail reads them when it is back
            await self.users.refresh(list(appended.versions))
        return appended

    async def put_item(self, item: Item) -> StoredItem:
        """Store an item; when this returns it is durable, and recommended by this worker.

        Raises:
            StoreUnavailableError: when it could not be stored for certain.
        """
        with self._writing():
            (stored,) = await self.store.put_items([item])
        await self.models.add_items([stored])
        return stored

    async def delete_user(self, user_id: ExternalId) -> None:
        """Forget a user, here at once, and on other workers as soon as they look.

        Raises:
            StoreUnavailableError: when that could not be stored for certain.
        """
        with self._writing():
            store = self.store
            await store.delete_user(user_id)
        self._forgotten.add(store.tombstone(user_id))
        await self._forget([user_id])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What fails here tells that nothing can be written; ``_look`` finds out when that ends."""
        try:
            yield
        except StoreUnavailableError as error:
            self._is_writable = self._failed(error)
            raise

    @property
    def store(self) -> EventStore:
        """The open store.

        Raises:
            StoreUnavailableError: while it could not be opened.
        """
        if self._store is None:
            raise StoreUnavailableError("none that can be opened now")
        return self._store

    async def _connect(self) -> None:
        is_first = self._tombstone is None
        current = self.models.current
        store = await open_store(
            self.url,
            users=current.users.holds_integers,
            items=current.items.holds_integers,
            catalogue=self._catalogue,
            timeout_seconds=self.timeout_seconds,
            # One that is away for a moment must not find its place taken.
            make_folder=is_first,
        )
        try:
            # Items of all time, and from here on what is new.
            position, items = await store.head(), await store.items()
            forgotten = set(await store.forgotten_users())
        except BaseException:
            await store.close()
            raise
        if is_first:
            await self.models.add_items(items)
        else:
            await self.models.begin_again(items)
            self.users.begin_again()
        self._store, self._tombstone = store, store.tombstone
        self._position, self._forgotten = position, forgotten
        self._counting = asyncio.create_task(self._count_stored(store, position))
        self._is_readable = self._is_writable = True

    async def _let_go(self, error: StoreReplacedError) -> None:
        """Close a store that is not at its place any more; the next look opens what there is."""
        self._is_readable = self._is_writable = self._failed(error)
        store, self._store = self._store, None
        await _ended(self._counting)
        if store is not None:
            await store.close()

    async def _tail(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS if self._is_readable else _SECONDS_TO_RETRY)
            try:
                await self._look()
            except StoreReplacedError as error:
                await self._let_go(error)
            except StoreUnavailableError as error:
                self._is_readable = self._failed(error)
            except InputError as error:
                # What has taken the store's place is another one.
                if str(error) != self._refused:
                    log.error("recommending from what is known: %s", error)
                self._refused, self._is_readable = str(error), False
            except Exception:
                # Without this task nothing new would be known any more.
                log.exception("what the event store says could not be taken in")
                self._is_readable = False

    async def _look(self) -> None:
        """Take in what has changed since the last look; now and then, see whether all is well."""
        if self._store is None:
            await self._connect()
            log.warning("the event store was opened")
        is_due = time.monotonic() - self._checked > _SECONDS_BETWEEN_CHECKS
        if self.store.may_have_changed() or is_due or not self._is_readable:
            await self._take_in()
            self._is_readable = self._works(self._is_readable, self._is_writable)
        await self._refresh_popularity()
        if is_due and (self._checking is None or self._checking.done()):
            self._checking = asyncio.create_task(self._check())
            self._checked = time.monotonic()

    async def _check(self) -> None:
        """Beside the looks, since a lock has it wait."""
        try:
            await self.store.check_writable()
            self._is_writable = self._works(self._is_writable, self._is_readable)
            if self.retention_days is not None:
                await self._prune(self.retention_days)
        except StoreUnavailableError as error:
            self._is_writable = self._failed(error)

    async def _count_stored(self, store: EventStore, until: int) -> None:
        """Have items' features know the events of the time before this process."""
        try:
            async for page in store.events(until=until):
                self.models.count(page)
        except StoreUnavailableError as error:
            log.error("popularity is that of the training log: %s", error)
        self._is_popularity_stale = True

    async def _refresh_popularity(self) -> None:
        if self._is_popularity_stale and time.monotonic() > self._next_refresh:
            self._is_popularity_stale = False
            self._next_refresh = time.monotonic() + _SECONDS_BETWEEN_REFRESHES
            await asyncio.to_thread(self.models.current.popularity.refresh)

    async def _take_in(self) -> None:
        more = True
        while more:
            changes = await self.store.changes(self._position)
            await self._apply(changes)
            self._position, more = changes.position, changes.more

    async def _apply(self, changes: Changes) -> None:
        if changes.items:
            await self.models.add_items(changes.items)
        if changes.pruned:
            self.users.clear()
        if changes.forgotten:
            self._forgotten.update(changes.forgotten)
            await self._forget(await self._named(set(changes.forgotten)))
        if changes.events:
            self.models.count(changes.events)
            self._is_popularity_stale = True
        changed = dict.fromkeys(event.user_id for event in changes.events)
        await self.users.refresh(list(changed))

    async def _forget(self, user_ids: Sequence[ExternalId]) -> None:
        for user_id in user_ids:
            self.models.forget(user_id)
        await self.users.refresh(user_ids)

    async def _named(self, tombstones: set[str]) -> list[ExternalId]:
        """Whom these mean, of the users of whom something is in memory."""
        kept = {*self.users.users(), *self.models.kept_users()}
        tombstone = self.store.tombstone
        return await asyncio.to_thread(
            lambda: [user for user in kept if tombstone(user) in tombstones]
        )

    async def _prune(self, days: float) -> None:
        if time.monotonic() < self._next_prune:
            return
        self._next_prune = time.monotonic() + _SECONDS_BETWEEN_PRUNES
        number = await self.store.prune(int(time.time() - days * _SECONDS_PER_DAY))
        if number:
            log.warning("%d events older than %g days were deleted", number, days)

    def _check_data_set(self, recommender: Recommender) -> None:
        """Raise InputError when a model is of another data set than the store."""
        check_catalogue(self._catalogue, catalogue_of(recommender.artifact.item_frame))

    async def _read_states(self, user_ids: Sequence[ExternalId]) -> dict[ExternalId, UserState]:
        return await self.store.user_states(user_ids)

    def _read_now(self, user_id: ExternalId) -> UserState | None:
        return None if self._store is None else self._store.user_state_now(user_id)

    def _failed(self, error: StoreUnavailableError) -> bool:
        """False; the log is told the first time."""
        if self.is_available or self._store is None:
            log.error("recommending from what is known: %s", error)
        return False

    def _works(self, before: bool, other: bool) -> bool:
        """True; the log is told when all is well again."""
        if not before and other:
            log.warning("the event store is back")
        return True


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def open_store(
    url: URL,
    *,
    users: bool,
    items: bool,
    catalogue: CatalogueSketch,
    timeout_seconds: float,
    make_folder: bool = True,
) -> EventStore:
    """The store for a model with integer (else string) ids of users and items; see ``EventStore``.

    Raises:
        StoreUnavailableError: when it cannot be reached. InputError: when it does not fit.
    """
    try:
        return await EventStore.open(
            url,
            holds_integer_users=users,
            holds_integer_items=items,
            catalogue=catalogue,
            timeout_seconds=timeout_seconds,
            make_folder=make_folder,
        )
    except InputError as error:
        if isinstance(error.__cause__, StoreUnavailableError):
            raise error.__cause__ from error
        raise


async def check_store(url: str, models: ModelStore, timeout_seconds: float) -> None:
    """Make the store when there is none.

    Raises:
        InputError: when the URL is none, or the store is of another version, for other ids or of
            another data set. One that cannot be reached may be so later.
    """
    current = models.current
    with contextlib.suppress(StoreUnavailableError):
        store = await open_store(
            store_url(url, models),
            users=current.users.holds_integers,
            items=current.items.holds_integers,
            catalogue=catalogue_of(current.artifact.item_frame),
            timeout_seconds=timeout_seconds,
        )
        await store.close()


def store_url(url: str, models: ModelStore) -> URL:
    """Of the store, or for ``AUTO`` of a file beside the bundle.

    Raises:
        InputError: when it is none.
    """
    if url != AUTO:
        return parse_url(url)
    data_set = models.current.manifest.get("dataset", "data")
    # Bundles lie side by side, and those of one data set go on with the same users.
    return sqlite_url(Path(models.folder) / f"{data_set}.events.db")
