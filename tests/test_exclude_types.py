"""Lists that leave out what was bought, and not what was viewed: of the log, live, everywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient

import recsys
from recsys import batch
from recsys.api.app import create_app
from recsys.api.models import ModelStore
from recsys.api.options import ServingOptions
from recsys.artifact import load_artifact
from recsys.errors import InputError
from recsys.events.types import type_set
from recsys.keyword_settings import composed
from recsys.recommender import Recommender
from recsys.request import Request, UserEvents
from recsys.rules import Rules
from recsys.schema import ExternalId

BOUGHT = Rules(exclude_types=("purchase",))
LATE = 2_000_000_000


@pytest.fixture(scope="module")
def recommender(typed_bundle: Path) -> Recommender:
    return Recommender.load(typed_bundle)


@pytest.fixture(scope="module")
def had(recommender: Recommender) -> tuple[ExternalId, ...]:
    """What user 104 has viewed, bought (and viewed), put into a cart, and had by no known type."""
    batch = recommender.histories.batch([Request(5, user_id=104)])
    viewed, bought, carted, untold = recommender.items.decode(batch.item_idx[0].numpy())
    return viewed, bought, carted, untold


def left_out(recommender: Recommender, request: Request) -> set[ExternalId]:
    """What the whole list of a request lacks, which all ways to make one agree on."""
    everything = set(recommender.items.ids.tolist())
    found = [recommender.recommend([request], rerank=rerank)[0] for rerank in (True, False)]
    found.append(recommender.popular([request])[0])
    missing = [everything - set(one.item_ids) for one in found]
    assert missing[0] == missing[1] == missing[2]
    assert set(recommender.returnable(request, list(everything))) == everything - missing[0]
    return missing[0]


def of_user(rules: Rules, user: int = 104, **events: Any) -> Request:
    return Request(30, user_id=user, rules=rules, events=UserEvents(1, **events))


def test_bought_items_go_and_viewed_ones_stay(recommender: Recommender, had: tuple) -> None:
    viewed, bought, carted, untold = had
    assert left_out(recommender, of_user(Rules())) == {*had}
    # By any event of the pair, not by the one that counts most; of no known type, to be safe.
    assert left_out(recommender, of_user(BOUGHT)) == {bought, untold}
    rules = Rules(exclude_types=("purchase", "cart"))
    assert left_out(recommender, of_user(rules)) == {bought, carted, untold}
    assert left_out(recommender, of_user(Rules(exclude_types=("view",)))) == {
        viewed,
        bought,
        untold,
    }
    assert left_out(recommender, of_user(Rules(exclude_types=()))) == {untold}
    assert not left_out(recommender, of_user(Rules(False, ("purchase",))))


def test_users_of_one_batch_have_rules_of_their_own(recommender: Recommender, had: tuple) -> None:
    requests = [of_user(rules, user) for user in (104, 105) for rules in (Rules(), BOUGHT)]
    together = [one.item_ids for one in recommender.recommend(requests)]
    alone = [recommender.recommend([request])[0].item_ids for request in requests]
    assert together == alone
    assert len({*map(len, together)}) == 2


def test_the_taste_is_that_of_all_events(recommender: Recommender) -> None:
    plain, typed = (
        recommender.retrieve([of_user(rules)]).encoded.queries for rules in (Rules(), BOUGHT)
    )
    assert plain.tolist() == typed.tolist()


def test_live_events_count_by_all_their_types(recommender: Recommender, had: tuple) -> None:
    viewed, bought, _, untold = had
    new = [1020, 1021, 1022, 1023]
    assert not {*new} & {*had}
    sets = [["view"], ["purchase", "view"], [], ["view"]]
    told = {
        "item_ids": new[:3],
        "timestamps": [LATE] * 3,
        "types": [type_set(names) for names in sets[:3]],
        "older": [1023, 1024],
        "older_types": [type_set(["view"]), type_set(["purchase"])],
    }
    assert left_out(recommender, of_user(BOUGHT, **told)) == {bought, untold, 1021, 1022, 1024}
    # An item of the log that is bought since, and one that is viewed since it was bought.
    later = {
        "item_ids": [viewed, bought],
        "timestamps": [LATE] * 2,
        "types": [type_set(["purchase"]), type_set(["view"])],
    }
    assert left_out(recommender, of_user(BOUGHT, **later)) == {viewed, bought, untold}
    # Where nothing is known of their types, all stay away.
    unknown = {"item_ids": [1020], "timestamps": [LATE], "older": [1023]}
    assert left_out(recommender, of_user(BOUGHT, **unknown)) == {bought, untold, 1020, 1023}


def test_dismissed_items_stay_away_whatever_the_types(recommender: Recommender, had: tuple) -> None:
    viewed, bought, _, untold = had
    events = {"dismissed": [viewed, 1020], "dismissed_at": [LATE] * 2}
    assert left_out(recommender, of_user(BOUGHT, **events)) == {viewed, 1020, bought, untold}


def test_a_given_history_has_no_types_and_stays_away(recommender: Recommender) -> None:
    request = Request(30, history=[1003, 1009], rules=BOUGHT)
    assert left_out(recommender, request) == {1003, 1009}


def test_nothing_of_a_forgotten_user_stays_away(recommender: Recommender) -> None:
    assert not left_out(recommender, of_user(BOUGHT, forgets_log=True))
    back = {"item_ids": [1020], "timestamps": [LATE], "types": [type_set(["purchase"])]}
    assert left_out(recommender, of_user(BOUGHT, forgets_log=True, **back)) == {1020}


def test_a_bundle_without_types_leaves_all_out(untrained_recommender: Recommender) -> None:
    plain, typed = (of_user(rules) for rules in (Rules(), BOUGHT))
    assert left_out(untrained_recommender, typed) == left_out(untrained_recommender, plain)


def test_bundles_keep_sets_of_types(typed_bundle: Path) -> None:
    histories = load_artifact(typed_bundle).histories
    assert histories.types[:4].tolist() == [1, 1, 2, 0]
    assert histories.type_sets[:4, 0].tolist() == [0x80, 0xA0, 0x40, 0]


# Python, batch and HTTP


@pytest.fixture
def client(typed_bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    options = ServingOptions(
        rules={"exclude_types": ["purchase"]}, store_url=f"sqlite+aiosqlite:///{tmp_path}/e.db"
    )
    app = create_app(ModelStore(typed_bundle, "cpu"), options)
    headers = {"X-Deadline-Ms": "60000"}
    with TestClient(
        app, client=("127.0.0.1", 1), base_url="http://localhost", headers=headers
    ) as client:
        yield client


def listed(client: TestClient, user: int = 104) -> list[ExternalId]:
    response = client.get(f"/recommend?user_id={user}&top_k=30")
    assert response.status_code == 200, response.text
    return response.json()["top_items"]


def test_python_batch_and_http_give_the_same_lists(
    client: TestClient, typed_bundle: Path, recommender: Recommender, tmp_path: Path
) -> None:
    users, output = [104, 105, 150], tmp_path / "recs.parquet"
    expected = [recommender.recommend([of_user(BOUGHT, user)])[0].item_ids for user in users]
    assert [len(one) for one in expected] == [28] * 3
    model = recsys.load(typed_bundle, device="cpu")
    by_python = model.recommend(users, 30, rules={"exclude_types": ["purchase"]})
    settings = {"bundle": typed_bundle, "output": output, "users": "104,105,150", "top_k": 30}
    batch.main(composed("batch", {**settings, "rules": {"exclude_types": ["purchase"]}}))
    for frame in (by_python, pd.read_parquet(output)):
        by_user = frame.groupby("user_id")["item_id"].agg(list)
        assert [by_user[user] for user in users] == expected
    assert [listed(client, user) for user in users] == expected
    body = {"user_ids": users, "top_k": 30}
    results = client.post("/recommend", json=body).json()["results"]
    assert [one["top_items"] for one in results] == expected


def test_http_tells_live_views_from_live_purchases(client: TestClient, had: tuple) -> None:
    viewed, bought, _, untold = had

    def post(*events: tuple[int, str]) -> None:
        sent = [
            {"event_id": f"{item}-{kind}", "user_id": 104, "item_id": item, "type": kind}
            for item, kind in events
        ]
        assert client.post("/events", json={"events": sent}).status_code == 200

    before = {*listed(client)}
    assert not before & {bought, untold}
    post((1020, "view"), (1021, "purchase"), (1021, "view"), (1022, "like"))
    assert {*listed(client)} == before - {1021}
    post((1020, "purchase"), (viewed, "purchase"), (1022, "dismiss"))
    assert {*listed(client)} == before - {1020, 1021, 1022, viewed}
    # A request may want it otherwise.
    rules: dict[str, Any]
    for rules, number in (
        ({"exclude_types": None}, 30 - 4 - 3),
        ({"exclude_types": ["purchase", "cart"]}, 30 - 6 - 1),
        ({"exclude_seen": False}, 30 - 1),
    ):
        body = {"user_ids": [104], "top_k": 30, "rules": rules}
        (found,) = client.post("/recommend", json=body).json()["results"]
        assert len(found["top_items"]) == number, rules


@pytest.mark.parametrize("wrong", ["bought", "Purchase"])
def test_a_type_that_nothing_knows_is_told_with_those_that_are(
    client: TestClient, typed_bundle: Path, recommender: Recommender, wrong: str
) -> None:
    known = "view, cart, purchase, click, like, rating, dismiss"
    body = {"user_ids": [104], "rules": {"exclude_types": ["purchase", wrong]}}
    refused = client.post("/recommend", json=body)
    assert refused.status_code == 400
    assert known in refused.text
    assert wrong in refused.text
    with pytest.raises(InputError, match=known):
        recsys.load(typed_bundle, device="cpu").recommend(104, rules={"exclude_types": [wrong]})
    options = ServingOptions(rules={"exclude_types": [wrong]})
    with pytest.raises(InputError, match=known):
        create_app(ModelStore(typed_bundle, "cpu"), options)
    with pytest.raises(InputError, match=known):
        batch.main(composed("batch", {"bundle": typed_bundle, "rules": {"exclude_types": [wrong]}}))
    with pytest.raises(InputError, match="list"):
        recsys.load(typed_bundle, device="cpu").recommend(104, rules={"exclude_types": "purchase"})
