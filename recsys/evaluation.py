"""From ranked lists and held-out events to the content of metrics.json. Nothing is scored here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import Histories
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.metrics import catalog_coverage, hit_matrix, ndcg_at_k, novelty, recall_at_k
from recsys.results import CHAMPION, STAGES, TABLE_METRICS, results_markdown, results_table
from recsys.schema import ITEM_ID, USER_ID, ExternalId
from recsys.slices import by_history_length, by_item_popularity

__all__ = [
    "Targets",
    "evaluate",
    "paired_bootstrap",
    "per_user_metrics",
    "ranked_tensor",
    "results_markdown",
    "results_table",
]

CUTOFFS = (5, 10, 100)
CURVE_K = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
NUM_RESAMPLES = 10_000
_DRAWS_PER_CHUNK = 2_000_000
_DIGITS = 8


@dataclass(frozen=True)
class Targets:
    """The held-out events, one row per user who has any.

    user_idx: int64 [U], ascending. A user whom the vocabulary lacks has 0 and a row of their own
        (these come first, in order of appearance): they count in every average, with whatever the
        system answers to an unknown user, rather than being dropped.
    rows: int64 [n], each event's position in ``user_idx``. items: int64 [n], its item, 0 when the
        vocabulary lacks it. num_relevant: int64 [U], events per row, unknown items included.
    """

    user_idx: NDArray[np.int64]
    rows: Tensor
    items: Tensor
    num_relevant: Tensor

    @classmethod
    def from_frame(cls, test: pd.DataFrame, users: Vocabulary, items: Vocabulary) -> "Targets":
        """Encode a frame of held-out interactions."""
        codes, ids = pd.factorize(test[USER_ID])
        user_idx = users.encode(ids)
        order = np.argsort(user_idx, kind="stable")
        row_of_code = np.empty_like(order)
        row_of_code[order] = np.arange(len(order))
        rows = torch.from_numpy(row_of_code[codes].astype(np.int64))
        return cls(
            user_idx[order],
            rows,
            torch.from_numpy(items.encode(test[ITEM_ID])),
            torch.bincount(rows, minlength=len(order)),
        )

    def __len__(self) -> int:
        """Number of users."""
        return len(self.user_idx)

    def part(self, chosen: Tensor) -> tuple["Targets", Tensor]:
        """The chosen events, bool [n], alone, and the rows int64 [U'] of the users who have any."""
        found, rows = torch.unique(self.rows[chosen], return_inverse=True)
        number = torch.bincount(rows, minlength=len(found))
        return Targets(self.user_idx[found.numpy()], rows, self.items[chosen], number), found


def ranked_tensor(lists: Sequence[Sequence[ExternalId]], items: Vocabulary, k: int) -> Tensor:
    """Lists of external item ids, best first, as int64 [U, k] of indices, 0 in empty slots.

    Longer lists are cut at ``k``.

    Raises:
        ValueError: when a list holds an id that the vocabulary lacks.
    """
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    ranked = np.zeros((len(lists), max(int(lengths.max(initial=0)), k)), dtype=np.int64)
    if lengths.any():
        filled = np.arange(ranked.shape[1]) < lengths[:, None]
        ranked[filled] = items.encode(chain.from_iterable(lists))
    if (np.count_nonzero(ranked, axis=1) != lengths).any():
        raise ValueError("ranked lists hold item ids that the vocabulary lacks")
    return torch.from_numpy(np.ascontiguousarray(ranked[:, :k]))


def evaluate(
    rankings: Mapping[str, Tensor],
    targets: Targets,
    *,
    train: Histories,
    num_items: int,
    dataset: str,
    split: str,
    protocol: str,
    seed: int,
    served: str | None = None,
    kinds: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The content of metrics.json: plain numbers, the same for the same input, no times or dates.

    Args:
        rankings: system -> int64 [U, K >= 100], row u for ``targets.user_idx[u]``, best first, 0 in
            empty slots. "stage1" and "stage2" are the stages; every other key is a baseline.
        train: the users' training events, which must not be recommended.
        seed: of the bootstrap. served: which stage is; None for the last one that there is.
        kinds: name -> bool [n], held-out events of ``targets`` that are looked at by themselves,
            too; of users who have any.

    Raises:
        InputError: when nothing is held out.
        ValueError: when a ranking has another shape, repeats an item, or holds a training item:
            such lists would make the figures wrong, not merely worse.
    """
    if not len(targets):
        raise InputError(
            "held-out interactions to evaluate on",
            f"none in split {split} of {dataset}",
            "choose another split, or hold out more with data.num_test or data.test_fraction",
        )
    for system, ranked in rankings.items():
        _check(system, ranked, targets, train, num_items)
    hits = {
        system: hit_matrix(ranked, targets.rows, targets.items, num_items)
        for system, ranked in rankings.items()
    }
    per_user = {system: per_user_metrics(hit, targets.num_relevant) for system, hit in hits.items()}
    means = _means(per_user)
    counts = train.item_counts(num_items)
    item_counts = torch.from_numpy(counts)
    found = {
        system: {f"recall@{k}": _found(ranked[:, :k], targets, num_items) for k in (10, 100)}
        for system, ranked in rankings.items()
    }
    sliced = {
        system: {metric: metrics[metric] for metric in ("recall@10", "ndcg@10", "recall@100")}
        for system, metrics in per_user.items()
    }
    content: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        "protocol": protocol,
        "n_users": len(targets),
        "seed": seed,
        **_by_stage(means),
    }
    if all(stage in per_user for stage in STAGES):
        content["stage2_minus_stage1"] = _differences(per_user["stage2"], per_user["stage1"], seed)
    served = served or max(stage for stage in STAGES if stage in means)
    content["served_stage"] = served
    others = [name for name in means if name not in (*STAGES, CHAMPION)]
    if others:
        best = max(others, key=lambda name: means[name]["ndcg@10"])
        minus = _differences(per_user[served], per_user[best], seed)
        content["minus_best_baseline"] = {"baseline": best, **minus}
    if CHAMPION in per_user:
        content["minus_champion"] = _differences(per_user[served], per_user[CHAMPION], seed)
    of_kinds = {
        name: _alone(rankings, *targets.part(chosen), num_items)
        for name, chosen in (kinds or {}).items()
        if chosen.any()
    }
    if of_kinds:
        content["targets"] = of_kinds
    content |= {
        "slices": {
            "history_length": by_history_length(train.lengths[targets.user_idx], sliced),
            "item_popularity": by_item_popularity(counts, targets.items, found),
        },
        "coverage@10": {
            system: catalog_coverage(ranked, 10, num_items) for system, ranked in rankings.items()
        },
        "novelty@10": {
            system: novelty(ranked, 10, item_counts, train.num_users)
            for system, ranked in rankings.items()
        },
        "recall_curve": {
            "k": list(CURVE_K),
            **{
                system: [float(recall_at_k(hit, targets.num_relevant, k).mean()) for k in CURVE_K]
                for system, hit in hits.items()
            },
        },
    }
    rounded: dict[str, Any] = _round(content)
    return rounded


def _means(per_user: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, float]]:
    return {
        system: {metric: float(values.mean()) for metric, values in metrics.items()}
        for system, metrics in per_user.items()
    }


def _by_stage(means: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    return {
        **{stage: means[stage] for stage in STAGES if stage in means},
        "baselines": {name: means[name] for name in means if name not in STAGES},
    }


def _alone(
    rankings: Mapping[str, Tensor], targets: Targets, users: Tensor, num_items: int
) -> dict[str, Any]:
    """Metrics of some targets, whose users have these rows [U'] of the rankings."""
    per_user = {
        system: per_user_metrics(
            hit_matrix(ranked[users], targets.rows, targets.items, num_items), targets.num_relevant
        )
        for system, ranked in rankings.items()
    }
    numbers = {"n_users": len(targets), "n_events": len(targets.items)}
    return {**numbers, **_by_stage(_means(per_user))}


def paired_bootstrap(
    differences: NDArray[np.float64], seed: int, num_resamples: int = NUM_RESAMPLES
) -> NDArray[np.float64]:
    """95% percentile intervals of mean differences, users drawn with replacement.

    Paired, since one draw of users serves both systems (Efron & Tibshirani 1993, ch. 13). Memory is
    bounded: the draws are made in chunks.

    Args:
        differences: float64 [U, M], one system minus the other, per user and metric.

    Returns:
        float64 [2, M]: lower and upper ends.
    """
    num_users = len(differences)
    random = np.random.default_rng(seed)
    means = np.empty((num_resamples, differences.shape[1]))
    rows_per_chunk = max(1, _DRAWS_PER_CHUNK // num_users)
    for start in range(0, num_resamples, rows_per_chunk):
        size = min(rows_per_chunk, num_resamples - start)
        drawn = random.integers(num_users, size=(size, num_users))
        drawn += np.arange(size)[:, None] * num_users
        times_drawn = np.bincount(drawn.ravel(), minlength=size * num_users)
        weights = times_drawn.reshape(size, num_users) / num_users
        means[start : start + size] = weights @ differences
    ends: NDArray[np.float64] = np.quantile(means, [0.025, 0.975], axis=0)
    return ends


def per_user_metrics(hits: Tensor, num_relevant: Tensor) -> dict[str, Tensor]:
    """Each of TABLE_METRICS per user [U], from hits bool [U, K] and num_relevant int64 [U]."""
    metrics = {}
    for k in CUTOFFS:
        metrics[f"recall@{k}"] = recall_at_k(hits, num_relevant, k)
        metrics[f"ndcg@{k}"] = ndcg_at_k(hits, num_relevant, k)
    return metrics


def _differences(
    better: Mapping[str, Tensor], worse: Mapping[str, Tensor], seed: int
) -> dict[str, dict[str, float]]:
    difference = torch.stack([better[m] - worse[m] for m in TABLE_METRICS], dim=1).numpy()
    low, high = paired_bootstrap(difference, seed)
    mean = difference.mean(axis=0)
    return {
        metric: {"mean": float(mean[i]), "low": float(low[i]), "high": float(high[i])}
        for i, metric in enumerate(TABLE_METRICS)
    }


def _found(ranked: Tensor, targets: Targets, num_items: int) -> Tensor:
    """Whether each held-out event [n] is in its user's list."""
    rows = torch.arange(len(ranked))[:, None]
    shown = rows * (num_items + 1) + ranked
    wanted = targets.rows * (num_items + 1) + targets.items
    return torch.isin(wanted, shown) & (targets.items > 0)


def _check(system: str, ranked: Tensor, targets: Targets, train: Histories, num_items: int) -> None:
    if ranked.ndim != 2 or len(ranked) != len(targets) or ranked.shape[1] < max(CUTOFFS):
        raise ValueError(
            f"{system}: expected lists of shape [{len(targets)}, >= {max(CUTOFFS)}]; "
            f"found {list(ranked.shape)}"
        )
    if ranked.min() < 0 or ranked.max() > num_items:
        raise ValueError(f"{system}: item indices must lie in 0..{num_items}")
    in_order, _ = ranked.sort(dim=1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] > 0)).any():
        raise ValueError(f"{system}: a list repeats an item")
    users = torch.from_numpy(targets.user_idx)[:, None]
    shown = (users * (num_items + 1) + ranked)[ranked > 0]
    known = torch.from_numpy(train.user_idx * (num_items + 1) + train.item_idx)
    if torch.isin(shown, known).any():
        raise ValueError(f"{system}: a list holds an item of the user's training events")


def _round(value: Any) -> Any:
    """Floats cut to 8 decimals: below them, the order of a sum on several threads shows."""
    if isinstance(value, dict):
        return {key: _round(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_round(entry) for entry in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
