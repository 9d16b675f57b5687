"""One state per user and item, of all events, however many and in whatever order they come in."""

import random
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from recsys.events.migrate import from_version_2, type_states
from recsys.events.store import EventStore
from recsys.events.types import Event, UserState, type_names
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


def types_of(state: UserState) -> dict[int | str, set[str]]:
    pairs = [*zip(state.item_ids, state.types, strict=True)]
    pairs += zip(state.older, state.older_types, strict=True)
    return {item: {*type_names(types)} for item, types in pairs}


def types_by_hand(events: list[Event]) -> dict[int | str, set[str]]:
    found: dict[int | str, set[str]] = {}
    for one in events:
        found.setdefault(one.item_id, set()).update({one.type} - {"dismiss"})
    return found


def test_states_know_the_types_of_all_events(store_url: str) -> None:
    rng = random.Random(1)

    async def use(store: EventStore) -> None:
        events: list[Event] = []
        for times in (1, 10_000):
            more = random_events(rng, 200, 40, times)
            events += more
            for start in range(0, 200, 37):
                await store.append(more[start : start + 37])
            assert types_of((await store.user_states([1]))[1]) == types_by_hand(events)
        pairs = [pair async for page in store.pairs(7) for pair in page]
        assert {pair.item_id: {*type_names(pair.types)} for pair in pairs} == types_by_hand(events)
        # Of an item that is told without details, too, unless it was dismissed last.
        state = (await store.user_states([1], max_items=1))[1]
        assert len(state.older) > 10
        assert types_of(state).items() <= types_by_hand(events).items()

    with_store(store_url, use)


def test_an_event_that_expires_takes_its_type_along(store_url: str) -> None:
    events = [
        event("bought", type="purchase", timestamp=100),
        event("liked", type="like", timestamp=100),
        event("liked again", type="like", timestamp=900),
        event("viewed", type="view", timestamp=900),
        event("viewed once", item_id=11, type="view", timestamp=900),
        event("bought late", user_id=2, type="purchase", timestamp=900),
    ]

    async def use(store: EventStore) -> None:
        await store.append(events)
        before = (await store.user_states([1]))[1]
        assert types_of(before) == {10: {"purchase", "like", "view"}, 11: {"view"}}
        assert await store.prune(500) == 2
        states = await store.user_states([1, 2])
        assert types_of(states[1]) == {10: {"like", "view"}, 11: {"view"}}
        assert types_of(states[2]) == {10: {"purchase"}}
        assert states[1].version > before.version

    with_store(store_url, use)


AS_VERSION_2 = (
    "ALTER TABLE recsys_user_items DROP COLUMN types",
    "ALTER TABLE recsys_store DROP COLUMN untyped_position",
    "UPDATE recsys_store SET schema_version = 2",
)


async def as_version_2(connection: AsyncConnection) -> None:
    for sql in AS_VERSION_2:
        await connection.execute(text(sql))


def test_a_store_of_before_there_were_types_gets_them_from_its_events(store_url: str) -> None:
    # More than one transaction takes.
    events = random_events(random.Random(2), 4_500, 700, 10_000)

    async def make(store: EventStore) -> None:
        for start in range(0, len(events), 900):
            await store.append(events[start : start + 900])
        await store._database.write(as_version_2)

    async def use(store: EventStore) -> None:
        state = (await store.user_states([1]))[1]
        assert types_of(state).items() <= types_by_hand(events).items()
        assert told(state) == by_hand(events)
        pairs = [pair async for page in store.pairs() for pair in page]
        assert {pair.item_id: {*type_names(pair.types)} for pair in pairs} == types_by_hand(events)
        assert {*await all_events(store)} == {*events}
        await store.append([event("e", item_id=1, type="like")])
        after = types_of((await store.user_states([1]))[1])[1]
        assert after == types_by_hand(events)[1] | {"like"}

    with_store(store_url, make, timeout_seconds=20)
    with_store(store_url, use, timeout_seconds=20)
    with_store(store_url, all_events)  # and once only


def test_what_one_process_has_not_come_to_another_one_does(store_url: str) -> None:
    events = random_events(random.Random(3), 2_500, 50, 10)

    async def make(store: EventStore) -> None:
        for start in range(0, len(events), 900):
            await store.append(events[start : start + 900])
        await store._database.write(as_version_2)
        await store._database.write(from_version_2)
        assert await store._database.write(type_states)
        # Of the events of the first transaction alone.
        found = types_by_hand(events[:2_000])
        pairs = [pair async for page in store.pairs() for pair in page]
        assert {pair.item_id: {*type_names(pair.types)} for pair in pairs} == found
        # An event that comes meanwhile has its own.
        await store.append([event("new", item_id=50, type="click")])

    async def use(store: EventStore) -> None:
        pairs = [pair async for page in store.pairs() for pair in page]
        found = {pair.item_id: {*type_names(pair.types)} for pair in pairs}
        assert found == types_by_hand(events) | {50: {"click"}}

    with_store(store_url, make, timeout_seconds=20)
    with_store(store_url, use)


async def as_version_1(connection: AsyncConnection) -> None:
    for sql in (
        "DROP TABLE recsys_user_items",
        *(
            f"ALTER TABLE recsys_store DROP COLUMN {name}"
            for name in ("pruned_position", "secret", "catalogue", "untyped_position")
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
        assert types_of(states[1]) == {10: {"rating", "like"}, 11: {"like"}}
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
