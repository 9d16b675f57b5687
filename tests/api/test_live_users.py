"""What is known of users is what was read of them, whether or not there is room to keep it."""

import asyncio

from recsys.api.live_users import LiveUsers
from recsys.events.types import UserState


def test_users_who_are_dropped_at_once_are_answered_from_what_was_read() -> None:
    async def read(user_ids):
        return {user: UserState(user, 1, [user], [5], [False], [None], [1]) for user in user_ids}

    async def ask():
        users = LiveUsers(read, lambda _: None, 1)
        found = await asyncio.gather(*(users.of(user) for user in range(1, 41)))
        return found, users.users()

    found, kept = asyncio.run(ask())
    assert [list(events.item_ids) for events in found] == [[user] for user in range(1, 41)]
    assert len(kept) < 40


def test_who_can_be_read_at_once_is_kept_from_then_on() -> None:
    asked = []

    def read_now(user):
        asked.append(user)
        return UserState(user, 1, [8], [5], [False], [None], [1]) if user == 1 else None

    async def read(user_ids):
        raise AssertionError(user_ids)

    users = LiveUsers(read, read_now, 10)
    assert users.known(1) is None
    for _ in range(2):
        found = users.now(1)
        assert found is not None
        assert list(found.item_ids) == [8]
    assert users.now(2) is None
    assert asked == [1, 2]
