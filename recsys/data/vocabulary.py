"""External ids <-> contiguous indices. The only place where the two are exchanged."""

import hashlib
from collections.abc import Iterable, Sequence

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

    @classmethod
    def of(cls, *columns: Iterable[ExternalId]) -> "Vocabulary":
        """The sorted distinct ids of the given columns."""
        return cls(pd.unique(pd.concat([pd.Series(list(c)) for c in columns])).tolist()).sorted()

    def sorted(self) -> "Vocabulary":
        """The same ids in ascending order."""
        return Vocabulary(self._index.sort_values().tolist())

    def __len__(self) -> int:
        """Number of ids, the padding index not counted."""
        return len(self._index)

    def __contains__(self, external_id: object) -> bool:
        return external_id in self._index

    @property
    def ids(self) -> pd.Index:
        """The ids in index order: ``ids[p]`` has index ``p + 1``."""
        return self._index

    @property
    def holds_integers(self) -> bool:
        """Whether the ids are integers (else strings)."""
        return bool(pd.api.types.is_integer_dtype(self._index))

    def encode(self, ids: Iterable[ExternalId]) -> NDArray[np.int64]:
        """Indices [n] of ids; 0 for an id that is not in the vocabulary."""
        ids = list(ids)
        if len(ids) <= _FEW:
            return np.array([self._index_of(one) for one in ids], dtype=np.int64)
        positions = self._index.get_indexer(pd.Index(ids))
        return positions.astype(np.int64) + 1

    def _index_of(self, external_id: ExternalId) -> int:
        try:
            position = self._index.get_loc(external_id)
        except KeyError:
            return PAD_IDX
        assert isinstance(position, int)  # since ids are unique
        return position + 1

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
        for external_id in self._index.tolist():
            encoded = str(external_id).encode()
            digest.update(len(encoded).to_bytes(4, "little"))
            digest.update(encoded)
        return digest.hexdigest()
