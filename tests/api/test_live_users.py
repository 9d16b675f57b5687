"""What is known of users is what was read of them, whether or not there is room to keep it."""

import asyncio

from recsys.api.live_users import LiveUsers
from recsys.events.types import UserState


def test_users_who_are_dropped_at_once_are_answered_from_what_was_read() -> None:
    async def read(user_ids):
        return {user: UserState(user, 1, [user], [5], [False], [None], [1]) for user in user_ids}

    async def ask():
        users = LiveUsers(read, 1)
        found = await asyncio.gather(*(users.of(user) for user in range(1, 41)))
        return found, users.users()

    found, kept = asyncio.run(ask())
    assert [list(events.item_ids) for events in found] == [[user] for user in range(1, 41)]
    assert len(kept) < 40
