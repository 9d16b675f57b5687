"""A MovieLens-like data set of our own making, at any size, with a structure known in advance.

Items stand in a tree: taste group > theme > circle of about a dozen films. A user likes one or two
groups, and some themes of them. In a sitting of a few minutes a user rates films around one circle,
so what is rated together tells more than the group does. Popularity is Zipf-like. Titles, genres
and descriptions carry group, theme and circle, with noise.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.generator_text import item_frame
from recsys.data.generator_words import GROUPS
from recsys.errors import InputError
from recsys.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID, Dataset

MIN_PER_USER = 10
CIRCLE_SIZE = 12
SITTING_LENGTH = 8
COLD_SHARE = 0.02
ZIPF_EXPONENT = 0.7
# Where the films of a sitting come from: its circle, its theme, its group, the whole catalogue.
SCOPE_SHARES = (0.45, 0.15, 0.2, 0.2)
START = 1_577_836_800  # 2020-01-01
DAY = 86_400

Ints = NDArray[np.int64]


class Tree(NamedTuple):
    """Items sorted by group, theme and circle, so that each of these is a range of positions.

    group, theme, circle: int64 [N], each numbered over the whole catalogue. weight: float64 [N],
    popularity, 0 for the items that nobody meets.
    """

    group: Ints
    theme: Ints
    circle: Ints
    weight: NDArray[np.float64]


def load(
    num_users: int,
    num_items: int,
    num_interactions: int,
    seed: int = 0,
    num_groups: int = 8,
    name: str = "synthetic",
) -> Dataset:
    """Generate a data set; the same arguments give the same one.

    Each (user, item) pair occurs once; each user has ``MIN_PER_USER`` interactions or more, as far
    as the sizes allow. One item in fifty is never met (cold). Interactions are ordered by time.

    Raises:
        InputError: when the sizes can't be met.
    """
    num_cold = int(num_items * COLD_SHARE)
    most = num_users * (num_items - num_cold)
    if num_users < 1 or num_items < 1 or not num_users <= num_interactions <= most:
        raise InputError(
            f"users, items, and between num_users and {max(most, 0):,} interactions (one per user "
            "and item that is not cold)",
            f"num_users={num_users}, num_items={num_items}, num_interactions={num_interactions}",
            "change data.num_users, data.num_items or data.num_interactions",
        )
    if not 1 <= num_groups <= len(GROUPS):
        raise InputError(
            f"data.num_groups in 1..{len(GROUPS)}", str(num_groups), "correct data.num_groups"
        )
    rng = np.random.default_rng(seed)
    tree = _grow_tree(rng, num_items, num_groups, num_cold)
    counts = _events_per_user(rng, num_users, num_interactions, num_items - num_cold)
    user = np.repeat(np.arange(num_users), counts)
    starts_sitting = rng.random(len(user)) < 1 / SITTING_LENGTH
    starts_sitting[np.cumsum(counts) - counts] = True
    sitting = np.cumsum(starts_sitting) - 1
    sitting_user = user[starts_sitting]

    liked, share = _tastes(rng, num_users, num_groups)
    anchor = _anchors(rng, tree, liked[sitting_user], share[sitting_user])
    item = _draw_items(rng, tree, user, anchor[sitting], num_users)
    timestamp = _times(rng, user, sitting, sitting_user)
    likes = (tree.group[item][:, None] == liked[user]).any(axis=1)
    rating = _ratings(rng, item, likes, num_items)

    ids = rng.permutation(num_items) + 1
    order = np.lexsort((user, timestamp))
    interactions = pd.DataFrame(
        {
            USER_ID: (user + 1)[order],
            ITEM_ID: ids[item][order],
            TIMESTAMP: timestamp[order],
            RATING: rating[order],
        }
    )
    items = item_frame(rng, tree.group, tree.theme, tree.circle)
    items.insert(0, ITEM_ID, ids)
    users = pd.DataFrame(
        {
            USER_ID: np.arange(1, num_users + 1),
            "age": rng.integers(16, 80, num_users),
            "region": pd.array(rng.choice(["north", "east", "south", "west"], num_users), "str"),
        }
    )
    return Dataset(name, interactions, items.sort_values(ITEM_ID, ignore_index=True), users)


def _grow_tree(rng: np.random.Generator, num_items: int, num_groups: int, num_cold: int) -> Tree:
    per_group = len(GROUPS[0].themes)
    theme = np.sort(rng.integers(0, num_groups * per_group, num_items))
    # Circles cut each theme's range evenly.
    sizes = np.bincount(theme, minlength=num_groups * per_group)
    within = np.arange(num_items) - (np.cumsum(sizes) - sizes)[theme]
    circles = np.maximum(1, np.round(sizes / CIRCLE_SIZE).astype(np.int64))
    first_circle = np.cumsum(circles) - circles
    circle = first_circle[theme] + within * circles[theme] // np.maximum(sizes[theme], 1)
    rank = rng.permutation(num_items)
    weight: NDArray[np.float64] = np.power(rank + 5.0, -ZIPF_EXPONENT)
    weight[rng.choice(num_items, num_cold, replace=False)] = 0
    return Tree(theme // per_group, theme, circle, weight)


def _events_per_user(rng: np.random.Generator, num_users: int, total: int, num_warm: int) -> Ints:
    """int64 [U] that sums to ``total``: log-normal above a minimum, at most ``num_warm`` each."""
    least = min(MIN_PER_USER, total // num_users, num_warm)
    # Nobody has seen half of the catalogue, unless the sizes ask for it.
    cap = min(num_warm, max(num_warm // 2, -(-total * 3 // (2 * num_users))))
    counts = np.full(num_users, least, dtype=np.int64)
    activity = rng.lognormal(0.0, 0.8, num_users)
    while (left := total - int(counts.sum())) > 0:
        open_share = activity * (counts < cap)
        more = np.floor(left * open_share / open_share.sum()).astype(np.int64)
        if not more.any():
            # Fewer are left than there are users: one each to the most active.
            more[np.argsort(-open_share, kind="stable")[:left]] = 1
        counts = np.minimum(counts + more, cap)
    return counts


def _tastes(
    rng: np.random.Generator, num_users: int, num_groups: int
) -> tuple[Ints, NDArray[np.float64]]:
    """Two groups per user [U, 2] and the share of the first [U], 1 for one user in three."""
    first = rng.integers(0, num_groups, num_users)
    other = (first + rng.integers(1, max(num_groups, 2), num_users)) % num_groups
    share = np.where(rng.random(num_users) < 1 / 3, 1.0, rng.uniform(0.5, 0.8, num_users))
    return np.stack([first, np.where(share == 1.0, first, other)], axis=1), share


def _anchors(rng: np.random.Generator, tree: Tree, liked: Ints, share: NDArray[np.float64]) -> Ints:
    """The item [S] around which each sitting turns: of a liked group, by popularity."""
    group = np.where(rng.random(len(share)) < share, liked[:, 0], liked[:, 1])
    return _draw(rng, tree, tree.group, group)


def _draw(rng: np.random.Generator, tree: Tree, label: Ints, wanted: Ints) -> Ints:
    """For each wanted value of ``label`` [N] (ascending) one of its items, by weight.

    Where all of its items are cold or it has none, one of the whole catalogue.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(tree.weight)])
    low = cumulative[np.searchsorted(label, wanted, side="left")]
    high = cumulative[np.searchsorted(label, wanted, side="right")]
    empty = high - low < 1e-12
    low, high = np.where(empty, 0.0, low), np.where(empty, cumulative[-1], high)
    point = low + rng.random(len(wanted)) * (high - low)
    drawn = np.searchsorted(cumulative, point, side="right") - 1
    return _warm(tree, np.minimum(drawn, len(tree.weight) - 1))


def _warm(tree: Tree, item: Ints) -> Ints:
    """Rounding may land on an item without weight; then the nearest warm one before it, or the
    first."""
    warm = np.flatnonzero(tree.weight)
    return warm[np.maximum(np.searchsorted(warm, item, side="right") - 1, 0)]


def _draw_items(
    rng: np.random.Generator, tree: Tree, user: Ints, anchor: Ints, num_users: int
) -> Ints:
    """One item per event [E], all distinct for a user.

    Draws again where a user has the item already; from wider scopes each time, since circles run
    dry. What is still open after a few rounds takes any item that the user lacks.
    """
    num_items = len(tree.weight)
    item = np.full(len(user), -1, dtype=np.int64)
    open_events = np.arange(len(user))
    everything = np.zeros(num_items, dtype=np.int64)
    labels = (tree.circle, tree.theme, tree.group, everything)
    for widen in (0, 0, 0, 1, 1, 2, 3, 3):
        scope = rng.choice(4, len(open_events), p=SCOPE_SHARES)
        scope = np.maximum(scope, widen)
        for number, label in enumerate(labels):
            chosen = open_events[scope == number]
            item[chosen] = _draw(rng, tree, label, label[anchor[chosen]])
        # The first event with a pair keeps it; those kept earlier come first.
        settled = np.setdiff1d(np.arange(len(user)), open_events, assume_unique=True)
        order = np.concatenate([settled, open_events])
        pairs = user[order] * num_items + item[order]
        first = np.unique(pairs, return_index=True)[1]
        repeated = np.ones(len(order), dtype=bool)
        repeated[first] = False
        open_events = np.sort(order[repeated])
        if not len(open_events):
            return item
    item[open_events] = -1
    return _fill(rng, tree, user, item, num_users)


def _fill(rng: np.random.Generator, tree: Tree, user: Ints, item: Ints, num_users: int) -> Ints:
    """Give each open event (-1) a random warm item that its user lacks; in chunks of users."""
    warm = np.flatnonzero(tree.weight)
    open_events = np.flatnonzero(item < 0)
    needy, needed = np.unique(user[open_events], return_counts=True)
    chunk = max(1, 10_000_000 // len(tree.weight))
    for start in range(0, len(needy), chunk):
        users = needy[start : start + chunk]
        row_of = np.full(num_users, -1)
        row_of[users] = np.arange(len(users))
        keys = rng.random((len(users), len(tree.weight)))
        done = (item >= 0) & (row_of[user] >= 0)
        keys[row_of[user[done]], item[done]] = 2.0
        keys = keys[:, warm]
        ranked = warm[np.argsort(keys, axis=1)]
        take = np.arange(len(warm)) < needed[start : start + chunk, None]
        # Row-major order of both sides: events are sorted by user.
        events = open_events[row_of[user[open_events]] >= 0]
        item[events] = ranked[take]
    return item


def _times(rng: np.random.Generator, user: Ints, sitting: Ints, sitting_user: Ints) -> Ints:
    """Unix seconds [E]: sittings days apart, events of a sitting up to 40 s apart, some at once."""
    gaps = rng.exponential(5 * DAY, len(sitting_user)).astype(np.int64) + 3600
    joined = START + rng.integers(0, 300 * DAY, int(user[-1]) + 1)
    start = joined[sitting_user] + _running_sum(gaps, sitting_user)
    return start[sitting] + _running_sum(rng.integers(0, 40, len(user)), sitting)


def _running_sum(values: Ints, key: Ints) -> Ints:
    """Cumulative sum within each run of equal ``key`` (ascending)."""
    total = np.cumsum(values)
    first = np.searchsorted(key, key, side="left")
    return total - (total - values)[first]


def _ratings(
    rng: np.random.Generator, item: Ints, likes: NDArray[np.bool_], num_items: int
) -> NDArray[np.float64]:
    quality = rng.normal(0.0, 0.5, num_items)
    score = 3.0 + 0.8 * likes + quality[item] + rng.normal(0.0, 0.8, len(item))
    return np.clip(np.round(score), 1, 5)
