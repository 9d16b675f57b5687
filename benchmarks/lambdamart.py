"""LightGBM's LambdaMART: a stage 2 of boosted trees, the bar that the cross-encoder has to clear.

It learns from the same out-of-fold lists and re-ranks the same candidates, by the signals that the
cross-encoder reads, but not by the events of the history one by one. One query is one (fold, user)
list; a candidate is relevant or not (Burges 2010, "From RankNet to LambdaRank to LambdaMART"; Ke et
al. 2017, "LightGBM"). It starts from stage 1's score and the trees add to that (Wu et al. 2010,
"Adapting boosting for information retrieval measures"): they are bad at copying a sum of scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.errors import InputError
from recsys.metrics import ndcg_at_k
from recsys.ranking import top_k
from recsys.recommender import Recommender
from recsys.retriever import Retriever
from recsys.signals.extractor import SignalExtractor
from recsys.signals.list_signals import signal_names
from recsys.training.folds import CandidateLists

DEFAULT_PARAMS: Mapping[str, Any] = {
    "learning_rate": 0.02,
    "num_leaves": 7,
    "min_data_in_leaf": 300,
    "lambda_l2": 10.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "lambdarank_truncation_level": 100,
    "stage1_weight": 1.0,
    "max_rounds": 1000,
    "patience": 50,
}
"""LightGBM's parameters, and three of our own: ``stage1_weight`` > 0, of stage 1's standardised
score before the first tree; ``max_rounds``, the most trees that are grown; and ``patience``, the
rounds without a better NDCG@10 on lists kept aside after which the search for their number ends."""

NUM_PARTS = 4
"""Parts that the folds are dealt into, each kept aside in turn to choose the number of rounds."""
_SCORE = signal_names(0).index("score")
_BATCH_SIZE = 64


@dataclass(frozen=True)
class LambdaMart:
    """booster: what is added to stage 1's score. stage1_weight: what that is multiplied by."""

    booster: lgb.Booster
    stage1_weight: float


def fit_lambdamart(
    lists: Sequence[CandidateLists], seed: int, params: Mapping[str, Any] = DEFAULT_PARAMS
) -> LambdaMart:
    """Choose the number of rounds by cross-validation over folds, then fit on all lists.

    Each quarter of the folds is kept aside in turn, and the number of rounds is the one with the
    best NDCG@10 over all lists, each ranked by trees that have not learned from its fold. No round
    at all, which leaves stage 1's order, is among the choices. So the number is chosen on training
    events alone, but its NDCG@10 is the best of many and no estimate of what serving will show.

    Whole folds are kept aside, not users. A user's positives of one fold are unlabelled negatives
    in the lists of the others, just as what the user will like next is in all lists: trees that
    learn the lists of their users by heart do worse in both cases, but not on lists of new users.
    A user's lists come from neighbouring folds, which are dealt to different parts, so that a list
    kept aside is one of a user that the trees know. (With two lists per user they know it by one
    list then, and by two in the final fit.)

    Args:
        lists: out-of-fold lists, one entry per fold, in order; padding (candidate 0) is left out.
        seed: of bagging and feature sampling; the same seed gives the same trees on any number of
            threads.
        params: keys as in ``DEFAULT_PARAMS``, which stand for those not given, or LightGBM's own.

    Raises:
        InputError: when there are lists of one fold alone, as none would be left to choose the
            rounds on, or when ``stage1_weight`` is not positive.
    """
    settings = {**DEFAULT_PARAMS, **params, **_fixed_params(seed)}
    max_rounds, patience = int(settings.pop("max_rounds")), int(settings.pop("patience"))
    weight = float(settings.pop("stage1_weight"))
    if weight <= 0:
        raise InputError("a positive stage1_weight", str(weight), "e.g. lambdamart.stage1_weight=1")
    rounds = _choose_rounds(lists, weight, settings, max_rounds, patience)
    booster = lgb.Booster(settings, _dataset(lists, weight, settings))
    for _ in range(rounds):
        booster.update()
    return LambdaMart(booster, weight)


def rank_lambdamart(
    model: LambdaMart,
    retriever: Retriever,
    extractor: SignalExtractor,
    histories: Histories,
    user_idx: NDArray[np.int64],
    num_candidates: int,
    k: int,
) -> Tensor:
    """Re-rank what the served stage 1 retrieves, as ``Recommender`` does with the cross-encoder.

    Args:
        retriever, extractor: of all training events ``histories``. user_idx: int64 [U].
        num_candidates: retrieved per user, or ``k`` where that is more.

    Returns:
        item_idx int64 [U, k], best first, 0 in empty slots.
    """
    ranked = torch.zeros((len(user_idx), k), dtype=torch.int64)
    for start in range(0, len(user_idx), _BATCH_SIZE):
        history = histories.pad(user_idx[start : start + _BATCH_SIZE])
        found = retriever.retrieve(history, max(num_candidates, k))
        signals = extractor.signals(
            extractor.inputs(history, found.item_idx.numpy(), found.tower_scores)
        )
        scores = score_lambdamart(model, found.item_idx, signals)
        _, best = top_k(scores, found.item_idx, k)
        ranked[start : start + len(best), : best.shape[1]] = best
    return ranked


def rank_as_served(
    model: LambdaMart, recommender: Recommender, user_idx: NDArray[np.int64], k: int
) -> Tensor:
    """``rank_lambdamart`` by the parts of a recommender that has a stage 2."""
    stage2 = recommender.artifact.stage2
    assert stage2 is not None
    return rank_lambdamart(
        model,
        recommender.retriever,
        stage2.extractor,
        recommender.histories.log,
        user_idx,
        recommender.num_candidates,
        k,
    )


def score_lambdamart(model: LambdaMart, candidates: Tensor, signals: Tensor) -> Tensor:
    """Scores float64 [B, K] of candidates int64 [B, K] with signals [B, K, S]; -inf at padding."""
    real = candidates > 0
    scores = torch.full(candidates.shape, -torch.inf, dtype=torch.float64)
    if real.any():
        features = signals[real].numpy()
        scores[real] = torch.from_numpy(
            np.asarray(model.booster.predict(features), dtype=np.float64)
            + _start(features, model.stage1_weight)
        )
    return scores


def _fixed_params(seed: int) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "None",  # LightGBM's name for computing none
        "label_gain": [0, 1],
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,  # else LightGBM times both layouts, and takes the quicker
        "num_threads": torch.get_num_threads(),
        "verbosity": -1,
    }


def _choose_rounds(
    lists: Sequence[CandidateLists],
    weight: float,
    settings: dict[str, Any],
    max_rounds: int,
    patience: int,
) -> int:
    """The number of rounds in 0..max_rounds with the best NDCG@10 of lists kept aside."""
    if len(lists) < 2:
        raise InputError(
            "out-of-fold lists of at least two folds", str(len(lists)), "set reranking.num_folds=2"
        )
    num_parts = min(NUM_PARTS, len(lists))
    parts = [_Part(lists[first::num_parts], weight) for first in range(num_parts)]
    boosters = []
    for first in range(num_parts):
        kept = [fold for i, fold in enumerate(lists) if i % num_parts != first]
        boosters.append(lgb.Booster(settings, _dataset(kept, weight, settings)))
    best, best_rounds = _mean([part.ndcg() for part in parts]), 0
    for rounds in range(1, max_rounds + 1):
        values = []
        for part, booster in zip(parts, boosters, strict=True):
            booster.update()
            values.append(part.after_round(booster, rounds - 1))
        value = _mean(values)
        if value > best:
            best, best_rounds = value, rounds
        elif rounds - best_rounds >= patience:
            break
    return best_rounds


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.cat(list(values)).mean())


class _Part:
    """Lists kept aside, with their scores so far.

    LightGBM's own NDCG would not do: it knows nothing of held-out events that stage 1 missed, and
    counts a list without relevant candidates as perfect.
    """

    def __init__(self, lists: Sequence[CandidateLists], weight: float) -> None:
        self.lists = lists
        self.features = [fold.all_signals()[fold.candidates > 0].numpy() for fold in lists]
        self.scores = [_start(features, weight) for features in self.features]

    def after_round(self, booster: lgb.Booster, number: int) -> Tensor:
        """Add the tree of round ``number``, from 0; returns ``ndcg``."""
        for scores, features in zip(self.scores, self.features, strict=True):
            scores += np.asarray(
                booster.predict(features, start_iteration=number, num_iteration=1), dtype=np.float64
            )
        return self.ndcg()

    def ndcg(self) -> Tensor:
        """NDCG@10 of each list, float32 [n]."""
        values = []
        for fold, given in zip(self.lists, self.scores, strict=True):
            scores = torch.full(fold.candidates.shape, -torch.inf, dtype=torch.float64)
            scores[fold.candidates > 0] = torch.from_numpy(given)
            order = scores.argsort(dim=1, descending=True, stable=True)[:, :10]
            values.append(ndcg_at_k(fold.relevance.gather(1, order), fold.num_relevant, 10))
        return torch.cat(values)


def _dataset(
    lists: Sequence[CandidateLists],
    stage1_weight: float,
    settings: dict[str, Any],
) -> lgb.Dataset:
    """The real candidates of all lists, one query each."""
    masks = [fold.candidates > 0 for fold in lists]
    pairs = list(zip(lists, masks, strict=True))
    features = torch.cat([fold.all_signals()[real] for fold, real in pairs]).numpy()
    relevance = torch.cat([fold.relevance[real] for fold, real in pairs])
    sizes = torch.cat([real.sum(dim=1) for real in masks])
    return lgb.Dataset(
        features,
        label=relevance.float().numpy(),
        group=sizes[sizes > 0].numpy(),
        init_score=_start(features, stage1_weight),
        feature_name=_feature_names(features.shape[1]),
        params=settings,
    )


def _start(features: NDArray[np.float32], stage1_weight: float) -> NDArray[np.float64]:
    """Scores float64 [n] before the first tree."""
    return stage1_weight * features[:, _SCORE].astype(np.float64)


def _feature_names(width: int) -> list[str]:
    num_towers = width - len(signal_names(0))
    names = signal_names(num_towers) if num_towers >= 0 else []
    return names if len(names) == width else [f"signal_{i}" for i in range(width)]
