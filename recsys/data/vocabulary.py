"""External ids <-> contiguous indices. The only place where the two are exchanged."""

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.schema import PAD_IDX, ExternalId

# So many look-ups, one by one, take as long as pandas takes to make an index of the ids to look up.
_FEW = 64


class Vocabulary:
    """An ordered set of ids; the id at position ``p`` has index ``p + 1``, and 0 is padding.

    All ids are integers, or all are strings.

    Raises:
        ValueError: when ids repeat, or mix integers and strings.
    """

    def __init__(self, ids: Sequence[ExternalId]) -> None:
        index = pd.Index(list(ids))
        if len(index) and not (
            pd.api.types.is_integer_dtype(index) or pd.api.types.is_string_dtype(index)
        ):
            raise ValueError(f"ids must be all integers or all strings; found dtype {index.dtype}")
        if not index.is_unique:
            repeated = index[index.duplicated()][:3].tolist()
            raise ValueError(f"ids must be unique; repeated: {repeated}")
        self._index = index
        # Indexing an array takes a tenth of the time that indexing a pandas index takes.
        self._ids = index.to_numpy()
        # Positions of ids that came later. Shared with the vocabularies that this one is extended
        # to, and hence perhaps with some that are beyond its own end.
        self._later: dict[ExternalId, int] = {}

    @classmethod
    def of(cls, *columns: Iterable[ExternalId]) -> "Vocabulary":
        """The sorted distinct ids of the given columns."""
        return cls(pd.unique(pd.concat([pd.Series(list(c)) for c in columns])).tolist()).sorted()

    def sorted(self) -> "Vocabulary":
        """The same ids in ascending order."""
        return Vocabulary(self._index.sort_values().tolist())

    def extended(self, ids: Sequence[ExternalId]) -> "Vocabulary":
        """With more ids at the end; indices so far stay, and so does this object.

        Raises:
            ValueError: when an id is there, repeats, or is of another type than the others.
        """
        kind = int if self.holds_integers else str
        if not all(type(one) is kind for one in ids):
            raise ValueError(f"ids must be {kind.__name__}; found {ids[:3]}")
        if len(set(ids)) < len(ids) or self.encode(ids).any():
            raise ValueError(f"ids must be new, each once; found {ids[:3]}")
        longer = copy(self)
        longer._ids = np.concatenate([self._ids, np.array(list(ids), self._ids.dtype)])
        if len(self._later) > len(self) - len(self._index):  # extended to another one before
            longer._later = {one: p for one, p in self._later.items() if p < len(self)}
        longer._later.update(zip(ids, range(len(self), len(longer)), strict=True))
        return longer

    def __len__(self) -> int:
        """Number of ids, the padding index not counted."""
        return len(self._ids)

    def __contains__(self, external_id: object) -> bool:
        return isinstance(external_id, int | str) and self._index_of(external_id) != PAD_IDX

    @property
    def ids(self) -> pd.Index:
        """The ids in index order: ``ids[p]`` has index ``p + 1``."""
        return self._index if len(self) == len(self._index) else pd.Index(self._ids)

    @cached_property
    def holds_integers(self) -> bool:
        """Whether the ids are integers (else strings)."""
        return bool(pd.api.types.is_integer_dtype(self._index))

    def encode(self, ids: Iterable[ExternalId]) -> NDArray[np.int64]:
        """Indices [n] of ids; 0 for an id that is not in the vocabulary."""
        ids = list(ids)
        if len(ids) <= _FEW:
            return np.array([self._index_of(one) for one in ids], dtype=np.int64)
        indices = self._index.get_indexer(pd.Index(ids)).astype(np.int64) + 1
        if self._later:
            for row in np.flatnonzero(indices == PAD_IDX).tolist():
                indices[row] = self._later_index_of(ids[row])
        return indices

    def _index_of(self, external_id: ExternalId) -> int:
        try:
            position = self._index.get_loc(external_id)
        except KeyError:
            return self._later_index_of(external_id)
        assert isinstance(position, int)  # since ids are unique
        return position + 1

    def _later_index_of(self, external_id: ExternalId) -> int:
        position = self._later.get(external_id, len(self))
        return position + 1 if position < len(self) else PAD_IDX

    def decode(self, indices: NDArray[np.integer]) -> list[ExternalId]:
        """External ids of indices [n].

        Raises:
            ValueError: when an index is padding or out of range.
        """
        indices = np.asarray(indices)
        if indices.size and (indices.min() <= PAD_IDX or indices.max() > len(self)):
            raise ValueError(
                f"indices must lie in 1..{len(self)}; found {indices.min()}..{indices.max()}"
            )
        decoded: list[ExternalId] = self._ids[indices - 1].tolist()
        return decoded

    def content_hash(self) -> str:
        """SHA-256 over the ids in order; equal if and only if the id <-> index mapping is."""
        digest = hashlib.sha256()
        digest.update(b"int" if self.holds_integers else b"str")
        for external_id in self._ids.tolist():
            encoded = str(external_id).encode()
            digest.update(len(encoded).to_bytes(4, "little"))
            digest.update(encoded)
        return digest.hexdigest()
