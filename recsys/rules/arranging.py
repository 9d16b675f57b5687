"""The order of a list under rules: boosts, diversity, caps, pins, in this order."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.rules.item_table import ItemTable
from recsys.rules.named_items import NamedItems
from recsys.rules.rules import Rules

Items = NDArray[np.int64]
Scores = NDArray[np.float32]

FEWEST_TO_CHOOSE_FROM = 50
TIMES_TO_CHOOSE_FROM = 5
"""Diversity chooses among so many times as many candidates as the list has places."""

PIN = "pin"
"""What has moved an item that is pinned to its place."""


@dataclass(frozen=True)
class Arranged:
    """A list under rules.

    item_idx: int64 [n]. scores: float32 [n], boosts included; they need not fall. touched: of each
    item, what has moved it to its place; None for its score alone. is_capped: whether caps have
    left out so much that the list is short.
    """

    item_idx: Items
    scores: Scores
    touched: Sequence[str | None]
    is_capped: bool


def arrange(
    item_idx: Items,
    scores: Scores,
    top_k: int,
    rules: Rules,
    table: ItemTable,
    vectors: NDArray[np.float32] | None,
    named: NamedItems,
) -> Arranged:
    """The best ``top_k`` of candidates under rules.

    A boost by f adds log(f) to a score: scores are logits, so it multiplies the odds. Diversity
    (see ``diversified``) chooses among the best few times ``top_k`` candidates; the others follow.
    An item that a cap leaves no room for is left out.

    Args:
        item_idx, scores: [K], candidates, best first, without padding; pinned ones among them.
        vectors: float32 [K, T], text vectors of the candidates; None leaves diversity out.
        named: by the rules.
    """
    touched: dict[int, str] = {}
    if rules.boost:
        best, scores = _boosted(item_idx, scores, named, touched)
        item_idx = item_idx[best]
        vectors = None if vectors is None else vectors[best]
    if rules.diversity and vectors is not None:
        chosen = _diverse(scores, vectors, top_k, rules)
        for place, position in enumerate(chosen[:top_k].tolist()):
            if place != position:
                touched.setdefault(int(item_idx[position]), "diversity")
        item_idx, scores = item_idx[chosen], scores[chosen]
    if rules.pin:
        item_idx, scores = _pinned(item_idx, scores, named.pins, touched)
    kept = np.arange(len(item_idx))[:top_k]
    if rules.caps:
        kept = _within_caps(item_idx, top_k, rules, table)
        for place, position in enumerate(kept.tolist()):
            if place != position:
                touched.setdefault(int(item_idx[position]), "cap")
    found = item_idx[kept]
    return Arranged(
        found,
        scores[kept],
        [touched.get(item) for item in found.tolist()],
        len(found) < min(top_k, len(item_idx)),
    )


def _boosted(
    item_idx: Items, scores: Scores, named: NamedItems, touched: dict[int, str]
) -> tuple[Items, Scores]:
    """Positions [K] in the order that boosts make, and their scores."""
    if not len(named.boosted):
        return np.arange(len(item_idx)), scores
    place = np.searchsorted(named.boosted, item_idx).clip(max=len(named.boosted) - 1)
    hit = named.boosted[place] == item_idx
    for item, number in zip(item_idx[hit].tolist(), place[hit].tolist(), strict=True):
        touched.setdefault(item, named.reasons[number])
    boosted = scores + np.where(hit, named.added[place], np.float32(0))
    best = np.argsort(-boosted, kind="stable")
    return best, boosted[best]


def num_to_choose_from(top_k: int) -> int:
    """How many candidates diversity chooses a list from."""
    return max(TIMES_TO_CHOOSE_FROM * top_k, FEWEST_TO_CHOOSE_FROM)


def _diverse(
    scores: Scores, vectors: NDArray[np.float32], top_k: int, rules: Rules
) -> NDArray[np.int64]:
    """Positions [K] of all candidates, in another order."""
    # Imported here, since most lists never need it.
    from recsys.rules.diversity import diversified

    number = min(len(scores), num_to_choose_from(top_k))
    if not number:
        return np.zeros(0, np.int64)
    wanted = number if rules.caps or rules.pin else min(number, top_k)
    chosen = diversified(
        scores[:number], vectors[:number], wanted, rules.diversity, rules.diversify
    )
    rest = np.setdiff1d(np.arange(len(scores)), chosen)
    return np.concatenate([chosen, rest])


def _pinned(
    item_idx: Items, scores: Scores, pins: Items, touched: dict[int, str]
) -> tuple[Items, Scores]:
    """Pinned candidates first, in the order of the pins."""
    place = {item: position for position, item in enumerate(item_idx.tolist())}
    first = [place[pin] for pin in dict.fromkeys(pins.tolist()) if pin in place]
    for position in first:
        touched[int(item_idx[position])] = PIN
    rest = np.setdiff1d(np.arange(len(item_idx)), first)
    order = np.concatenate([np.array(first, np.int64), rest])
    return item_idx[order], scores[order]


def with_room(
    listed: Sequence[int], pool: Sequence[int], places: int, rules: Rules, table: ItemTable
) -> list[int]:
    """Those of a pool that fit into a list besides all that is in it, ``places`` of them at a time.

    Which items these are does not depend on which of them are drawn, nor on whose places they get.
    """
    caps = dict(rules.caps)
    counts = Counter(value for item in listed for value in _capped(caps, item, table))
    return [
        item
        for item in pool
        if all(counts[value] + places <= caps[value[0]] for value in _capped(caps, item, table))
    ]


def _capped(caps: Iterable[str], item: int, table: ItemTable) -> list[tuple[str, str | int]]:
    """What an item has of the attributes that have caps."""
    return [(name, value) for name in caps for value in table.values(name, item)]


def _within_caps(item_idx: Items, top_k: int, rules: Rules, table: ItemTable) -> NDArray[np.int64]:
    """Positions of the first ``top_k`` items that leave no value with more than its cap."""
    # Room that is left, by attribute and value. Plain dictionaries, since many items are looked at
    # where caps are low.
    room: list[tuple[str, int, dict[str | int, int]]] = [
        (name, cap, {}) for name, cap in rules.caps
    ]
    kept: list[int] = []
    for position, item in enumerate(item_idx.tolist()):
        values = [(left, cap, table.values(name, item)) for name, cap, left in room]
        if any(left.get(value, cap) == 0 for left, cap, own in values for value in own):
            continue
        for left, cap, own in values:
            for value in own:
                left[value] = left.get(value, cap) - 1
        kept.append(position)
        if len(kept) == top_k:
            break
    return np.array(kept, np.int64)
