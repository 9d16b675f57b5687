"""From events to training data, by the commands that a user runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys.artifact import load_artifact
from recsys.data.files import load
from recsys.events.store import EventStore
from recsys.events.types import Event
from tests.events.test_store import all_events, event, item, with_store

ROOT = Path(__file__).parents[2]
LATE = 1_900_000_000


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recsys.events", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(params=["integers", "strings"])
def bundle(request: pytest.FixtureRequest) -> Path:
    names = {"integers": "untrained_bundle", "strings": "string_id_bundle"}
    path: Path = request.getfixturevalue(names[request.param])
    return path


def test_an_export_is_training_data(bundle: Path, tmp_path: Path) -> None:
    artifact = load_artifact(bundle)
    users, items = artifact.users.ids.tolist(), artifact.items.ids.tolist()
    integers = artifact.users.holds_integers
    new = [9001, 9002] if integers else ["n1", "n2"]
    events: list[Event] = [
        event("a", users[0], new[0], timestamp=LATE),
        event("b", users[1], items[7], timestamp=LATE, type="rating", value=3.5),
        event("c", users[1], items[8], timestamp=LATE, type="dismiss"),
        event("d", new[1], items[8], timestamp=LATE),
        event("e", users[2], 12345 if integers else "nowhere", timestamp=LATE),
    ]
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    async def fill(store: EventStore) -> None:
        await store.append(events)
        await store.put_items([item(new[0], "New", genres="War"), item(items[0], "Renamed")])
        await store.delete_user(users[3])

    with_store(url, fill, integers=integers)
    output = tmp_path / "out"
    done = run("export", "--store", url, "--bundle", str(bundle), "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "1 events of unknown items left out" in done.stdout
    assert "data=files" in done.stdout

    dataset = load(output / "interactions.parquet", output / "items.parquet")
    found = dataset.interactions
    pairs = set(zip(found["user_id"], found["item_id"], strict=True))
    assert (users[0], new[0]) in pairs
    assert (new[1], items[8]) in pairs
    assert (users[1], items[8]) not in pairs or (users[1], items[8]) in logged(artifact)
    assert users[3] not in set(found["user_id"])
    rated = found[(found["user_id"] == users[1]) & (found["item_id"] == items[7])]
    assert rated["rating"].tolist() == [3.5]
    log = {pair for pair in logged(artifact) if pair[0] != users[3]}
    assert log <= pairs
    titles = dataset.items.set_index("item_id")["title"]
    assert titles[new[0]] == "New"
    assert titles[items[0]] == "Renamed"
    assert len(dataset.items) == len(items) + 1


def logged(artifact) -> set:
    log = artifact.histories
    users = artifact.users.decode(log.user_idx)
    return set(zip(users, artifact.items.decode(log.item_idx), strict=True))


def test_old_events_and_a_users_data_go(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    async def fill(store: EventStore) -> None:
        await store.append(
            [
                event("old", timestamp=10**9),
                event("new", timestamp=LATE),
                event("x", 7, timestamp=LATE),
            ]
        )

    with_store(url, fill)
    assert "1 events deleted" in run("prune", "--store", url, "--days", "365").stdout
    assert "user 7 is forgotten" in run("forget", "--store", url, "--user", "7").stdout
    assert [one.event_id for one in with_store(url, all_events)] == ["new"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--store", "sqlite+aiosqlite:////nowhere/at/all.db", "--days", "1"),
        ("prune", "--store", "nonsense", "--days", "1"),
        ("export", "--store", "nonsense", "--bundle", "nowhere", "--output", "out"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected")
    assert len(done.stderr.splitlines()) == 1
