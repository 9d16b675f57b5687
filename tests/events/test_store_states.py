"""One state per user and item, of all events, however many and in whatever order they come in."""

import random
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events.store import EventStore
from recsys.events.types import Event, UserState
from tests.events.stores import all_events, event, with_store

NOW = int(time.time())


def by_hand(events: list[Event]) -> dict[int | str, tuple[int, bool, float | None]]:
    """What each item's state should be: time, dismissed, rating."""
    found: dict[int | str, tuple[int, bool, float | None]] = {}
    for one in sorted(events, key=lambda one: one.timestamp):
        rating = found.get(one.item_id, (0, False, None))[2]
        if one.type == "rating" and one.value is not None:
            rating = one.value
        found[one.item_id] = (one.timestamp, one.type == "dismiss", rating)
    return found


def told(state: UserState) -> dict[int | str, tuple[int, bool, float | None]]:
    rows = zip(state.timestamps, state.dismissed, state.ratings, strict=True)
    return {
        item: (at, bool(dismissed), rating)
        for item, (at, dismissed, rating) in zip(state.item_ids, rows, strict=True)
    }


def random_events(rng: random.Random, number: int, num_items: int, times: int) -> list[Event]:
    return [
        event(
            f"{number}-{times}-{n}",
            item_id=rng.randrange(num_items),
            type=rng.choice(["view", "rating", "dismiss", "purchase"]),
            value=rng.choice([None, 1.0, 5.0]),
            timestamp=1_000_000_000 + rng.randrange(times),
        )
        for n in range(number)
    ]


def test_states_are_those_of_all_events_in_time_order(store_url: str) -> None:
    rng = random.Random(0)

    async def use(store: EventStore) -> None:
        events: list[Event] = []
        for times in (1, 5, 10_000):  # many of one time, too
            more = random_events(rng, 300, 40, times)
            events += more
            for start in range(0, 300, 37):
                await store.append(more[start : start + 37])
            state = (await store.user_states([1]))[1]
            assert told(state) == by_hand(events)
            assert list(state.timestamps) == sorted(state.timestamps)
            found = {pair.item_id: pair async for page in store.pairs(7) for pair in page}
            assert {
                item: (pair.timestamp, bool(pair.dismissed), pair.rating)
                for item, pair in found.items()
            } == by_hand(events)

    with_store(store_url, use)


def test_old_items_are_told_however_many_events_follow(store_url: str) -> None:
    async def use(store: EventStore) -> None:
        first = [
            event("dismissed", item_id=100_001, type="dismiss"),
            event("bought", item_id=100_002, type="purchase"),
        ]
        await store.append(first)
        # All of one time: no limit by time alone holds.
        for start in range(0, 6_000, 1_000):
            later = [
                event(f"v{n}", item_id=n % 1_500, type="view") for n in range(start, start + 1_000)
            ]
            await store.append(later)
        state = (await store.user_states([1, 2], max_items=1_000))[1]
        assert len(state.item_ids) == 1_000
        assert list(state.older_dismissed) == [100_001]
        assert list(state.older_dismissed_at) == [1_000_000_000]
        assert 100_002 in state.older
        assert len({*state.item_ids, *state.older}) == 1_501
        assert len(state.older) == 501

    with_store(store_url, use, timeout_seconds=20)


def test_a_user_with_very_many_events_is_read_as_fast_as_others(store_url: str) -> None:
    """By the number of rows that are read: a clock would tell of the machine."""

    async def use(store: EventStore) -> None:
        for start in range(0, 20_000, 5_000):
            await store.append(
                [event(f"e{n}", item_id=n % 30, type="view") for n in range(start, start + 5_000)]
            )
        state = (await store.user_states([1]))[1]
        assert len(state.item_ids) == 30
        assert list(state.older) == []

    with_store(store_url, use, timeout_seconds=20)


async def as_version_1(connection: AsyncConnection) -> None:
    for sql in (
        "DROP TABLE recsys_user_items",
        *(
            f"ALTER TABLE recsys_store DROP COLUMN {name}"
            for name in ("pruned_position", "secret", "catalogue")
        ),
        "UPDATE recsys_store SET schema_version = 1",
        "UPDATE recsys_events SET timestamp = 4000000000 WHERE event_id = 'future'",
        "UPDATE recsys_users SET forgotten_at = 5, forgotten_position = 2 WHERE user_id = '3'",
        "INSERT INTO recsys_users VALUES ('4', 3, 6, 3), ('5', 1, NULL, NULL)",
    ):
        await connection.execute(text(sql))


def test_a_store_of_before_is_brought_up_to_date(store_url: str) -> None:
    events = [
        event("a", type="rating", value=2.0, timestamp=100),
        event("b", timestamp=200),
        event("c", item_id=11, timestamp=200),
        event("d", item_id=11, type="dismiss", timestamp=200),
        event("future", user_id=2, item_id=12),
        event("back", user_id=3, item_id=13),
    ]

    async def make(store: EventStore) -> None:
        await store.append(events)
        await store._database.write(as_version_1)

    async def use(store: EventStore) -> None:
        states = await store.user_states([1, 2, 3, 4, 5])
        assert told(states[1]) == {10: (200, False, 2.0), 11: (200, True, None)}
        assert NOW <= states[2].timestamps[0] <= time.time()
        assert (states[3].forgotten_at, list(states[3].item_ids)) == (5, [13])
        assert (states[4].forgotten_at, list(states[4].item_ids)) == (6, [])
        assert (states[5].version, states[5].forgotten_at) == (0, None)
        assert len(await all_events(store)) == 6
        assert set(await store.forgotten_users()) == {store.tombstone(3), store.tombstone(4)}
        await store.append([event("e", item_id=11, timestamp=300)])
        assert told((await store.user_states([1]))[1])[11] == (300, False, None)

    with_store(store_url, make)
    with_store(store_url, use)
    with_store(store_url, all_events)  # and once only
