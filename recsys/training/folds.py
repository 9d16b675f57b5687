"""Out-of-fold candidate lists: the training data of stage 2.

Stage 2 must learn from candidates as it will meet them: retrieved by a stage 1 that has not seen
the positives. So each fold's events are held out in turn, a stage 1 of the same recipe is trained
on the rest, and its candidates for the held-out events become lists. No missed positive is ever
added.

Folds follow the split. Where it holds out the latest events, so do they: a list is of one moment of
a user, and neither its stage 1 nor its signals know what users with a list did after theirs. Of
lists from the midst of histories, stage 2 would not learn what the latest events tell of the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.retriever import Retriever
from recsys.signals.extractor import SignalExtractor
from recsys.signals.item_graph import co_occurrence_graphs
from recsys.signals.list_signals import ListInputs
from recsys.signals.relations import Relations
from recsys.training.workers import Workers

_LISTS_AT_A_TIME = 64
_FEWEST_FOLDS = 2
_DEEPEST = 100
"""No metric looks further down a list."""

FitRetriever = Callable[[Histories, int], Retriever]


@dataclass(frozen=True)
class CandidateLists:
    """One fold's lists, one row per user with held-out events.

    histories, extractor: of the events outside the fold. user_idx: int64 [n]. candidates: int64
    [n, K], in stage-1 order, 0 = none and last. tower_scores: float32 [n, K, H], stage-1 scores by
    tower. relevance: bool [n, K]. num_relevant: int64 [n], held-out events of the user, retrieved
    or not. gains: float32 [n, K], how much the held-out events count, 1 on average; 0 elsewhere.
    wanted: float32 [n, W], how much the user's held-out events count, retrieved or not: the 100
    that count most, 0 where there are fewer.
    """

    histories: Histories
    extractor: SignalExtractor
    user_idx: NDArray[np.int64]
    candidates: Tensor
    tower_scores: Tensor
    relevance: Tensor
    num_relevant: Tensor
    gains: Tensor
    wanted: Tensor

    def __len__(self) -> int:
        return len(self.user_idx)

    def inputs(self, rows: NDArray[np.int64]) -> ListInputs:
        """What stage 2 reads of some of the lists, int64 [B]."""
        own = torch.from_numpy(rows)
        return self.extractor.inputs(
            self.histories.pad(self.user_idx[rows]),
            self.candidates[own].numpy(),
            self.tower_scores[own],
        )

    def all_signals(self) -> Tensor:
        """Of all lists, float32 [n, K, S]; not kept, since many lists take gigabytes."""
        starts = range(0, len(self), _LISTS_AT_A_TIME)
        rows = [np.arange(start, min(start + _LISTS_AT_A_TIME, len(self))) for start in starts]
        return torch.cat([self.extractor.signals(self.inputs(part)) for part in rows])


def latest_held_out(
    histories: Histories, fold: int, num_folds: int, seed: int
) -> NDArray[np.bool_]:
    """Which events [N] a fold in order of time holds out: the latest n of each user who has more.

    n goes from 1 to ``num_folds``, another one in each fold, and where it starts is random by user:
    folds are alike then, and stage 1 learns from most users' events in all of them.
    """
    start = np.random.default_rng(seed).integers(0, num_folds, histories.num_users + 1)
    number = 1 + (start + fold) % num_folds
    number[number >= histories.lengths] = 0
    return histories.ranks_from_end < number[histories.user_idx]


def assign_folds(histories: Histories, num_folds: int, seed: int) -> NDArray[np.int64]:
    """A fold in 0..num_folds - 1 for each event [N]: each user's events are dealt out evenly."""
    rng = np.random.default_rng(seed)
    ranks = histories.random_ranks(rng)
    # A random first fold per user: short histories would otherwise fill the first folds only.
    start = rng.integers(0, num_folds, histories.num_users + 1)
    return (ranks + start[histories.user_idx]) % num_folds


def out_of_fold_lists(
    histories: Histories,
    reduced_text: Tensor,
    fit_retriever: FitRetriever,
    *,
    num_folds: int,
    num_candidates: int,
    max_history: int,
    seed: int,
    in_order: bool = False,
    max_lists: int | None = None,
    workers: Workers | None = None,
    done: Callable[[int, int], None] | None = None,
) -> list[CandidateLists]:
    """Candidate lists of every fold; of a few short histories, some folds may get no event.

    Where all users and folds would make more than ``max_lists``, only as many folds as need be are
    made, of as many random users each.

    Args:
        histories: all training events. reduced_text: float32 [N + 1, r], see ``TextReduction``.
        fit_retriever: trains a stage 1 on the given events; its second argument is the fold.
        max_history: see ``SignalExtractor``. in_order: whether folds hold out the latest events,
            see ``latest_held_out``; otherwise each holds out one ``num_folds``-th of them, at
            random. workers: to make the folds side by side, which ``fit_retriever`` must allow.
            done: is told how many of how many folds are.
    """
    folds = None if in_order else assign_folds(histories, num_folds, seed)
    num_users = int(np.count_nonzero(histories.lengths))
    num_made = folds_made(num_users, num_folds, max_lists)
    most = num_users if max_lists is None else -(-max_lists // num_made)

    def calls() -> Iterator[Callable[[], CandidateLists]]:
        for fold in range(num_made):
            if folds is None:
                is_held_out = latest_held_out(histories, fold, num_made, seed)
            else:
                is_held_out = folds == fold
            train, held_out = histories.select(~is_held_out), histories.select(is_held_out)
            users = np.flatnonzero((held_out.lengths > 0) & (train.lengths > 0))
            if not len(users):
                continue
            if len(users) > most:
                drawn = np.random.default_rng([seed, fold]).choice(users, most, replace=False)
                users = np.sort(drawn)
            yield partial(
                _fold_lists,
                train,
                held_out,
                users,
                partial(fit_retriever, train, fold),
                partial(build_extractor, train, reduced_text, max_history),
                num_candidates,
            )

    return (workers or Workers()).results(calls(), done and (lambda number: done(number, num_made)))


def folds_made(num_users: int, num_folds: int, max_lists: int | None) -> int:
    """How many folds are made of so many users: two at least, so that stage 2 does not learn from
    the whims of one stage 1.
    """
    if max_lists is None:
        return num_folds
    return min(num_folds, max(_FEWEST_FOLDS, -(-max_lists // max(num_users, 1))))


def _fold_lists(
    train: Histories,
    held_out: Histories,
    users: NDArray[np.int64],
    fit: Callable[[], Retriever],
    build: Callable[[], SignalExtractor],
    num_candidates: int,
) -> CandidateLists:
    return candidate_lists(train, held_out, users, fit(), build(), num_candidates)


def build_extractor(
    histories: Histories, reduced_text: Tensor, max_history: int
) -> SignalExtractor:
    """The signals of a set of training events; arguments as of ``out_of_fold_lists``."""
    num_items = len(reduced_text) - 1
    graphs = co_occurrence_graphs(histories, num_items)
    relations = Relations.fit(graphs, reduced_text)
    return SignalExtractor(histories, num_items, relations, max_history)


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
    stride = retriever.model.num_items + 1
    keys = held_out.user_idx * stride + held_out.item_idx
    in_order = np.argsort(keys)
    positives = torch.from_numpy(keys[in_order])
    weights = torch.from_numpy(held_out.relative_weights[in_order])
    width = min(_DEEPEST, int(held_out.lengths[users].max(initial=1)))
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        found = retriever.retrieve(train.pad(batch), num_candidates)
        keyed = torch.from_numpy(batch)[:, None] * stride + found.item_idx
        places = torch.searchsorted(positives, keyed).clamp(max=len(positives) - 1)
        is_held_out = positives[places] == keyed
        gains = torch.where(is_held_out, weights[places], 0.0)
        wanted_gains = _counted(held_out, batch, width)
        parts.append((found.item_idx, found.tower_scores, is_held_out, gains, wanted_gains))
    candidates, tower_scores, relevance, gains, wanted = (
        torch.cat(column) for column in zip(*parts, strict=True)
    )
    num_relevant = torch.from_numpy(held_out.lengths[users])
    return CandidateLists(
        train,
        extractor,
        users,
        candidates,
        tower_scores,
        relevance,
        num_relevant,
        gains,
        wanted,
    )


def _counted(held_out: Histories, users: NDArray[np.int64], width: int) -> Tensor:
    """How much each of the users' held-out events counts, as ``CandidateLists.wanted``."""
    events = held_out.pad(users)
    counts = events.mask.float() if events.weights is None else events.weights
    most = counts.sort(dim=1, descending=True).values[:, :width]
    return F.pad(most, (0, width - most.shape[1]))
