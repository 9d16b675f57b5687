"""SQLite's files are deleted, replaced, written over: what is acknowledged is in the file that has
the path, whoever else has the store open.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.events.types import StoreReplacedError, StoreUnavailableError
from tests.events.stores import all_events, event, with_store

ROOT = Path(__file__).parents[2]


@dataclass
class Files:
    """A store, and copies of it from before."""

    db: Path

    @property
    def wal(self) -> Path:
        return Path(f"{self.db}-wal")

    @property
    def shm(self) -> Path:
        return Path(f"{self.db}-shm")

    @property
    def copy(self) -> Path:
        return self.db.parent.parent / "copy"

    @property
    def copied_wal(self) -> Path:
        return self.db.parent.parent / "copy-wal"

    def put_aside(self) -> None:
        shutil.copy(self.db, self.copy)
        shutil.copy(self.wal, self.copied_wal)

    def backed_up(self) -> None:
        with closing(sqlite3.connect(self.db)) as source, closing(sqlite3.connect(self.copy)) as to:
            source.backup(to)

    def another(self) -> None:
        """In the place of a copy, the store of somebody else."""
        with_store(f"sqlite+aiosqlite:///{self.copy}", lambda store: store.append([event("other")]))


def deleted(files: Files) -> None:
    for file in (files.db, files.wal, files.shm):
        file.unlink()


def replaced_by_copies(files: Files) -> None:
    files.copied_wal.replace(files.wal)
    files.copy.replace(files.db)


def overwritten_by_copies(files: Files) -> None:
    shutil.copyfile(files.copy, files.db)
    shutil.copyfile(files.copied_wal, files.wal)


def folder_replaced(files: Files) -> None:
    other = files.db.parent.with_name("other")
    files.db.parent.rename(other)
    shutil.copytree(other, files.db.parent)


def nothing(files: Files) -> None:
    """Is prepared."""


Step = Callable[[Files], object]

# What is prepared, what is done, whether the event from before is still there in the end, else
# nobody can tell.
DAMAGES: dict[str, tuple[Step, Step, bool]] = {
    "all deleted": (nothing, deleted, False),
    "database deleted": (nothing, lambda files: files.db.unlink(), False),
    "WAL deleted": (nothing, lambda files: files.wal.unlink(), True),
    "index deleted": (nothing, lambda files: files.shm.unlink(), True),
    "replaced by copies": (Files.put_aside, replaced_by_copies, True),
    "replaced by a backup": (Files.backed_up, lambda f: f.copy.replace(f.db), True),
    "overwritten by copies": (Files.put_aside, overwritten_by_copies, True),
    "overwritten by a backup": (Files.backed_up, lambda f: shutil.copyfile(f.copy, f.db), True),
    "overwritten by another": (Files.another, lambda f: shutil.copyfile(f.copy, f.db), False),
    "truncated": (nothing, lambda files: os.truncate(files.db, 0), False),
    "folder replaced": (nothing, folder_replaced, True),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_acknowledged_is_in_the_file_at_the_path(tmp_path: Path, name: str) -> None:
    prepared, damage, stays = DAMAGES[name]
    files = Files(tmp_path / "folder" / "e.db")
    url = f"sqlite+aiosqlite:///{files.db}"
    acknowledged = []

    async def opened() -> EventStore:
        return await EventStore.open(url, holds_integer_users=True, holds_integer_items=True)

    async def use() -> None:
        # As processes have them, each its own; the other one has the lost files open for longer.
        store = await opened()
        await store.append([event("before")])
        await asyncio.to_thread(prepared, files)
        await store.append([event("later")])
        if name == "overwritten by a backup":
            # Of the time since the latest checkpoint, it would change nothing.
            await store.delete_user(77)
        await asyncio.to_thread(damage, files)
        with pytest.raises(StoreUnavailableError):
            await store.append([event("refused")])
        with pytest.raises(StoreReplacedError):
            store.may_have_changed()
        await store.close()
        store = await opened()
        for n in range(3):
            await store.append([event(f"after-{n}")])
            acknowledged.append(f"after-{n}")
        await store.close()

    asyncio.run(use())
    stored = {one.event_id for one in with_store(url, all_events)}
    assert set(acknowledged) <= stored
    assert not stays or "before" in stored
    with closing(sqlite3.connect(files.db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


WRITER = """
import asyncio, sys
from recsys.events.store import EventStore
from recsys.events.types import Event, StoreReplacedError, StoreUnavailableError

async def main(url, name):
    n, store = 0, None
    while True:
        n += 1
        try:
            if store is None:
                store = await EventStore.open(
                    url, holds_integer_users=True, holds_integer_items=True
                )
            await store.append([Event(f"{name}-{n}", n % 9, n % 50, "view", None, n)])
            print(f"{name}-{n}", flush=True)
        except StoreReplacedError:
            await store.close()
            store = None
            print("-", flush=True)
            await asyncio.sleep(0.5)
        except StoreUnavailableError:
            pass
        await asyncio.sleep(0.002)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["WAL deleted", "replaced by a backup", "overwritten by another"])
def test_several_processes_lose_nothing_either(tmp_path: Path, name: str) -> None:
    prepared, damage, _ = DAMAGES[name]
    files = Files(tmp_path / "folder" / "e.db")
    url = f"sqlite+aiosqlite:///{files.db}"
    with_store(url, all_events)
    command = [sys.executable, "-c", WRITER, url]
    writers = [
        subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    try:
        for one in writers:
            assert one.stdout is not None
            one.stdout.readline()
        prepared(files)
        damage(files)
        # Each has noticed, and stores again.
        lines: list[str] = []
        for one in writers:
            assert one.stdout is not None
            while one.stdout.readline() != "-\n":
                pass
            lines += [one.stdout.readline().strip() for _ in range(5)]
    finally:
        for one in writers:
            one.kill()
            one.wait()
    for one in writers:
        assert one.stdout is not None
        lines += one.stdout.read().split("\n")[:-1]
        one.stdout.close()
    acknowledged = set(lines) - {"-"}
    assert acknowledged <= {one.event_id for one in with_store(url, all_events)}
    with closing(sqlite3.connect(files.db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_is_cut_off_is_told_and_nothing_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "e.db"

    async def use(store: EventStore) -> None:
        await store.append([event(f"e{n}") for n in range(500)])
        await store.delete_user(7)  # a checkpoint
        os.truncate(file, file.stat().st_size // 8192 * 4096)
        with pytest.raises(StoreUnavailableError, match="cut off"):
            await store.append([event("a")])

    with_store(f"sqlite+aiosqlite:///{file}", use)


def test_checkpoints_of_others_are_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "e.db"
    url = f"sqlite+aiosqlite:///{file}"

    async def use(store: EventStore) -> None:
        other = await EventStore.open(url)
        for n in range(40):
            await store.append([event(f"{n}-{m}", item_id=m) for m in range(200)])
            await other.append([event(f"other-{n}")])
            if n % 10 == 5:
                await other.delete_user(n)  # empties the WAL
            if n % 10 == 7:
                with closing(sqlite3.connect(file, isolation_level=None, timeout=5)) as by_hand:
                    by_hand.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            store.may_have_changed()
        assert Path(f"{file}-wal").stat().st_size < 20_000_000
        await other.close()

    with_store(url, use, timeout_seconds=10)


def test_a_former_state_that_is_restored_by_sqlite_itself_is_noticed(tmp_path: Path) -> None:
    files = Files(tmp_path / "folder" / "e.db")

    async def use(store: EventStore) -> None:
        await store.append([event("a")])
        files.backed_up()
        await store.append([event("b"), event("c")])
        position = await store.head()
        source, to = sqlite3.connect(files.copy), sqlite3.connect(files.db)
        with closing(source), closing(to):
            source.backup(to)
        with pytest.raises(StoreReplacedError, match="a state of before"):
            await store.changes(position)

    with_store(f"sqlite+aiosqlite:///{files.db}", use)


@pytest.mark.parametrize("name", ["a%20b", "what?now", "a#b", "a b", "a%b", "é;'\"", "x=1&y"])
def test_the_path_of_a_store_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "e.db"
    with_store(f"sqlite+aiosqlite:///{file}", lambda store: store.append([event("a")]))
    assert file.is_file()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_path_with_escapes_may_be_given_where_it_leads_somewhere(tmp_path: Path) -> None:
    (tmp_path / "what?now").mkdir()
    with_store(f"sqlite+aiosqlite:///{tmp_path}/what%3Fnow/e.db", all_events)
    assert (tmp_path / "what?now" / "e.db").is_file()


def test_a_folder_that_is_away_is_not_made_anew(tmp_path: Path) -> None:
    async def use() -> None:
        with pytest.raises(InputError, match="No such file or directory"):
            await EventStore.open(
                f"sqlite+aiosqlite:///{tmp_path}/gone/e.db",
                holds_integer_users=True,
                holds_integer_items=True,
                make_folder=False,
            )

    started = time.monotonic()
    asyncio.run(use())
    assert time.monotonic() - started < 30
    assert not (tmp_path / "gone").exists()
