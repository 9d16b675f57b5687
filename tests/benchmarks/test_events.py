"""The benchmark of the event store, with few events."""

import argparse
from pathlib import Path

import pytest

from benchmarks import events
from tests.events.stores import all_events, with_store


@pytest.mark.slow
@pytest.mark.parametrize("name", ["untrained_bundle", "string_id_bundle"])
def test_all_events_are_stored(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bundle, url = request.getfixturevalue(name), f"sqlite+aiosqlite:///{tmp_path}/events.db"
    arguments = argparse.Namespace(bundle=bundle, store=url, events=205, batch=20, callers=3)
    content = events.measure(arguments)
    assert events.table_of(content).row_count == 8
    assert min(content["events_per_second"].values()) > 0
    stored = with_store(url, all_events, integers=name == "untrained_bundle")
    assert len(stored) == 4 * 205


def test_events_are_of_no_user_of_the_log(untrained_bundle: Path) -> None:
    ids = events.ids_of(untrained_bundle)
    numbers = [one.event_id for batch in ids.batches(7, 50, 20) for one in batch]
    assert numbers == [f"{ids.run}-e{n}" for n in range(7, 57)]
    assert not set(ids.users) & set(range(101, 191))
