"""LightGBM's LambdaMART as stage 2: the bar that the cross-encoder has to clear.

It learns from the same out-of-fold lists and re-ranks the same candidates (Burges 2010).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.recommender import Recommender
from recsys.training.folds import CandidateLists

PARAMETERS: Mapping[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "lambdarank_truncation_level": 30,
    "metric": "ndcg",
    "eval_at": [10],
    "deterministic": True,
    "verbosity": -1,
}
MAX_ROUNDS = 500
PATIENCE = 50
VALIDATION_SHARE = 0.1
BATCH_SIZE = 64


def fit_lambdamart(
    lists: Sequence[CandidateLists], seed: int, parameters: Mapping[str, Any] = PARAMETERS
) -> lgb.Booster:
    """Fit on the lists' signals; the number of rounds is found on one user in ten, then all count.

    The first signal is stage 1's score, so that the trees know the order they are to improve.
    """
    settings = {**parameters, "seed": seed, "num_threads": torch.get_num_threads()}
    users = np.unique(np.concatenate([fold.user_idx for fold in lists]))
    shuffled = np.random.default_rng(seed).permutation(users)
    aside = shuffled[: max(1, int(VALIDATION_SHARE * len(users)))]
    kept = [~np.isin(fold.user_idx, aside) for fold in lists]
    found = lgb.train(
        settings,
        _dataset(lists, kept),
        num_boost_round=MAX_ROUNDS,
        valid_sets=[_dataset(lists, [~rows for rows in kept])],
        callbacks=[lgb.early_stopping(PATIENCE, verbose=False)],
    )
    everyone = _dataset(lists, [np.ones(len(fold), dtype=bool) for fold in lists])
    return lgb.train(settings, everyone, num_boost_round=max(found.best_iteration, 1))


def lambdamart_ranking(
    booster: lgb.Booster, recommender: Recommender, user_idx: NDArray[np.int64], k: int
) -> Tensor:
    """Re-rank what the served stage 1 retrieves for users [U]: int64 [U, k], 0 in empty slots.

    Raises:
        ValueError: when the recommender has no stage 2 to take the signals of.
    """
    if recommender.reranker is None:
        raise ValueError("the signals of candidates come with stage 2; this bundle has none")
    parts = []
    for start in range(0, len(user_idx), BATCH_SIZE):
        history = recommender.histories.pad(user_idx[start : start + BATCH_SIZE])
        found = recommender.retriever.retrieve(history, recommender.num_candidates)
        extractor = recommender.reranker.extractor
        signals = extractor.signals(history, found.item_idx, found.tower_scores)
        parts.append(rerank(booster, found.item_idx, signals)[:, :k])
    return torch.cat(parts)


def rerank(booster: lgb.Booster, candidates: Tensor, signals: Tensor) -> Tensor:
    """Candidates int64 [B, K] with signals float [B, K, S], best first, padding (0) last."""
    flat = signals.flatten(end_dim=1).numpy()
    scores = torch.from_numpy(np.asarray(booster.predict(flat))).view_as(candidates)
    scores = scores.masked_fill(candidates == 0, -torch.inf)
    # Stable: equal leaves keep stage 1's order.
    order = scores.argsort(dim=1, descending=True, stable=True)
    return candidates.gather(1, order)


def _dataset(lists: Sequence[CandidateLists], kept: Sequence[NDArray[np.bool_]]) -> lgb.Dataset:
    """One query per kept list, empty slots left out."""
    signals, labels, sizes = [], [], []
    for fold, rows in zip(lists, kept, strict=True):
        chosen = torch.from_numpy(rows)
        real = fold.candidates[chosen] > 0
        signals.append(fold.signals[chosen][real].numpy())
        labels.append(fold.relevance[chosen][real].numpy())
        sizes.append(real.sum(dim=1).numpy())
    return lgb.Dataset(
        np.concatenate(signals),
        np.concatenate(labels).astype(np.int32),
        group=np.concatenate(sizes),
        free_raw_data=False,
    )
