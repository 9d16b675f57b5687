"""The model that is served: what may take its place, and what is left of it then."""

import asyncio
import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.api.batcher import OverloadedError
from recsys.api.models import ModelStore
from recsys.artifact import load_artifact
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request
from tests.conftest import write_untrained_bundle
from tests.events.stores import event

USERS, ITEMS = list(range(101, 191)), list(range(1001, 1031))


@pytest.fixture
def store(untrained_bundle: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(untrained_bundle, tmp_path / "first")
    return ModelStore(tmp_path / "first", "cpu")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what nothing refers to any more is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_replaced_model_is_freed_at_once(store: ModelStore, no_collector: None) -> None:
    for _ in range(3):
        store.current.recommend([Request(5, user_id=user) for user in USERS])
        before = weakref.ref(store.current)
        store.reload()
        assert before() is None


def test_a_model_of_which_one_with_more_items_is_made_is_freed_at_once(
    untrained_bundle: Path, no_collector: None
) -> None:
    model = Recommender.load(untrained_bundle)
    before = weakref.ref(model)
    frame = pd.DataFrame({"item_id": [5], "title": ["A"], "genres": ["War"], "year": [1990]})
    text = np.ones((1, model.artifact.text.shape[1]), np.float32)
    later = model.with_items(frame, text)
    del model
    assert before() is None
    assert 5 in later.items.ids.tolist()


@pytest.mark.parametrize(
    ("users", "items", "kind"),
    [
        ([str(user) for user in USERS], ITEMS, "user"),
        (USERS, [str(item) for item in ITEMS], "item"),
    ],
)
def test_a_bundle_with_other_ids_is_refused(
    store: ModelStore, tmp_path: Path, users: list, items: list, kind: str
) -> None:
    write_untrained_bundle(tmp_path / "x", users, items).rename(tmp_path / "other")
    before = store.current
    with pytest.raises(InputError, match=f"{kind} ids have the type .* another type in other"):
        store.reload("other")
    assert store.current is before


def test_whatever_a_load_fails_with_is_an_input_error(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    before = store.current
    monkeypatch.setattr(Recommender, "load", fail)
    with pytest.raises(InputError, match=r"to load .*/first; found MemoryError\('no room'\)"):
        store.reload()
    assert store.current is before


def test_a_bundle_that_is_being_written_cannot_be_named(store: ModelStore, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "first", tmp_path / ".second.partial")
    with pytest.raises(InputError, match="the name of a bundle's folder"):
        store.reload(".second.partial")


def test_without_the_folder_nothing_can_be_named(store: ModelStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "first")
    tmp_path.rmdir()
    with pytest.raises(InputError, match="the name of a bundle's folder"):
        store.reload("first")


def test_a_first_user_who_has_every_item_is_no_fault(tmp_path: Path) -> None:
    # Four events of three items.
    bundle = write_untrained_bundle(tmp_path, USERS, [1, 2, 3])
    model = ModelStore(bundle, "cpu").current
    assert model.recommend([Request(5, user_id=101)])[0].item_ids == []


def test_an_empty_list_without_that_reason_is_refused(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Recommender.recommend

    def none(self: Recommender, requests: list[Request]) -> list:
        (found,) = whole(self, requests)
        found.item_ids.clear()
        return [found]

    monkeypatch.setattr(Recommender, "recommend", none)
    with pytest.raises(InputError, match="a bundle that recommends; found an empty list"):
        store.reload()


def test_reloads_that_wait_take_nobody_s_thread(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, loads = threading.Event(), []

    def load(name: str | None) -> Recommender:
        loads.append(name)
        assert go_on.wait(30)
        return store.current

    monkeypatch.setattr(store, "reload", load)

    async def ask() -> None:
        reloads = [asyncio.create_task(store.reload_in_turn()) for _ in range(30)]
        named = [asyncio.create_task(store.reload_in_turn(str(n))) for n in range(9)]
        while not loads:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            await asyncio.gather(*(asyncio.to_thread(len, "") for _ in range(50)))
        go_on.set()
        assert set(await asyncio.gather(*reloads)) == {store.current}
        told = await asyncio.gather(*named, return_exceptions=True)
        assert any(isinstance(one, OverloadedError) for one in told)

    asyncio.run(ask())
    assert loads.count(None) <= 2
    assert len(loads) <= 6


def test_a_reload_that_does_not_end_is_told(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.api.models._SECONDS_TO_RELOAD", 0.2)
    go_on = threading.Event()
    monkeypatch.setattr(store, "reload", lambda _: go_on.wait(30))

    async def ask() -> None:
        try:
            with pytest.raises(InputError, match="one that still loads"):
                await store.reload_in_turn()
        finally:
            go_on.set()

    asyncio.run(ask())


def test_live_events_count_in_popularity_as_their_types_do(
    untrained_bundle: Path, tmp_path: Path
) -> None:
    artifact = load_artifact(untrained_bundle)
    manifest = {**artifact.manifest, "event_weights": {"view": 2.0, "purchase": 10.0}}
    store = ModelStore(untrained_bundle, "cpu")
    store.current = Recommender(replace(artifact, manifest=manifest))
    features = store.current.features
    before = features.decayed_popularity()
    at = int(time.time())
    kinds = {ITEMS[0]: "purchase", ITEMS[1]: "view", ITEMS[2]: "like", ITEMS[3]: "dismiss"}
    store.count(
        [event(kind, 9001, item_id, type=kind, timestamp=at) for item_id, kind in kinds.items()]
    )
    grown = features.decayed_popularity()[1:5]
    # What was there before has faded to next to nothing by now.
    np.testing.assert_allclose(grown, [10.0, 2.0, 1.0, 0.0], atol=1e-3 + before.max() * 1e-3)
