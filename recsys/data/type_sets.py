"""All types of events that a pair of user and item has had, beside the one that it counts as."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.schema import ALL_TYPES, ITEM_ID, TYPE, USER_ID

TypeSets = NDArray[np.uint8]
"""uint8 [N, B]: of each event, which types 1..8B its user and item have had together, a bit each,
as ``np.packbits`` has them. No bit at all where no type is told."""


def of_single_types(types: NDArray[np.int8]) -> TypeSets:
    """The sets of so many events that have one type each, int8 [N], 0 where none is told."""
    return packed(types, int(types.max(initial=0)))


def packed(types: NDArray[np.int8], num_types: int) -> TypeSets:
    """As ``of_single_types``, with room for so many types."""
    sets = np.zeros((len(types), _width(num_types)), np.uint8)
    rows = np.flatnonzero(types > 0)
    bits = types[rows].astype(np.int64) - 1
    sets[rows, bits // 8] = (0x80 >> (bits % 8)).astype(np.uint8)
    return sets


def have_any(sets: TypeSets, numbers: Iterable[int]) -> NDArray[np.bool_]:
    """Which of the sets [N] have one of the types of these numbers, or have no type told."""
    wanted = np.zeros(8 * sets.shape[1], bool)
    wanted[[number - 1 for number in numbers if number <= len(wanted)]] = True
    has_one = np.any(sets & np.packbits(wanted), axis=1)
    is_told = np.any(sets, axis=1)
    found: NDArray[np.bool_] = has_one | ~is_told
    return found


def from_names(column: "pd.Series[str]", event_types: Sequence[str]) -> TypeSets:
    """The sets of rows [N] whose types are told as in ``Dataset.interactions``.

    Args:
        event_types: names; a type that is not among them is as none.
    """
    codes, texts = pd.factorize(column)
    bits = np.zeros((len(texts), 8 * _width(len(event_types))), bool)
    for row, text in enumerate(texts):  # there are few
        bits[row, [event_types.index(name) for name in _names(text) if name in event_types]] = True
    sets: TypeSets = np.packbits(bits, axis=1)[codes]
    return sets


def to_names(sets: TypeSets, event_types: Sequence[str]) -> list[str]:
    """The reverse of ``from_names``."""
    different, codes = np.unique(sets, axis=0, return_inverse=True)
    bits = np.unpackbits(different, axis=1).astype(bool)[:, : len(event_types)]
    texts = [as_text(np.array(event_types, object)[row].tolist()) for row in bits]
    return [texts[code] for code in codes.ravel().tolist()]


def names_in(column: "pd.Series[str]") -> set[str]:
    """All types that such rows tell."""
    return {name for text in column.unique() for name in _names(text)}


def with_all_types(events: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Rows that tell, each, the types of all rows of their user and item.

    Args:
        events: with ``type`` or without, and perhaps with ``all_types`` from an export, which
            counts as well. origin: where they come from, for error messages.

    Returns:
        ``events`` with ``all_types`` where ``type`` does not tell all, and without it otherwise.

    Raises:
        InputError: when ``all_types`` is none.
    """
    if TYPE not in events:
        return events.drop(columns=ALL_TYPES, errors="ignore")
    pair = events.groupby([USER_ID, ITEM_ID], sort=False).ngroup().to_numpy(np.int64)
    told = pd.DataFrame({"pair": pair, "name": events[TYPE].to_numpy(object)})
    if ALL_TYPES in events:
        texts = events[ALL_TYPES]
        _check(texts, origin)
        lists = texts.map({text: _names(text) for text in texts.unique()})
        more = pd.DataFrame({"pair": pair, "name": lists.to_numpy(object)}).explode("name")
        told = pd.concat([told, more.dropna()], ignore_index=True)
    told = told[told["name"] != ""].drop_duplicates()
    names = sorted(told["name"].unique().tolist())
    # Where a pair has one type, and each of its rows tells it, nothing is to be added.
    is_untold = np.isin(pair, told["pair"]) & (events[TYPE] == "").to_numpy(bool)
    if not told["pair"].duplicated().any() and not is_untold.any():
        return events.drop(columns=ALL_TYPES, errors="ignore")
    bits = np.zeros((int(pair.max()) + 1, len(names)), bool)
    bits[told["pair"], pd.Index(names).get_indexer(pd.Index(told["name"]))] = True
    by_pair = np.array(to_names(np.packbits(bits, axis=1), names), object)
    return events.assign(**{ALL_TYPES: pd.array(by_pair[pair], "str")})


def as_text(names: Iterable[str]) -> str:
    """A set of names as one text; "" for none."""
    ordered = sorted(names)
    return json.dumps(ordered, ensure_ascii=False) if ordered else ""


def _names(text: str) -> list[str]:
    names: list[str] = json.loads(text) if text else []
    return names


def _check(texts: "pd.Series[str]", origin: str) -> None:
    for text in texts.unique():
        try:
            names = _names(text)
        except ValueError:
            names = [None]  # type: ignore[list-item]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f"column {ALL_TYPES!r} of {origin} to hold lists of types as an export has them, "
                'e.g. ["purchase", "view"]',
                repr(text)[:80],
                "leave it out: data.columns.interactions.all_types=null",
            )


def _width(num_types: int) -> int:
    return -(-num_types // 8)
