"""Bundles of any size, untrained: what they cost to serve does not depend on their weights.

    python benchmarks/synthetic_bundle.py 60000x100000 --root checkpoints/synthetic

Widths, index, and how much of a history counts, are those of configs/train.yaml; for more items
than the default towers take, of retrieval=large_catalog. Users have about a
hundred events on average, most fewer and some many more; few items have most of the events.
"""

if not __package__:  # run as a file
    import _root  # type: ignore[import-not-found]  # noqa: F401

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from recsys.artifact import Stage2, build_cross_encoder, build_two_tower, save_artifact
from recsys.cli import CONFIG_DIR
from recsys.data.catalog import Catalog
from recsys.data.histories import Histories
from recsys.data.user_attributes import UserAttributes
from recsys.data.vocabulary import Vocabulary
from recsys.features import ContentFeatures, content_features
from recsys.models.content_map import ContentMap
from recsys.models.cross_encoder import CrossEncoder
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.overrides import HYDRA_VERSION
from recsys.schema import GENRES, ITEM_ID, TITLE, USER_ID, YEAR
from recsys.signals.extractor import SignalExtractor
from recsys.signals.relations import RELATIONS, Relations
from recsys.text.reduction import TextReduction
from recsys.training.query_sample import sample_queries

MEAN_EVENTS, SPREAD, MOST_EVENTS = 100, 1.0, 1_000
"""Of a user: numbers of events are log-normal."""
SPECTRUM = 0.6
"""The n-th component of a tower's vectors has a spread of n ** -SPECTRUM: what search costs by
codes depends on it."""
TEXT_WIDTH, NUM_GENRES, NUM_LANDMARKS = 384, 18, 1_000
_FIRST_TIME, _DAY = 1_500_000_000, 86_400
_CALIBRATED = 256


class Size(NamedTuple):
    """Of a data set."""

    num_items: int
    num_users: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Of ``ITEMSxUSERS``.

        Raises:
            ValueError: when it is something else, or there are fewer than 10 of either.
        """
        num_items, num_users = map(int, text.split("x"))
        if min(num_items, num_users) < 10:
            raise ValueError("at least 10 items and 10 users")
        return cls(num_items, num_users)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("size", type=Size.parse, help="ITEMSxUSERS")
    parser.add_argument("--root", type=Path, required=True, help="folder of the bundle's folder")
    arguments = parser.parse_args()
    print(write_bundle(arguments.size, arguments.root))


def write_bundle(size: Size, root: Path, overrides: Sequence[str] = ()) -> Path:
    """A bundle below ``root``; the same for the same size, but for its date.

    Args:
        overrides: of configs/train.yaml.
    """
    with initialize_config_dir(str(CONFIG_DIR), version_base=HYDRA_VERSION):
        cfg = compose("train", list(overrides))
        if size.num_items > cfg.retrieval.towers.linear.objective.max_items:
            cfg = compose("train", ["retrieval=large_catalog", *overrides])
    rng = np.random.default_rng(0)
    users = Vocabulary(np.arange(1, size.num_users + 1).tolist())
    items = Vocabulary(np.arange(1, size.num_items + 1).tolist())
    user_frame = _user_frame(rng, users)
    known = UserAttributes.from_frame(user_frame, users)
    histories = _histories(rng, size, known.matrix)
    catalog = Catalog.from_frame(_item_frame(rng, items), items)
    attributes = torch.from_numpy(catalog.attributes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = F.normalize(torch.randn(len(items) + 1, TEXT_WIDTH), dim=1)
        text[0] = 0.0
        counts = torch.from_numpy(histories.item_counts(len(items)))
        content = content_features(text, attributes, counts)
        towers = [dict(tower.model) for tower in cfg.retrieval.towers.values()]
        two_tower = _two_tower(towers, content, histories)
        stage2 = _stage2(cfg.reranking, len(towers), histories, text)
    return save_artifact(
        root,
        f"synthetic-{size.num_items}x{size.num_users}",
        manifest={
            "dataset": "synthetic",
            "towers": towers,
            "cross_encoder": dict(cfg.reranking.cross_encoder),
            "num_candidates": cfg.retrieval.num_candidates,
            "max_query_history": cfg.retrieval.max_history,
            "max_history": cfg.reranking.max_history,
            "relation_rank": cfg.reranking.relation_rank,
            "item_attributes": catalog.attribute_names,
            "user_attributes": known.names,
        },
        users=users,
        items=items,
        user_frame=user_frame,
        item_frame=catalog.items,
        histories=histories,
        text=text,
        attributes=attributes,
        two_tower=two_tower,
        index=instantiate(cfg.index).build(
            two_tower.all_candidates().detach().numpy(),
            partial(sample_queries, two_tower, histories, int(cfg.retrieval.max_history)),
        ),
        stage2=stage2,
        latest=False,
    )


def _user_frame(rng: np.random.Generator, users: Vocabulary) -> pd.DataFrame:
    occupations = np.array([f"occupation {n}" for n in range(20)])
    return pd.DataFrame(
        {
            USER_ID: users.ids,
            "age": rng.integers(15, 70, len(users)),
            "occupation": occupations[rng.integers(0, len(occupations), len(users))],
        }
    )


def _item_frame(rng: np.random.Generator, items: Vocabulary) -> pd.DataFrame:
    genres = np.array([f"Genre {n}" for n in range(NUM_GENRES)])
    first, second = genres[rng.integers(0, NUM_GENRES, (2, len(items)))]
    return pd.DataFrame(
        {
            ITEM_ID: items.ids,
            TITLE: [f"Film {n}" for n in items.ids.tolist()],
            GENRES: np.where(first == second, first, first + "|" + second),
            YEAR: rng.integers(1950, 2020, len(items)),
        }
    )


def _histories(rng: np.random.Generator, size: Size, context: NDArray[np.float32]) -> Histories:
    """Each item at most once in a history."""
    median = MEAN_EVENTS / np.exp(SPREAD**2 / 2)
    lengths = rng.lognormal(np.log(median), SPREAD, size.num_users).astype(np.int64)
    lengths = np.clip(lengths, 5, min(MOST_EVENTS, size.num_items // 4))
    # A few more, for items that a user draws twice; many draw the most common ones.
    user_idx = np.repeat(np.arange(1, size.num_users + 1), lengths + lengths // 4)
    chances = 1.0 / (np.arange(1, size.num_items + 1) + 20.0)
    bounds = np.cumsum(chances / chances.sum())
    drawn = np.searchsorted(bounds, rng.random(len(user_idx))).clip(max=size.num_items - 1)
    item_idx = 1 + rng.permutation(size.num_items)[drawn]
    pairs = np.unique(user_idx * (size.num_items + 1) + item_idx)
    user_idx, item_idx = np.divmod(pairs, size.num_items + 1)
    # Each user comes for a month.
    begins = _FIRST_TIME + rng.integers(0, 700 * _DAY, size.num_users + 1)
    times = begins[user_idx] + rng.integers(0, 30 * _DAY, len(user_idx))
    ratings = rng.integers(1, 6, len(user_idx)).astype(np.float64)
    return Histories.from_indices(user_idx, item_idx, times, size.num_users, context, ratings)


def _two_tower(
    towers: Sequence[dict[str, object]], content: ContentFeatures, histories: Histories
) -> TwoTowerEnsemble:
    num_features = len(content.mean)
    model = build_two_tower(towers, content, histories.context.shape[1]).eval()
    vectors = model.item_vectors().detach()
    # As after training, when a few directions hold most of what tells items apart.
    for part in torch.split(vectors, model.vector_dims, dim=1):
        part /= torch.arange(1.0, part.shape[1] + 1.0) ** SPECTRUM
    vectors[0] = 0.0
    number = min(NUM_LANDMARKS, len(vectors) - 1)
    model.fix_items(vectors, ContentMap(number, num_features, vectors.shape[1]))
    sample = histories.pad(np.arange(1, min(_CALIBRATED, histories.num_users) + 1))
    model.standardize(sample.item_idx, sample.mask, sample.context, sample.weights)
    return model


def _stage2(cfg: DictConfig, num_towers: int, histories: Histories, text: Tensor) -> Stage2:
    rank = int(cfg.relation_rank)
    reduction = TextReduction.fit(text, rank)
    vectors = 0.1 * torch.randn(len(text), rank * len(RELATIONS))
    vectors[:, -rank:] = reduction(text)
    vectors[0] = 0.0
    signs = torch.where(torch.rand(vectors.shape[1]) < 0.2, -1.0, 1.0)
    signs[-rank:] = 1.0
    relations = Relations(vectors, signs)
    model = build_cross_encoder(dict(cfg.cross_encoder), num_towers, rank).eval()
    _disturb(model)
    extractor = SignalExtractor(histories, len(text) - 1, relations, int(cfg.max_history))
    return Stage2(model, extractor, reduction)


@torch.no_grad()
def _disturb(model: CrossEncoder) -> None:
    """Much of it starts as zeros, which would hide what it makes of its inputs."""
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))


if __name__ == "__main__":
    main()
