"""The event store, on SQLite and on PostgreSQL: what it acknowledges is there, once."""

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.events.store import EventStore
from tests.events.stores import all_events, event, item, with_store

HOSTILE = st.text(max_size=200) | st.sampled_from(
    ["'; DROP TABLE recsys_events; --", "🦊" * 50, "\u202eabc", "a\r\n\tb", "NULL", "x" * 30_000]
)


def test_an_event_is_stored_once_and_as_it_was(store_url: str) -> None:
    first = event("a", value=4.5, type="rating")

    async def use(store: EventStore) -> None:
        appended = await store.append([first, event("b"), replace(first, item_id=11)])
        assert (appended.accepted, appended.duplicates) == (2, 1)
        again = await store.append([event("a", user_id=2), event("c")])
        assert (again.accepted, again.duplicates) == (1, 1)
        assert again.versions[2] == 0
        assert await all_events(store) == [first, event("b"), event("c")]

    with_store(store_url, use)


def test_a_users_state_is_in_time_order_and_grows_a_version(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event("late", item_id=12, timestamp=300), event("x", user_id=2)])
        one = (await store.user_states([1]))[1]
        await store.append([event("early", item_id=11, timestamp=100, type="dismiss")])
        await store.append([event("same", item_id=13, timestamp=300, value=2.0)])
        states = await store.user_states([1, 2, 3])
        assert list(states[1].item_ids) == [11, 12, 13]
        assert list(states[1].dismissed) == [True, False, False]
        assert list(states[1].ratings) == [None, None, None]
        assert states[1].version > one.version > 0
        assert (states[3].version, list(states[3].item_ids)) == (0, [])
        latest = (await store.user_states([1], max_items=2))[1]
        assert list(latest.item_ids) == [12, 13]

    with_store(store_url, use)


def test_a_deleted_user_is_gone_and_may_come_back(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event("a"), event("b", user_id=2)])
        before, version = await store.head(), (await store.user_states([1]))[1].version
        await store.delete_user(1)
        await store.delete_user(77)  # of the training log alone
        state = (await store.user_states([1]))[1]
        assert state.forgotten_at == pytest.approx(time.time(), abs=60)
        assert (list(state.item_ids), state.version > version) == ([], True)
        tombstones = [store.tombstone(1), store.tombstone(77)]
        assert (await store.changes(before)).forgotten == tombstones
        assert list(await store.forgotten_users()) == tombstones
        assert [one.event_id for one in await all_events(store)] == ["b"]
        await store.append([event("c")])
        assert list((await store.user_states([1]))[1].item_ids) == [10]

    with_store(store_url, use)


def test_items_are_replaced_and_keep_the_time_of_their_first_write(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        (first,) = await store.put_items([item(5, year=1999, genres="A|B")])
        await store.put_items([item(6)])
        vector = replace(item(5, "B"), text_vector=b"\x00\x01", text_fingerprint="f")
        (second,) = await store.put_items([vector])
        assert second.added_at == first.added_at
        assert second.position > first.position
        found = {one.item_id: one for one in await store.items()}
        assert set(found) == {5, 6}
        assert (found[5].title, found[5].text_vector, found[5].year) == ("B", b"\x00\x01", None)
        assert [one.item_id for one in (await store.changes(first.position)).items] == [6, 5]

    with_store(store_url, use)


def test_changes_are_told_in_order_and_in_parts(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        assert await store.head() == 0
        for n in range(5):
            await store.append([event(f"{n}{m}") for m in range(3)])
            await store.put_items([item(n)])
        position, events, items, more = 0, [], [], True
        while more:
            changes = await store.changes(position, limit=4)
            assert changes.position > position
            position, more = changes.position, changes.more
            events += changes.events
            items += changes.items
        assert [one.event_id for one in events] == [f"{n}{m}" for n in range(5) for m in range(3)]
        assert [one.item_id for one in items] == list(range(5))
        assert (await store.changes(position)).events == []

    with_store(store_url, use)


def test_retention_deletes_what_is_older(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        await store.append([event(str(n), timestamp=n * 100) for n in range(10)])
        assert await store.prune(500) == 5
        assert [one.timestamp for one in await all_events(store)] == [500, 600, 700, 800, 900]

    with_store(store_url, use)


def test_many_small_batches_share_transactions_and_all_are_stored(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        answers = await asyncio.gather(
            *(store.append([event(f"{n % 150}", user_id=n)]) for n in range(200))
        )
        assert sum(one.accepted for one in answers) == 150
        assert len(await all_events(store)) == 150

    with_store(store_url, use)


def test_hostile_texts_are_stored_as_texts(store_url: str) -> None:
    storable = HOSTILE.filter(lambda text: "\0" not in text)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(title=storable, name=storable.filter(lambda text: 0 < len(text.encode()) <= 512))
    def check(title: str, name: str) -> None:
        async def use(store: EventStore) -> None:
            await store.put_items([item(name, title, description=title)])
            stored = {one.item_id: one for one in await store.items()}[name]
            assert (stored.title, stored.description) == (title, title)
            await store.append([event(name, name, name)])
            assert event(name, name, name) in await all_events(store)
            assert list((await store.user_states([name]))[name].item_ids) == [name]

        with_store(store_url, use, integers=False)

    check()
