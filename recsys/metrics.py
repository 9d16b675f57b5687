"""Ranking metrics as pure functions of tensors, one value per user; no loop over users.

A ranked list is a row of distinct item indices, best first, with 0 in empty slots. Relevant are all
held-out events of a user; those that a list could never hold (an item that the catalogue lacks)
still count in ``num_relevant``.
"""

import torch
from torch import Tensor


def hit_matrix(ranked: Tensor, target_rows: Tensor, target_items: Tensor, num_items: int) -> Tensor:
    """Which ranked items are relevant.

    Args:
        ranked: int64 [U, K], 0 = empty slot. target_rows: int64 [n], each held-out event's row.
        target_items: int64 [n], its item; 0 when the vocabulary lacks it, which no slot can hit.

    Returns:
        bool [U, K].
    """
    rows = torch.arange(len(ranked), device=ranked.device)[:, None]
    real = target_items > 0
    relevant = target_rows[real] * (num_items + 1) + target_items[real]
    return torch.isin(rows * (num_items + 1) + ranked, relevant) & (ranked > 0)


def recall_at_k(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Hits among the first k over the number of relevant items: bool [U, K], int64 [U] -> [U].

    float64. Users without relevant items get 0; leave them out of an average.
    """
    return hits[:, :k].sum(dim=1).double() / num_relevant.clamp(min=1)


def ndcg_at_k(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Normalised discounted cumulative gain with binary gains: bool [U, K], int64 [U] -> [U].

    DCG = sum over hits of 1 / log2(rank + 1); the ideal list holds min(num_relevant, k) hits
    (Jarvelin & Kekalainen 2002). float64.
    """
    width = max(hits.shape[1], k)
    discount = (
        torch.arange(2, width + 2, dtype=torch.float64, device=hits.device).log2().reciprocal()
    )
    gained = (hits[:, :k] * discount[: min(k, hits.shape[1])]).sum(dim=1)
    ideal = discount[:k].cumsum(dim=0)
    return gained / ideal[(num_relevant.clamp(1, k) - 1)]


def weighted_recall_at_k(gains: Tensor, wanted: Tensor, k: int) -> Tensor:
    """The share of what a user's relevant items count that is among the first k: float64 [U].

    Args:
        gains: float [U, K], what each ranked item counts, 0 for one that is not relevant. wanted:
            float [U, T], what each relevant item counts, 0 at padding.
    """
    total = wanted.double().sum(dim=1)
    return gains[:, :k].double().sum(dim=1) / total.where(total > 0, 1.0)


def graded_ndcg_at_k(gains: Tensor, wanted: Tensor, k: int) -> Tensor:
    """``ndcg_at_k`` with gains as they are given (Jarvelin & Kekalainen 2002): float64 [U].

    DCG = sum of gain / log2(rank + 1); the ideal list begins with what counts most. Arguments as of
    ``weighted_recall_at_k``.
    """
    ideal = wanted.double().sort(dim=1, descending=True).values[:, :k]
    width = max(gains.shape[1], ideal.shape[1])
    ranks = torch.arange(2, width + 2, dtype=torch.float64, device=gains.device)
    discount = ranks.log2().reciprocal()
    first = gains[:, :k].double()
    gained = (first * discount[: first.shape[1]]).sum(dim=1)
    best = (ideal * discount[: ideal.shape[1]]).sum(dim=1)
    return gained / best.where(best > 0, 1.0)


def catalog_coverage(ranked: Tensor, k: int, num_items: int) -> float:
    """Share of the catalogue that appears in some user's first k."""
    shown = torch.unique(ranked[:, :k])
    return int((shown > 0).sum()) / max(num_items, 1)


def novelty(ranked: Tensor, k: int, item_counts: Tensor, num_users: int) -> float:
    """Mean self-information of the recommended items in bits (Zhou et al. 2010).

    -log2 of the share of users who have the item in training; an unseen item counts as if one user
    had it.

    Args:
        item_counts: int64 [N + 1], training events per item.
    """
    shown = ranked[:, :k]
    information = -(item_counts.clamp(min=1).double() / max(num_users, 1)).log2()
    real = shown > 0
    return float((information[shown] * real).sum() / real.sum().clamp(min=1))


def intra_list_diversity(ranked: Tensor, k: int, vectors: Tensor) -> Tensor:
    """Mean of 1 - cosine over the pairs of each user's first k (Ziegler et al. 2005): float64 [U].

    A list of fewer than two items has no pair, and gets 0.

    Args:
        vectors: [N + 1, T], L2-normalised, zeros in row 0.
    """
    shown = ranked[:, :k]
    number = (shown > 0).sum(dim=1)
    pairs = number * (number - 1)
    lists = vectors[shown].double()
    # The square of a sum of vectors holds each pair's cosine twice, and each vector's own square.
    squares = lists.square().sum(dim=(1, 2))
    cosines = lists.sum(dim=1).square().sum(dim=1) - squares
    return (1 - cosines / pairs.clamp(min=1)) * (pairs > 0)
