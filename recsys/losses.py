"""Retrieval losses and the list-wise ranking loss, as pure functions of tensors.

The retrieval losses share one shape of input. ``query`` float [B, D] comes from the *visible*
events of ``history`` int64 [B, L]; ``held_out`` bool [B, L] marks the events to predict.
``candidates`` is a function from item_idx int64 [n] to candidate embeddings float [n, D], so that a
loss encodes only the items it needs. ``item_counts`` int64 [N + 1] counts the training events.
``weights`` float [B, L] says how much each event counts, 1 on average; None: all alike.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CandidateFn = Callable[[Tensor], Tensor]


def full_softmax(
    query: Tensor,
    candidates: CandidateFn,
    history: Tensor,
    visible: Tensor,
    held_out: Tensor,
    item_counts: Tensor,
    weights: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Cross-entropy of each held-out event against the whole catalogue.

    Visible items are taken out of the softmax, as they are taken out of a served list. Of
    events that weigh alike this is the multinomial likelihood of Liang et al. (2018).
    """
    item_idx = torch.arange(1, len(item_counts), device=query.device)
    logits = query @ candidates(item_idx).T / temperature  # [B, N]
    logits = mask_items(logits, history, visible)
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    target_log_probabilities = log_probabilities.gather(1, (history - 1).clamp(min=0))
    return -weighted_mean(target_log_probabilities, held_out, weights)


def sampled_softmax(
    query: Tensor,
    candidates: CandidateFn,
    history: Tensor,
    visible: Tensor,
    held_out: Tensor,
    item_counts: Tensor,
    weights: Tensor | None = None,
    *,
    num_negatives: int = 512,
    temperature: float = 1.0,
    exponent: float = 0.75,
) -> Tensor:
    """Cross-entropy of each held-out event against negatives shared by the batch.

    Negatives are drawn from q(i) ~ (count(i) + 1) ** exponent; the 1 lets unseen items be drawn.
    Each sampled logit is corrected by -log(expected count of i in the sample), which makes the
    estimate consistent with the full softmax (Bengio & Senecal 2008; Yi et al. 2019); the target is
    scored by its plain logit, since it is always present. Negatives that the user interacted with
    are accidental hits and leave the denominator.
    """
    chances = (item_counts.float() + 1.0) ** exponent
    chances[0] = 0.0
    probabilities = chances / chances.sum()
    drawn = torch.multinomial(probabilities, num_negatives, replacement=True)
    negatives, times = torch.unique(drawn, return_counts=True)  # [S]
    log_weights = (times / (probabilities[negatives] * num_negatives)).log()

    rows, places = held_out.nonzero(as_tuple=True)
    needed, position = torch.unique(
        torch.cat([negatives, history[rows, places]]), return_inverse=True
    )
    encoded = candidates(needed)
    # index_select, whose gradient is a sum by row, where that of indexing is sorted first.
    of_negatives, of_targets = (
        encoded.index_select(0, part) for part in torch.split(position, [len(negatives), len(rows)])
    )
    negative_logits = query @ of_negatives.T / temperature + log_weights  # [B, S]
    negative_logits = negative_logits.masked_fill(
        accidental_hits(negatives, history, visible | held_out), -torch.inf
    )
    others = negative_logits.float().logsumexp(dim=1)
    target_logits = (query.index_select(0, rows) * of_targets).sum(dim=1).float() / temperature
    losses = torch.logaddexp(target_logits, others.index_select(0, rows)) - target_logits
    kept = torch.ones_like(rows, dtype=torch.bool)
    return weighted_mean(losses, kept, None if weights is None else weights[rows, places])


def listwise_softmax(
    scores: Tensor,
    relevance: Tensor,
    mask: Tensor,
    ranks: Tensor | None = None,
    gains: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each relevant candidate against the list's other ones, top-weighted.

    As ListNet's top-one loss (Cao et al. 2007) with two changes, both of which rank better at the
    top on validation rows: relevant candidates do not compete with each other, and each weighs by
    the discount 1 / log2(rank + 1) of its rank before re-ranking, so that learning goes where NDCG
    looks: a list whose only relevant candidate is far down weighs little.

    Args:
        scores: float [B, K]. relevance: bool [B, K]. mask: bool [B, K], True = a real candidate.
        ranks: int64 [B, K], from 1, of the candidates before re-ranking; None where they are in
            that order, none left out. gains: float [B, K], how much each relevant candidate counts,
            1 on average; None: all alike.

    Returns:
        The mean over lists with a relevant candidate of their relevant candidates' mean loss, both
        weighted by gains: what counts more counts more in its list, and so does its list.
    """
    relevant = relevance & mask
    scores = scores.float()
    others = scores.masked_fill(relevant | ~mask, -torch.inf).logsumexp(dim=1, keepdim=True)
    loss = torch.logaddexp(scores, others) - scores
    if ranks is None:
        ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    # where, not multiplication: the loss of an empty slot is not a number.
    discounted = torch.where(relevant, loss, 0.0) / (ranks + 1.0).log2()
    number = relevant.sum(dim=1).clamp(min=1)
    if gains is None:
        gains = torch.ones_like(scores)
    counted = torch.where(relevant, gains, 0.0).sum(dim=1) / number
    losses = (discounted * gains).sum(dim=1) / number
    return losses.sum() / _above_zero(counted.sum())


def mask_items(logits: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """Set logits [B, N] (column j is item j + 1) of the masked history items to -inf."""
    columns = history.masked_fill(~mask, 0)
    padded = F.pad(logits, (1, 0))  # Column 0 takes the padding entries.
    return padded.scatter(1, columns, -torch.inf)[:, 1:]


def accidental_hits(negatives: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """Which sampled items, none twice, a user interacted with: int64 [S], [B, L], bool [B, L] ->
    bool [B, S].
    """
    rows, places = mask.nonzero(as_tuple=True)
    items = history[rows, places]
    order = negatives.argsort()
    found = torch.searchsorted(negatives[order], items).clamp(max=len(negatives) - 1)
    columns = order[found]
    is_hit = negatives[columns] == items
    hits = torch.zeros(len(history), len(negatives), dtype=torch.bool, device=history.device)
    hits[rows[is_hit], columns[is_hit]] = True
    return hits


def weighted_mean(values: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of values where mask is True, by weights (None: alike); 0 when it is nowhere True."""
    if weights is None:
        weights = torch.ones_like(values)
    # where, not multiplication: a masked value may be -inf.
    total = torch.where(mask, values * weights, 0.0).sum()
    return total / _above_zero(torch.where(mask, weights, 0.0).sum())


def _above_zero(total: Tensor) -> Tensor:
    """To divide by: 1 in the place of 0."""
    return torch.where(total > 0, total, 1.0)
