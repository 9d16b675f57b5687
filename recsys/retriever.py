"""Stage 1 as it is served: encode the history, search the index, split the scores by tower."""

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import latest_events
from recsys.growing import GrowingRows
from recsys.index import CandidateIndex
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.schema import HistoryBatch


class Candidates(NamedTuple):
    """item_idx: int64 [B, K], best first, 0 = none. scores: float32 [B, K], -inf where none.
    tower_scores: float32 [B, K, H], the score's parts by tower, 0 where none.
    """

    item_idx: Tensor
    scores: Tensor
    tower_scores: Tensor


class Retriever:
    """A trained two-tower ensemble with the index over its candidate embeddings.

    Args:
        model: in evaluation mode. index: built over ``model.all_candidates()``.
        max_history: the latest events that a query is made of, as in training.
        min_rows: histories that are encoded at once, made up of empty ones where there are fewer.
            Matrix products take other ways, and round otherwise, for a few rows than for many; with
            16 a query does not depend on how many others are asked for.
        query: called in place of the model's ``query_from_sums``, with the same arguments. It may
            have been made of the model as it was before.
    """

    def __init__(
        self,
        model: TwoTowerEnsemble,
        index: CandidateIndex,
        max_history: int,
        min_rows: int = 1,
        query: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self._query = model.query_from_sums if query is None else query
        self.min_rows = min_rows
        self.index = index
        self.max_history = max_history
        with torch.inference_mode():
            vectors = torch.split(model.item_vectors(), model.vector_dims, dim=1)
        # What a history's items, and what candidates, are to the towers, side by side.
        self._query_side = GrowingRows(torch.cat(vectors[::2], dim=1))
        self._candidate_side = GrowingRows(torch.cat(vectors[1::2], dim=1))
        dims = model.embedding_dims
        self._widest = dims.index(max(dims))
        # By themselves, too: rows of a few columns of a wide table are read slowly.
        self._narrow_sides = [
            None if number == self._widest else GrowingRows(side.contiguous())
            for number, side in enumerate(vectors[1::2])
        ]

    def share_vectors(self) -> None:
        """Let the model read the items' vectors where this object has them, and drop their content.

        For a trained model that is no longer written: its tables are parts of wider ones then.
        """
        dims = self.model.vector_dims
        queries = torch.split(self._query_side.rows, dims[::2], dim=1)
        candidates = torch.split(self._candidate_side.rows, dims[1::2], dim=1)
        self.model.share_items(
            [part for pair in zip(queries, candidates, strict=True) for part in pair]
        )

    @property
    def embeddings(self) -> Tensor:
        """Candidate embeddings float [N + 1, D], on the model's device; row 0 is padding."""
        return self._candidate_side.rows

    def with_vectors(self, item_idx: Tensor, vectors: Tensor) -> "Retriever":
        """With vectors float [m, D'], as of ``TwoTowerEnsemble.item_vectors``, of other items.

        This object stays as it is.

        Args:
            item_idx: int64 [m], of items that came after the index was built: those that are not
                there yet, in order and without gaps, and those whose vectors change.
        """
        query_side, candidate_side = self._sides(vectors)
        other = copy(self)
        other._query_side = self._query_side.with_rows(item_idx, query_side)
        other._candidate_side = self._candidate_side.with_rows(item_idx, candidate_side)
        parts = torch.split(candidate_side, self.model.embedding_dims, dim=1)
        other._narrow_sides = [
            None if rows is None else rows.with_rows(item_idx, part)
            for rows, part in zip(self._narrow_sides, parts, strict=True)
        ]
        num_built = len(self.index) - self.index.num_recent
        recent = other._candidate_side.rows[num_built + 1 :].float().cpu().numpy()
        other.index = self.index.with_recent(recent)
        return other

    def _sides(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.split(vectors.to(self.embeddings.device), self.model.vector_dims, dim=1)
        return torch.cat(parts[::2], dim=1), torch.cat(parts[1::2], dim=1)

    @torch.inference_mode()
    def encode(self, history: HistoryBatch, wanted: Tensor | None = None) -> Tensor:
        """Query embeddings float [B, D], on the model's device.

        Args:
            wanted: float [B, D'], as of ``TwoTowerEnsemble.item_vectors``: what counts as one more,
                the latest event of each history.
        """
        device, dtype = self.embeddings.device, self._query_side.rows.dtype
        recent = latest_events(history, self.max_history)
        # Arrays, since on a few numbers their functions take a third of the time of PyTorch's.
        mask = recent.mask.numpy()
        number, num_rows = mask.sum(axis=1), max(len(mask), self.min_rows)
        # Where histories are of many lengths, most places are padding.
        items = recent.item_idx.numpy()[mask]
        starts = np.full(num_rows, len(items))  # at the end there are none
        starts[: len(mask)] = number.cumsum() - number
        lengths = torch.zeros(num_rows)
        by_place, weights = self.model.event_counts(recent.mask, recent.weights), None
        if by_place is None:
            lengths[: len(mask)] = torch.from_numpy(number)
        else:
            weights = by_place[recent.mask].to(device, dtype)
            # Not by ``sum``, which of wider batches is rounded otherwise.
            lengths[: len(mask)] = by_place.cumsum(dim=1)[:, -1]
        sums = F.embedding_bag(
            torch.from_numpy(items).to(device),
            self._query_side.rows,
            torch.from_numpy(starts).to(device),
            mode="sum",
            per_sample_weights=weights,
        )
        if wanted is not None:
            half_life = self.model.counting.half_life
            left = 1.0 if half_life is None else 2.0 ** (-1.0 / half_life)
            own = slice(0, len(mask))
            sums[own] = left * sums[own] + self._sides(wanted)[0]
            lengths[own] = left * lengths[own] + 1
        context = torch.zeros(num_rows, recent.context.shape[1])
        context[: len(mask)] = recent.context
        return self._query(sums, lengths.to(device), context.to(device))[: len(mask)]

    def retrieve(self, history: HistoryBatch, k: int) -> Candidates:
        """The ``k`` best candidates; items of the history are never among them."""
        query = self.encode(history)
        exclude = [self.index.exclusion(items) for items in history.item_idx.numpy()]
        scores, found = self.index.search(query.float().cpu().numpy(), k, exclude)
        item_idx = torch.from_numpy(found)
        total = torch.from_numpy(scores)
        return Candidates(item_idx, total, self.tower_scores(query, item_idx, total))

    @torch.inference_mode()
    def tower_scores(self, query: Tensor, item_idx: Tensor, total: Tensor | None = None) -> Tensor:
        """Each tower's part of the scores of items int64 [B, K], 0 = none: float32 [B, K, H].

        Args:
            query: float [B, D]. total: float32 [B, K], the scores, where they are known: what the
                widest tower adds is then what the others leave.
        """
        dims, is_empty = self.model.embedding_dims, item_idx.numpy() == 0
        # Those of compressed vectors are approximate.
        left = None if total is None or not self.index.exact_scores else total.numpy()
        # Arrays, as in ``encode``.
        scores = np.zeros((*item_idx.shape, len(dims)), np.float32)
        end = 0
        for number, (dim, narrow) in enumerate(zip(dims, self._narrow_sides, strict=True)):
            own = slice(end, end + dim)
            end += dim
            if narrow is not None or left is None:
                rows = self.embeddings[:, own] if narrow is None else narrow.rows
                scores[:, :, number] = _products(query[:, own], rows, item_idx)
                left = None if left is None else left - scores[:, :, number]
        if left is not None:
            scores[:, :, self._widest] = left
        # Set, not multiplied by 0: the total of an empty slot is -inf.
        if is_empty.any():
            scores[is_empty] = 0.0
        return torch.from_numpy(scores)


def _products(queries: Tensor, table: Tensor, items: Tensor) -> NDArray[np.float32]:
    """Inner products of each query with the rows of a table that ``items`` names: float32 [B, K].

    Each pair alone: a product of matrices is rounded otherwise where there is one row.

    Args:
        queries: float [B, D], of the table's type. table: float [N, D]. items: int64 [B, K], on the
            CPU.

    Raises:
        IndexError: when there is no such row.
    """
    device = table.device
    if device.type != "cpu" or not table.is_contiguous():
        rows = F.embedding(items.to(device), table)
        found: NDArray[np.float32] = (
            (rows * queries.to(device)[:, None]).sum(dim=2).float().cpu().numpy()
        )
        return found
    positions, found = items.numpy(), np.empty(items.shape, np.float32)
    # FAISS reads whatever lies there.
    if positions.size and not 0 <= positions.min() <= positions.max() < len(table):
        raise IndexError(f"expected rows of {len(table)}; found one of {positions.max()}")
    # A list, which keeps what has been copied until FAISS has read it.
    arrays = [found, *(np.ascontiguousarray(part.numpy()) for part in (queries, table, items))]
    of_rows: Any = faiss.fvec_inner_products_by_idx  # type: ignore[attr-defined]
    of_rows(*map(faiss.swig_ptr, arrays), table.shape[1], *items.shape)
    return found
