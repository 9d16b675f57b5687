"""Items that users have dismissed in the training data: of no list, from bundle to export."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.artifact import Artifact, load_artifact, save_artifact
from recsys.bundle import read_bundle
from recsys.data.files import load
from recsys.data.histories import Histories
from recsys.data.prepare import prepare_all
from recsys.errors import InputError
from recsys.events.store import EventStore
from recsys.export_events import export
from recsys.recommender import Recommender
from recsys.request import Request, UserEvents
from recsys.rules import Rules
from recsys.schema import ExternalId
from tests.events.stores import event, with_store

AT = 1_500_000_000
LATER = 1_700_000_000
PARTS = (
    *("users", "items", "user_frame", "item_frame", "text", "attributes", "two_tower", "index"),
    *("histories", "stage2"),
)


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """User 104 has dismissed the items 1020 and 1021, user 105 the item 1022."""
    artifact = load_artifact(untrained_bundle)
    dismissed = Histories.from_frame(
        pd.DataFrame(
            {"user_id": [104, 105, 104], "item_id": [1020, 1022, 1021], "timestamp": [AT] * 3}
        ),
        artifact.users,
        artifact.items,
    )
    return written(tmp_path_factory.mktemp("dismissed"), artifact, dismissed)


def written(root: Path, artifact: Artifact, dismissed: Histories) -> Path:
    parts = {name: getattr(artifact, name) for name in PARTS}
    return save_artifact(
        root, "dismissed", manifest=artifact.manifest, dismissed=dismissed, **parts
    )


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


def left_out(recommender: Recommender, request: Request) -> set[ExternalId]:
    everything = set(recommender.items.ids.tolist())
    found = [recommender.recommend([request], rerank=rerank)[0] for rerank in (True, False)]
    found.append(recommender.popular([request])[0])
    missing = [everything - set(one.item_ids) for one in found]
    assert missing[0] == missing[1] == missing[2]
    assert set(recommender.returnable(request, list(everything))) == everything - missing[0]
    return missing[0]


def had(recommender: Recommender, user: int = 104) -> set[ExternalId]:
    batch = recommender.histories.batch([Request(5, user_id=user)])
    return set(recommender.items.decode(batch.item_idx[batch.mask].numpy()))


def test_dismissed_items_are_in_no_list_of_their_user(recommender: Recommender) -> None:
    plain = Request(30, user_id=104)
    assert left_out(recommender, plain) == had(recommender) | {1020, 1021}
    assert left_out(recommender, Request(30, user_id=105)) == had(recommender, 105) | {1022}
    anyway = Request(30, user_id=104, rules=Rules(exclude_seen=False))
    assert left_out(recommender, anyway) == {1020, 1021}
    assert not left_out(recommender, Request(30, user_id=7))
    # They are no taste.
    assert not had(recommender) & {1020, 1021}


def test_a_later_event_takes_a_dismissal_back(recommender: Recommender) -> None:
    after = UserEvents(1, [1020, 1021], [LATER, AT - 1])
    anyway = Rules(exclude_seen=False)
    request = Request(30, user_id=104, events=after, rules=anyway)
    assert left_out(recommender, request) == {1021}
    gone = UserEvents(1, forgets_log=True)
    assert not left_out(recommender, Request(30, user_id=104, events=gone))


def test_bundles_without_dismissals_have_no_file_of_them(
    untrained_bundle: Path, bundle: Path
) -> None:
    assert "dismissed" not in read_bundle(untrained_bundle).tensors
    assert load_artifact(untrained_bundle).dismissed is None
    assert (bundle / "dismissed.safetensors").is_file()


def test_dismissals_of_other_items_are_refused(untrained_bundle: Path, tmp_path: Path) -> None:
    artifact = load_artifact(untrained_bundle)
    one = np.ones(1, np.int64)
    beyond = Histories.from_indices(one, 99 * one, one, len(artifact.users))
    with pytest.raises(InputError, match="dismissed items"):
        load_artifact(written(tmp_path, artifact, beyond))
    fewer = Histories.from_indices(one, one, one, 3)
    with pytest.raises(InputError, match="users with dismissed items"):
        load_artifact(written(tmp_path, artifact, fewer))


def test_an_export_tells_dismissals_of_the_bundle_and_of_the_store(
    bundle: Path, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    async def fill(store: EventStore) -> None:
        sent = [(104, 1020, "like"), (104, 1023, "dismiss"), (106, 1001, "dismiss")]
        await store.append(
            [
                event(f"e{number}", user, item, type=kind, timestamp=LATER)
                for number, (user, item, kind) in enumerate(sent)
            ]
        )

    with_store(url, fill)
    done = export(url, bundle, tmp_path / "out")
    dataset = load(done.files["interactions"], done.files["items"])
    assert len(dataset.interactions) == done.num_interactions
    assert dataset.dismissed is not None
    told = zip(dataset.dismissed["user_id"], dataset.dismissed["item_id"], strict=True)
    assert {*told} == {(104, 1021), (104, 1023), (105, 1022), (106, 1001)}
    pairs = {*zip(dataset.interactions["user_id"], dataset.interactions["item_id"], strict=True)}
    assert (104, 1020) in pairs
    assert prepare_all(dataset).dismissed is not None
