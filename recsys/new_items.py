"""New items, ranked among themselves for one query."""

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.ranking import order, tie_hash
from recsys.retriever import Retriever


class NewItems:
    """Items and their candidate embeddings, copied out once for many queries.

    Args:
        retriever: has the embeddings. item_idx: int64 [m].
    """

    def __init__(self, retriever: Retriever, item_idx: NDArray[np.int64]) -> None:
        positions = torch.from_numpy(item_idx)
        self.item_idx = item_idx
        self.all = frozenset(item_idx.tolist())
        self._num_rows = len(retriever.embeddings)
        embeddings = retriever.embeddings[positions.to(retriever.embeddings.device)]
        self._vectors: NDArray[np.float32] = embeddings.float().cpu().numpy()
        self._hashes: NDArray[np.int64] = tie_hash(positions).numpy()

    def best(
        self, query: NDArray[np.float32], k: int, excluded: NDArray[np.int64] | None = None
    ) -> list[int]:
        """Up to ``k`` of the items by stage 1's score, best first.

        Args:
            query: float32 [D]. excluded: int64 [E], items that must not be among them.
        """
        scores = self._vectors @ query
        if excluded is not None:
            is_excluded = np.zeros(self._num_rows, bool)
            is_excluded[excluded] = True
            scores[is_excluded[self.item_idx]] = -np.inf
        kept = np.flatnonzero(scores > -np.inf)
        if len(kept) > k:
            kept = kept[np.argpartition(-scores[kept], k)[:k]]
        best = kept[order(scores[kept], self._hashes[kept])]
        items: list[int] = self.item_idx[best].tolist()
        return items
