"""``python -m recsys.events``: events to training data, retention, deletion of users' data."""

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from recsys.core.ids import integer_id
from recsys.errors import InputError
from recsys.events.store import SECONDS_OF_A_COMMAND, EventStore
from recsys.events.types import StoreUnavailableError

_USAGE_ERROR = 2
_SECONDS_PER_DAY = 86_400
_MOST_DAYS = 100_000


def main() -> None:
    """Run one of the commands."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except (InputError, StoreUnavailableError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(_USAGE_ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.events", description="What the event store of a server holds."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], about: str) -> None:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        added.add_argument(
            "--store",
            required=True,
            metavar="URL",
            help="sqlite+aiosqlite:///checkpoints/ml100k.events.db or postgresql+asyncpg://…",
        )
        if name in ("export", "adopt"):
            added.add_argument(
                "--bundle", type=Path, default=Path("checkpoints/latest"), help="what is served"
            )
        if name == "export":
            added.add_argument("--output", type=Path, required=True, help="a folder to write")
        elif name == "prune":
            added.add_argument("--days", type=float, required=True, help="that events are kept")
        elif name == "forget":
            added.add_argument("--user", required=True, help="a user's id")

    command("export", _export, "write the training log, events and items for train.py data=files")
    command("prune", _prune, "delete events that are older than so many days")
    command("forget", _forget, "delete a user's data, as DELETE /users/ID does")
    command("adopt", _adopt, "tell a store that the bundle is of its data set, whose items changed")
    return parser


def _export(arguments: argparse.Namespace) -> None:
    # Imported here, since it loads PyTorch.
    from recsys.export_events import export

    done = export(arguments.store, arguments.bundle, arguments.output)
    left_out = f", {done.num_unknown:,} events of unknown items left out" * bool(done.num_unknown)
    print(f"{done.num_interactions:,} interactions and {done.num_items:,} items{left_out}")
    # The name goes along: by it the next model finds the same store.
    settings = {"name": done.name, **done.files, **done.settings}
    files = shlex.join(f"data.{name}={value}" for name, value in settings.items())
    print(f"Train on them:  python train.py stage=all data=files {files}")


def _prune(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.days <= _MOST_DAYS:  # nor is NaN
        raise InputError(f"--days of 0 to {_MOST_DAYS:,}", f"{arguments.days:g}", "correct it")
    before = int(time.time() - arguments.days * _SECONDS_PER_DAY)
    number = _with_store(arguments.store, lambda store: store.prune(before))
    print(f"{number:,} events deleted")


def _forget(arguments: argparse.Namespace) -> None:
    async def forget(store: EventStore) -> int:
        user_id = arguments.user
        if store.holds_integer_users:
            user_id = integer_id(user_id)
            if user_id is None:
                found = repr(arguments.user)
                raise InputError("an integer as --user, such as 7 or -7", found, "correct it")
        await store.delete_user(user_id)
        return 1

    _with_store(arguments.store, forget)
    print(f"user {arguments.user} is forgotten")


def _adopt(arguments: argparse.Namespace) -> None:
    # Imported here, since it loads PyTorch.
    from recsys.export_events import adopt

    asyncio.run(adopt(arguments.store, arguments.bundle))
    print(f"the store is one of {arguments.bundle}'s data set")


def _with_store(url: str, use: Callable[[EventStore], Awaitable[int]]) -> int:
    async def run() -> int:
        store = await EventStore.open(url, timeout_seconds=SECONDS_OF_A_COMMAND)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
