"""Out-of-fold candidate lists: the training data of stage 2.

Stage 2 must learn from candidates as it will meet them: retrieved by a stage 1 that has not seen
the positives. So each fold's events are held out in turn, a stage 1 of the same recipe is trained
on the rest, and its candidates for the held-out events become lists. No missed positive is ever
added.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.item_graph import co_occurrence_graphs
from recsys.retriever import Retriever
from recsys.signals import SignalExtractor

FitRetriever = Callable[[Histories, int], Retriever]


@dataclass(frozen=True)
class CandidateLists:
    """One fold's lists, one row per user with held-out events.

    histories, extractor: of the events outside the fold. user_idx: int64 [n]. candidates: int64
    [n, K]. signals: float32 [n, K, S]. relevance: bool [n, K]. num_relevant: int64 [n], held-out
    events of the user, retrieved or not.
    """

    histories: Histories
    extractor: SignalExtractor
    user_idx: NDArray[np.int64]
    candidates: Tensor
    signals: Tensor
    relevance: Tensor
    num_relevant: Tensor

    def __len__(self) -> int:
        return len(self.user_idx)


def assign_folds(histories: Histories, num_folds: int, seed: int) -> NDArray[np.int64]:
    """A fold in 0..num_folds - 1 for each event [N]: each user's events are dealt out evenly."""
    rng = np.random.default_rng(seed)
    ranks = histories.random_ranks(rng)
    # A random first fold per user: short histories would otherwise fill the first folds only.
    start = rng.integers(0, num_folds, histories.num_users + 1)
    return (ranks + start[histories.user_idx]) % num_folds


def out_of_fold_lists(
    histories: Histories,
    text: Tensor,
    fit_retriever: FitRetriever,
    *,
    num_folds: int,
    lists_per_user: int,
    num_candidates: int,
    seed: int,
) -> list[CandidateLists]:
    """Candidate lists of every fold; of a few short histories, some folds may get no event.

    A user's lists come from ``lists_per_user`` of the folds only. What a user will like and has not
    had yet is called irrelevant in each of them, and each repetition teaches it more firmly, while
    a held-out event is relevant in one list alone.

    Args:
        histories: all training events. text: float32 [N + 1, T].
        fit_retriever: trains a stage 1 on the given events; its second argument is the fold.
    """
    folds = assign_folds(histories, num_folds, seed)
    chosen = _choose_folds(histories, folds, num_folds, lists_per_user, seed)
    lists = []
    for fold in range(num_folds):
        train, held_out = histories.select(folds != fold), histories.select(folds == fold)
        users = np.flatnonzero(chosen[:, fold])
        if not len(users):
            continue
        retriever = fit_retriever(train, fold)
        extractor = build_extractor(train, text)
        lists.append(candidate_lists(train, held_out, users, retriever, extractor, num_candidates))
    return lists


def build_extractor(histories: Histories, text: Tensor) -> SignalExtractor:
    """The signals of a set of training events; text: float32 [N + 1, T]."""
    num_items = len(text) - 1
    session, co_occurrence = co_occurrence_graphs(histories, num_items)
    return SignalExtractor(histories, num_items, session, co_occurrence, text)


def candidate_lists(
    train: Histories,
    held_out: Histories,
    users: NDArray[np.int64],
    retriever: Retriever,
    extractor: SignalExtractor,
    num_candidates: int,
    batch_size: int = 64,
) -> CandidateLists:
    """Retrieve for users [n], and mark which candidates are among their held-out events."""
    stride = extractor.num_items + 1
    positives = torch.from_numpy(held_out.user_idx * stride + held_out.item_idx)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        history = train.pad(batch)
        found = retriever.retrieve(history, num_candidates)
        keys = torch.from_numpy(batch)[:, None] * stride + found.item_idx
        signals = extractor.signals(history, found.item_idx, found.tower_scores)
        parts.append((found.item_idx, signals, torch.isin(keys, positives)))
    candidates, signals, relevance = (torch.cat(column) for column in zip(*parts, strict=True))
    num_relevant = torch.from_numpy(held_out.lengths[users])
    return CandidateLists(train, extractor, users, candidates, signals, relevance, num_relevant)


def _choose_folds(
    histories: Histories,
    folds: NDArray[np.int64],
    num_folds: int,
    lists_per_user: int,
    seed: int,
) -> NDArray[np.bool_]:
    """Of which folds each user gets a list: bool [U + 1, num_folds].

    Up to ``lists_per_user`` folds, from a random one on, that hold some but not all of the events.
    """
    held_out = np.zeros((histories.num_users + 1, num_folds), dtype=np.int64)
    np.add.at(held_out, (histories.user_idx, folds), 1)
    possible = (held_out > 0) & (held_out < histories.lengths[:, None])
    start = np.random.default_rng([seed, 1]).integers(0, num_folds, len(possible))
    order = (start[:, None] + np.arange(num_folds)) % num_folds
    turned = np.take_along_axis(possible, order, axis=1)
    chosen = np.zeros_like(possible)
    np.put_along_axis(chosen, order, turned & (turned.cumsum(axis=1) <= lists_per_user), axis=1)
    return chosen
