"""Training and held-out rows. Each split says in one sentence what it means."""

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.schema import ITEM_ID, TIMESTAMP, USER_ID, Split

logger = logging.getLogger(__name__)


def make_split(
    interactions: pd.DataFrame,
    name: str,
    *,
    num_test: int = 10,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Split:
    """Split interactions (a frame of ``Dataset``) into training and test rows.

    ==============  ==============================================================================
    ua              each user's first ``num_test`` rows in file order are test. On MovieLens-100K
                    with 10 this is the official ua split.
    random          ``num_test`` rows per user, drawn by ``seed``; the order of rows has no effect.
    leave_last      each user's latest ``num_test`` rows; equal times go by file order.
    global_time     the latest ``test_fraction`` of all rows, cut at a moment: rows of one
                    timestamp stay together. Test rows of users without training rows are dropped.
    ==============  ==============================================================================

    In the first three, at most half of a user's rows are held out (rounded down), so a user with a
    single row is training only. Rows keep their order; both frames have a fresh RangeIndex.

    Raises:
        InputError: on an unknown name, a count or fraction out of range, an empty side, or times
            that the split needs and the interactions lack.
    """
    if name not in _SPLITS:
        raise InputError(
            f"data.split to be one of {', '.join(_SPLITS)}", repr(name), "correct data.split"
        )
    if num_test < 1:
        raise InputError("data.num_test of at least 1", str(num_test), "correct data.num_test")
    if not 0 < test_fraction < 1:
        raise InputError(
            "data.test_fraction between 0 and 1", str(test_fraction), "correct data.test_fraction"
        )
    if name in TEMPORAL and TIMESTAMP not in interactions:
        raise InputError(
            f"times of interactions for data.split={name}",
            "no column of them",
            "set data.columns.interactions.timestamp to the column's name, or data.split=random",
        )
    is_test, protocol = _SPLITS[name](interactions, num_test, test_fraction, seed)
    is_train = ~is_test
    if name == "global_time":
        known = interactions[USER_ID].isin(interactions.loc[is_train, USER_ID].unique()).to_numpy()
        dropped = int((is_test & ~known).sum())
        users = interactions.loc[is_test & ~known, USER_ID].nunique()
        logger.info("%d test rows of %d users without training rows are dropped", dropped, users)
        protocol += f"; {dropped} test rows of {users} users without training rows are dropped"
        is_test &= known
    for side, rows in (("training", is_train), ("test", is_test)):
        if not rows.any():
            raise InputError(
                f"data.split={name} to leave {side} rows",
                f"none among {len(interactions):,} interactions",
                "use more data, another data.split, or a smaller data.num_test or "
                "data.test_fraction",
            )
    train = interactions[is_train].reset_index(drop=True)
    test = interactions[is_test].reset_index(drop=True)
    check_no_leakage(train, test)
    return Split(name, protocol, train, test)


def check_no_leakage(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Check that no (user, item) pair is on both sides.

    Raises:
        InputError: with the number of such pairs and the first three.
    """
    pairs = [USER_ID, ITEM_ID]
    known = pd.MultiIndex.from_frame(train[pairs])
    leaked = pd.MultiIndex.from_frame(test[pairs]).isin(known)
    if leaked.any():
        first = test.loc[leaked, pairs].drop_duplicates().head(3).to_numpy().tolist()
        raise InputError(
            "no (user, item) in both training and test rows",
            f"{int(leaked.sum()):,} test rows that are also in training, first {first}",
            "remove them from the training rows",
        )


def _first_rows(
    interactions: pd.DataFrame, num_test: int, _fraction: float, _seed: int
) -> tuple[NDArray[np.bool_], str]:
    is_test = _hold_out(interactions, np.arange(len(interactions)), num_test)
    return is_test, (
        f"ua: each user's first {num_test} rows in file order are held out{_cap_note(num_test)}; "
        "on MovieLens-100K this is random per user, not temporal"
    )


def _random_rows(
    interactions: pd.DataFrame, num_test: int, _fraction: float, seed: int
) -> tuple[NDArray[np.bool_], str]:
    # Keys are dealt in the order of (user, item), so that shuffling the file changes nothing.
    user = pd.factorize(interactions[USER_ID], sort=True)[0]
    item = pd.factorize(interactions[ITEM_ID], sort=True)[0]
    keys = np.empty(len(interactions), dtype=np.int64)
    keys[np.lexsort((item, user))] = np.random.default_rng(seed).permutation(len(interactions))
    return _hold_out(interactions, keys, num_test), (
        f"random: {num_test} random rows per user are held out{_cap_note(num_test)}, seed {seed}; "
        "not temporal"
    )


def _last_rows(
    interactions: pd.DataFrame, num_test: int, _fraction: float, _seed: int
) -> tuple[NDArray[np.bool_], str]:
    newest_first = np.lexsort(
        (-np.arange(len(interactions)), -interactions[TIMESTAMP].to_numpy(np.int64))
    )
    keys = np.empty(len(interactions), dtype=np.int64)
    keys[newest_first] = np.arange(len(interactions))
    return _hold_out(interactions, keys, num_test), (
        f"leave_last: each user's latest {num_test} rows are held out{_cap_note(num_test)}; "
        "temporal per user, not across users"
    )


def _latest_rows(
    interactions: pd.DataFrame, _num_test: int, fraction: float, _seed: int
) -> tuple[NDArray[np.bool_], str]:
    timestamps = interactions[TIMESTAMP].to_numpy(np.int64)
    count = max(1, round(fraction * len(timestamps)))
    cut = int(np.sort(timestamps)[-count]) if len(timestamps) else 0
    is_test = timestamps >= cut
    return is_test, (
        f"global_time: all rows from unix time {cut} on, the latest {is_test.mean():.1%}, are held "
        "out; temporal across users"
    )


_SPLITS: dict[str, Callable[[pd.DataFrame, int, float, int], tuple[NDArray[np.bool_], str]]] = {
    "ua": _first_rows,
    "random": _random_rows,
    "leave_last": _last_rows,
    "global_time": _latest_rows,
}

TEMPORAL = ("leave_last", "global_time")
"""Those that hold out the latest rows."""


def _hold_out(
    interactions: pd.DataFrame, keys: NDArray[np.int64], num_test: int
) -> NDArray[np.bool_]:
    """True for the rows with each user's smallest ``num_test`` keys, at most half of the rows."""
    user = pd.factorize(interactions[USER_ID])[0]
    order = np.lexsort((keys, user))
    counts = np.bincount(user) if len(user) else np.zeros(0, np.int64)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(user), dtype=np.int64)
    rank[order] = np.arange(len(user)) - starts[user[order]]
    is_test: NDArray[np.bool_] = rank < np.minimum(num_test, counts // 2)[user]
    return is_test


def _cap_note(num_test: int) -> str:
    return " (at most half of a user's rows)" if num_test > 1 else ""
