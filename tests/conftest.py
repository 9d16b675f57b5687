"""Shared fixtures: bundles with untrained models, written and loaded like any other."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recsys.artifact import Stage2, build_cross_encoder, build_two_tower, save_artifact
from recsys.data.catalog import Catalog
from recsys.data.histories import Histories
from recsys.data.type_sets import from_names
from recsys.data.vocabulary import Vocabulary
from recsys.features import content_features
from recsys.index.builders import FlatIndexBuilder
from recsys.recommender import Recommender
from recsys.schema import ExternalId
from recsys.text.from_config import encoder_from_config
from recsys.text.reduction import TextReduction
from recsys.training.content_map import KernelRidge, fix_items
from recsys.training.folds import build_extractor
from tests.postgres import Cluster, programs

TOWER = {
    "dim": 8,
    "use_content": True,
    "use_bias": True,
    "hidden_dim": 0,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "length_exponent": 0.5,
}
ENCODER = {"dim": 8, "num_heads": 2, "num_layers": 1, "text_rank": 4, "dropout": 0.0}
RANK = 5


EVENT_TYPES = ["view", "cart", "purchase"]

TEXT_MODEL = {"encoder": {"_target_": "recsys.text.minilm.load", "device": "cpu"}}


def write_untrained_bundle(
    root: Path,
    user_ids: list[ExternalId],
    item_ids: list[ExternalId],
    *,
    stage2: bool = True,
    text_model: bool = False,
    typed: bool = False,
) -> Path:
    """A bundle with random weights; user p has the items p, p + 2, p + 4, p + 6 in history.

    Args:
        text_model: whether text vectors come from MiniLM; else they are random. typed: whether
            these four were viewed, bought and viewed again, put into a cart, and had somehow.
    """
    generator = torch.Generator().manual_seed(0)
    users, items = Vocabulary(user_ids), Vocabulary(item_ids)
    user_idx = np.repeat(np.arange(1, len(users) + 1), 4)
    item_idx = (user_idx + np.tile([0, 2, 4, 6], len(users))) % len(items) + 1
    context = np.eye(2, dtype=np.float32)[np.arange(len(users) + 1) % 2]
    context[0] = 0.5
    ages = [20 + 20 * (user % 2) for user in range(1, len(users) + 1)]
    # The third event of each user has no rating.
    ratings = np.where(np.arange(len(user_idx)) % 4 == 2, np.nan, 1.0 + user_idx % 5)
    types, type_sets = None, None
    if typed:
        types = np.tile(np.array([1, 1, 2, 0], np.int8), len(users))
        told = np.tile(['["view"]', '["purchase", "view"]', '["cart"]', ""], len(users))
        type_sets = from_names(pd.Series(told), EVENT_TYPES)
    histories = Histories.from_indices(
        user_idx,
        item_idx,
        10**9 + np.arange(len(user_idx)) * 60,
        len(users),
        context,
        ratings,
        types=types,
        type_sets=type_sets,
    )
    text = torch.nn.functional.normalize(torch.randn(len(items) + 1, 6, generator=generator), dim=1)
    text[0] = 0
    frame = pd.DataFrame(
        {
            "item_id": items.ids,
            "title": [f"Film {item}" for item in item_ids],
            "genres": [("Drama|War", "Comedy", "Drama")[n % 3] for n in range(len(items))],
            "year": [1980 + n % 20 for n in range(len(items))],
        }
    )
    catalog = Catalog.from_frame(frame, items)
    said_of_text: dict[str, object] = {}
    if text_model:
        encoder = encoder_from_config(TEXT_MODEL)
        text = torch.zeros(len(items) + 1, encoder.dim)
        text[1:] = torch.from_numpy(encoder.encode(catalog.texts()))
        said_of_text = {
            "text": {"fingerprint": encoder.fingerprint},
            "config": {"text": TEXT_MODEL},
        }
    attributes = torch.from_numpy(catalog.attributes)
    counts = torch.from_numpy(histories.item_counts(len(items)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        content = content_features(text, attributes, counts)
        two_tower = build_two_tower([TOWER], content, 2).eval()
        fix_items(two_tower, content, counts > 0, KernelRidge())
        torch.nn.init.normal_(two_tower.members[0].query_tower.context.weight, std=0.1)
        cross_encoder = build_cross_encoder(ENCODER, 1, RANK).eval()
    reduction = TextReduction.fit(text, RANK)
    extractor = build_extractor(histories, reduction(text), 4)
    return save_artifact(
        root,
        "untrained",
        manifest={
            "towers": [TOWER],
            "cross_encoder": ENCODER if stage2 else None,
            "num_candidates": 12,
            "max_query_history": 100,
            "max_history": 4,
            "relation_rank": RANK,
            **said_of_text,
            **({"event_types": EVENT_TYPES} if typed else {}),
            "item_attributes": catalog.attribute_names,
            "user_attributes": ["age: 10 to 30", "age: 31 to 60"],
        },
        users=users,
        items=items,
        user_frame=pd.DataFrame({"user_id": users.ids, "age": ages}),
        item_frame=catalog.items,
        histories=histories,
        text=text,
        attributes=attributes,
        two_tower=two_tower,
        index=FlatIndexBuilder().build(two_tower.all_candidates().detach().numpy()),
        stage2=Stage2(cross_encoder, extractor, reduction) if stage2 else None,
    )


@pytest.fixture(scope="session")
def untrained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 users 101, 102, … and 30 items 1001, 1002, …"""
    root = tmp_path_factory.mktemp("integers")
    return write_untrained_bundle(root, list(range(101, 191)), list(range(1001, 1031)))


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``untrained_bundle``, with text vectors of MiniLM."""
    root = tmp_path_factory.mktemp("texts")
    return write_untrained_bundle(
        root, list(range(101, 191)), list(range(1001, 1031)), text_model=True
    )


@pytest.fixture(scope="session")
def typed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``untrained_bundle``, with types of events."""
    root = tmp_path_factory.mktemp("types")
    return write_untrained_bundle(root, list(range(101, 191)), list(range(1001, 1031)), typed=True)


@pytest.fixture(scope="session")
def string_id_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users u1 … u9 and items i1 … i20; no stage 2."""
    root = tmp_path_factory.mktemp("strings")
    user_ids, item_ids = [f"u{n}" for n in range(1, 10)], [f"i{n}" for n in range(1, 21)]
    return write_untrained_bundle(root, user_ids, item_ids, stage2=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running PostgreSQL; what a test stops, it starts again."""
    if programs() is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def postgres_url(postgres: Cluster) -> str:
    """Of an empty database."""
    return postgres.create_database(f"test_{uuid.uuid4().hex}")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an event store that is not there yet, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/events.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def untrained_recommender(untrained_bundle: Path) -> Recommender:
    return Recommender.load(untrained_bundle)


@pytest.fixture(scope="session")
def string_id_recommender(string_id_bundle: Path) -> Recommender:
    return Recommender.load(string_id_bundle)
