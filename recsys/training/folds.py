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
    num_candidates: int,
    seed: int,
) -> list[CandidateLists]:
    """Candidate lists of every fold; of a few short histories, some folds may get no event.

    Args:
        histories: all training events. text: float32 [N + 1, T].
        fit_retriever: trains a stage 1 on the given events; its second argument is the fold.
    """
    folds = assign_folds(histories, num_folds, seed)
    lists = []
    for fold in range(num_folds):
        train, held_out = histories.select(folds != fold), histories.select(folds == fold)
        if not len(_users_with_both(train, held_out)):
            continue
        retriever = fit_retriever(train, fold)
        extractor = build_extractor(train, text)
        lists.append(candidate_lists(train, held_out, retriever, extractor, num_candidates))
    return lists


def build_extractor(histories: Histories, text: Tensor) -> SignalExtractor:
    """The signals of a set of training events; text: float32 [N + 1, T]."""
    num_items = len(text) - 1
    session, co_occurrence = co_occurrence_graphs(histories, num_items)
    return SignalExtractor(histories, num_items, session, co_occurrence, text)


def candidate_lists(
    train: Histories,
    held_out: Histories,
    retriever: Retriever,
    extractor: SignalExtractor,
    num_candidates: int,
    batch_size: int = 64,
) -> CandidateLists:
    """Retrieve for each user with held-out events, and mark which candidates are among them."""
    users = _users_with_both(train, held_out)
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


def _users_with_both(train: Histories, held_out: Histories) -> NDArray[np.int64]:
    return np.flatnonzero((held_out.lengths > 0) & (train.lengths > 0))
