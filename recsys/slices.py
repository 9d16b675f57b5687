"""Where a system is strong or weak: metrics by the user's history and by the item's popularity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HISTORY_BIN_STARTS = (0, 1, 5, 10, 20, 50, 100, 200)
"""First history length of each bin; fixed, so that slices of two data sets can be compared."""

POPULARITY_BINS = ("head", "mid", "tail")
_BIN_STARTS = np.array([0.5, 0.8])


def by_history_length(
    history_lengths: NDArray[np.int64], per_user: Mapping[str, Mapping[str, Tensor]]
) -> list[dict[str, Any]]:
    """Mean metrics of the users in each bin of training-history length; empty bins are left out.

    Args:
        history_lengths: int64 [U], training events of each evaluated user (0: an unknown user).
        per_user: system -> metric -> float64 [U].

    Returns:
        One mapping per bin: ``label`` such as "20-49", ``n_users``, and per system the means.
    """
    starts = np.array(HISTORY_BIN_STARTS)
    bins = np.searchsorted(starts, history_lengths, side="right") - 1
    slices = []
    for number in np.unique(bins):
        members = torch.from_numpy(bins == number)
        means = {
            system: {metric: float(values[members].mean()) for metric, values in metrics.items()}
            for system, metrics in per_user.items()
        }
        slices.append({"label": _label(number), "n_users": int(members.sum()), **means})
    return slices


def _label(number: int) -> str:
    first = HISTORY_BIN_STARTS[number]
    if number + 1 == len(HISTORY_BIN_STARTS):
        return f"{first}+"
    last = HISTORY_BIN_STARTS[number + 1] - 1
    return str(first) if first == last else f"{first}-{last}"


def popularity_bins(item_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The popularity bin of each item: int64 [N + 1], positions in ``POPULARITY_BINS``.

    An item is *head* when the items strictly more popular than it hold less than 50% of the
    training events, *mid* below 80%, else *tail*: equally popular items share a bin, and an item
    without training events (index 0, unknown, included) is tail.

    Args:
        item_counts: int64 [N + 1], training events per item.
    """
    counts, which, num_items = np.unique(item_counts, return_inverse=True, return_counts=True)
    events = (counts * num_items)[::-1]
    above = (np.cumsum(events) - events)[::-1] / max(int(events.sum()), 1)
    bins = np.searchsorted(_BIN_STARTS, above, side="right")
    bins[counts == 0] = len(POPULARITY_BINS) - 1
    of_items: NDArray[np.int64] = bins[which].astype(np.int64)
    return of_items


def by_item_popularity(
    item_counts: NDArray[np.int64],
    held_out_items: Tensor,
    found: Mapping[str, Mapping[str, Tensor]],
) -> list[dict[str, Any]]:
    """Of the held-out events whose item lies in a bin, the share that each system found.

    A mean over events, not over users, since most users have few events in a bin.

    Args:
        item_counts: int64 [N + 1], training events per item.
        held_out_items: int64 [n], the item of each held-out event, 0 = not in the vocabulary.
        found: system -> metric such as "recall@10" -> bool [n], whether the event was found.

    Returns:
        One mapping per bin that has held-out events: ``label``, ``n_items`` (of the catalogue),
        ``n_held_out`` (events), and per system the shares.
    """
    bins = torch.from_numpy(popularity_bins(item_counts))
    event_bins = bins[held_out_items]
    slices = []
    for number, label in enumerate(POPULARITY_BINS):
        members = event_bins == number
        if not members.any():
            continue
        shares = {
            system: {metric: float(hit[members].double().mean()) for metric, hit in metrics.items()}
            for system, metrics in found.items()
        }
        num_items = int((bins[1:] == number).sum())
        n_held_out = int(members.sum())
        slices.append({"label": label, "n_items": num_items, "n_held_out": n_held_out, **shares})
    return slices
