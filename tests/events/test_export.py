"""From events to training data, by the commands that a user runs."""

import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from recsys.artifact import load_artifact, save_artifact
from recsys.data.files import load
from recsys.data.prepare import prepare_all
from recsys.data.type_sets import to_names
from recsys.events.store import EventStore
from recsys.events.types import Event
from recsys.export_events import export
from tests.events.stores import all_events, event, item, with_store

ROOT = Path(__file__).parents[2]
LATE = 1_700_000_000
PARTS = (
    *("users", "items", "user_frame", "item_frame", "text", "attributes", "two_tower", "index"),
    "stage2",
)


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

    tables = ("interactions", "items", "users")
    dataset = load(*(output / f"{name}.parquet" for name in tables))
    found = dataset.interactions
    pairs = set(zip(found["user_id"], found["item_id"], strict=True))
    assert (users[0], new[0]) in pairs
    assert (new[1], items[8]) in pairs
    assert (users[1], items[8]) not in pairs  # dismissed, whatever the log says
    assert users[3] not in set(found["user_id"])
    rated = found[(found["user_id"] == users[1]) & (found["item_id"] == items[7])]
    assert rated["rating"].tolist() == [3.5]
    assert dataset.users is not None
    assert set(dataset.users["user_id"]) == set(users) - {users[3]}
    assert set(dataset.users["age"]) == {20, 40}
    log = {pair for pair in logged(artifact) if pair[0] != users[3]} - {(users[1], items[8])}
    assert log <= pairs
    titles = dataset.items.set_index("item_id")["title"]
    assert titles[new[0]] == "New"
    assert titles[items[0]] == "Renamed"
    assert len(dataset.items) == len(items) + 1


@pytest.mark.parametrize("first", ["read", "delete"])
def test_a_user_deleted_during_an_export_is_not_in_it(
    untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    of_the_log = load_artifact(untrained_bundle).users.ids.tolist()[0]
    gone, kept = [of_the_log, 9001], 9002

    async def fill(store: EventStore) -> None:
        users = (*gone, kept)
        await store.append([event(str(user), user, 1001, timestamp=LATE) for user in users])

    with_store(url, fill)
    forgotten_users = EventStore.forgotten_users

    async def while_users_are_deleted(self: EventStore) -> dict:
        found = await forgotten_users(self)
        for user in gone:
            await self.delete_user(user)
        return found if first == "read" else await forgotten_users(self)

    monkeypatch.setattr(EventStore, "forgotten_users", while_users_are_deleted)
    export(url, untrained_bundle, tmp_path / "out")
    found = set(pd.read_parquet(tmp_path / "out" / "interactions.parquet")["user_id"])
    assert found.isdisjoint(gone)
    assert kept in found


def test_events_of_a_user_who_has_come_back_are_exported(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    user = load_artifact(untrained_bundle).users.ids.tolist()[0]

    async def fill(store: EventStore) -> None:
        await store.append([event("before", user, 1001, timestamp=LATE)])
        await store.delete_user(user)
        await store.append([event("after", user, 1002, timestamp=LATE)])

    with_store(url, fill)
    export(url, untrained_bundle, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert frame.loc[frame["user_id"] == user, "item_id"].tolist() == [1002]


def test_ratings_of_the_log_stay_and_later_ones_win(untrained_bundle: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    artifact = load_artifact(untrained_bundle)
    log = artifact.histories
    users, items = artifact.users.decode(log.user_idx), artifact.items.decode(log.item_idx)
    ratings = dict(zip(zip(users, items, strict=True), log.ratings, strict=True))
    clicked, rated, *_ = ratings

    async def fill(store: EventStore) -> None:
        await store.append(
            [
                event("a", *clicked, timestamp=LATE, type="click", value=7.0),
                event("b", *rated, timestamp=LATE, type="rating", value=0.5),
            ]
        )

    with_store(url, fill)
    export(url, untrained_bundle, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "interactions.parquet")
    found = frame.set_index(["user_id", "item_id"])
    assert found.loc[clicked, "timestamp"] == LATE
    assert found["rating"].to_dict() == pytest.approx(ratings | {rated: 0.5}, nan_ok=True)


def test_all_types_of_a_pair_outlive_an_export(typed_bundle: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    artifact = load_artifact(typed_bundle)
    log = artifact.histories
    users, items = artifact.users.decode(log.user_idx), artifact.items.decode(log.item_idx)
    viewed, bought, carted, untold, *_ = zip(users, items, strict=True)

    async def fill(store: EventStore) -> None:
        kinds = (("purchase", viewed), ("view", viewed), ("view", bought), ("click", untold))
        new = (("purchase", (9001, 1001)), ("view", (9001, 1001)), ("view", (9002, 1001)))
        sent = [
            event(f"e{number}", *pair, timestamp=LATE + number, type=kind)
            for number, (kind, pair) in enumerate((*kinds, *new))
        ]
        await store.append(sent)

    with_store(url, fill)
    done = export(url, typed_bundle, tmp_path / "out")
    dataset = load(done.files["interactions"], done.files["items"])
    data = prepare_all(dataset)
    names = to_names(data.train.type_sets, list(data.event_types))
    pairs = zip(
        data.users.decode(data.train.user_idx), data.items.decode(data.train.item_idx), strict=True
    )
    found = dict(zip(pairs, names, strict=True))
    assert found[viewed] == found[9001, 1001] == '["purchase", "view"]'
    assert found[bought] == '["purchase", "view"]'
    assert found[carted] == '["cart"]'
    assert found[untold] == '["click"]'
    assert found[9002, 1001] == '["view"]'
    # Without what has come in, an export is the log.
    other = f"sqlite+aiosqlite:///{tmp_path}/empty.db"
    with_store(other, EventStore.head)
    done = export(other, typed_bundle, tmp_path / "log")
    again = prepare_all(load(done.files["interactions"], done.files["items"])).train
    assert again.type_sets.shape == log.type_sets.shape
    assert len({*map(tuple, again.type_sets.tolist())}) == 4


def logged(artifact) -> set:
    log = artifact.histories
    users = artifact.users.decode(log.user_idx)
    return set(zip(users, artifact.items.decode(log.item_idx), strict=True))


def test_old_events_and_a_users_data_go(tmp_path: Path) -> None:
    now = int(time.time())
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    async def fill(store: EventStore) -> None:
        await store.append(
            [
                event("old", timestamp=10**9),
                event("new", timestamp=now),
                event("x", 7, timestamp=now),
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
        ("prune", "--store", "postgresql+asyncpg://user:secret/x", "--days", "1"),
        ("export", "--store", "nonsense", "--bundle", "nowhere", "--output", "out"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected")
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e300"])
def test_a_retention_that_is_no_number_of_days_deletes_nothing(tmp_path: Path, days: str) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    tomorrow = int(time.time()) + 3600
    with_store(url, lambda store: store.append([event("a", timestamp=tomorrow)]))
    done = run("prune", "--store", url, f"--days={days}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected --days of 0 to ")
    assert len(with_store(url, all_events)) == 1


@pytest.mark.parametrize("user", ["\u00b2", "u1", "-", "", "1_0", "07", "+7", " 7", "7.0"])
def test_a_user_that_is_no_integer_is_refused_where_ids_are(tmp_path: Path, user: str) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    with_store(url, all_events)
    done = run("forget", "--store", url, f"--user={user}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected an integer as --user")


def test_the_train_command_can_be_pasted_for_any_folder(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url, output = f"sqlite+aiosqlite:///{tmp_path}/events.db", tmp_path / "a folder"
    with_store(url, all_events)
    bundle = str(untrained_bundle)
    done = run("export", "--store", url, "--bundle", bundle, "--output", str(output))
    words = shlex.split(done.stdout.splitlines()[-1])
    assert f"data.interactions={output}/interactions.parquet" in words
    assert f"data.items={output}/items.parquet" in words
    assert f"data.users={output}/users.parquet" in words


def test_strengths_come_back_from_an_export_and_later_events_add_to_them(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    artifact = load_artifact(untrained_bundle)
    log, weights = artifact.histories, {"view": 1.0, "purchase": 10.0, "add: cart, a": 2.123456789}
    rng = np.random.default_rng(0)
    strengths = rng.choice(np.array([1.0, 2.5, 10.0], np.float32), len(log))
    types = rng.integers(0, 3, len(log)).astype(np.int8)
    bundle = save_artifact(
        tmp_path,
        "weighted",
        **{name: getattr(artifact, name) for name in PARTS},
        histories=replace(log, weights=strengths, types=types),
        manifest={
            **artifact.manifest,
            "event_types": list(weights),
            "event_weights": weights,
        },
    )
    users, items = artifact.users.decode(log.user_idx), artifact.items.decode(log.item_idx)
    pairs = list(zip(users, items, strict=True))
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    async def fill(store: EventStore) -> None:
        await store.append(
            [
                event("a", *pairs[0], timestamp=LATE, type="purchase"),
                event("b", *pairs[0], timestamp=LATE + 1, type="view"),
                event("c", 9001, items[0], timestamp=LATE, type="purchase"),
            ]
        )

    with_store(url, fill)
    done = run("export", "--store", url, "--bundle", str(bundle), "--output", str(tmp_path / "o"))
    assert done.returncode == 0, done.stderr
    (command,) = [line for line in done.stdout.splitlines() if "data=files" in line]
    (given,) = [part for part in shlex.split(command) if part.startswith("data.event_weights=")]
    parsed = OverridesParser.create().parse_override(given).value()
    assert {str(name): weight for name, weight in parsed.items()} == weights

    found = load(
        tmp_path / "o/interactions.parquet", tmp_path / "o/items.parquet", event_weights=weights
    ).interactions
    counted = found.set_index(["user_id", "item_id"])["weight"].astype(np.float32).to_dict()
    expected = dict(zip(pairs, strengths.tolist(), strict=True))
    expected[pairs[0]] += 11.0
    expected[(9001, items[0])] = 10.0
    assert counted == expected


def test_what_has_faded_counts_after_an_export_as_it_did(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    artifact = load_artifact(untrained_bundle)
    log, days = artifact.histories, 0.05
    end = int(log.timestamps.max())
    at_their_time = np.random.default_rng(0).choice(np.array([1.0, 2.5, 3.0]), len(log))
    weights = at_their_time * 0.5 ** ((end - log.timestamps) / 86_400 / days)
    bundle = save_artifact(
        tmp_path,
        "faded",
        **{name: getattr(artifact, name) for name in PARTS},
        histories=replace(log, weights=weights.astype(np.float32)),
        manifest={**artifact.manifest, "count_repeats": True, "half_life_days": days},
    )
    users, items = artifact.users.decode(log.user_idx), artifact.items.decode(log.item_idx)
    last = (users[-1], items[-1])
    soon = end + round(days * 86_400)
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    with_store(url, EventStore.head)
    done = export(url, bundle, tmp_path / "log")
    assert done.settings == {"count_repeats": "true", "half_life_days": "0.05"}

    def again(files: dict) -> dict[tuple, float]:
        tables = files["interactions"], files["items"]
        data = prepare_all(load(*tables, count_repeats=True, half_life_days=days))
        train = data.train
        names = data.users.decode(train.user_idx), data.items.decode(train.item_idx)
        return dict(zip(zip(*names, strict=True), train.weights.tolist(), strict=True))

    pairs = list(zip(users, items, strict=True))
    assert again(dict(done.files)) == pytest.approx(dict(zip(pairs, weights, strict=True)))
    # An event a half-life later halves all else, and adds to what its pair counted.
    with_store(url, lambda store: store.append([event("a", *last, timestamp=soon)]))
    found = again(dict(export(url, bundle, tmp_path / "more").files))
    expected = dict(zip(pairs, weights / 2, strict=True))
    expected[last] += 1.0
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_export_of_events_that_count_alike_has_no_weights(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"
    with_store(url, lambda store: store.append([event("a", 9001, 1001, timestamp=LATE)]))
    export(url, untrained_bundle, tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert "weight" not in frame
    assert frame.loc[frame["user_id"] == 9001, "type"].tolist() == ["like"]  # for the next training
    assert set(frame["type"]) == {"", "like"}
    assert "all_types" not in frame  # each pair has had one
