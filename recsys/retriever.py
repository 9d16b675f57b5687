"""Stage 1 as it is served: encode the history, search the index, split the scores by tower."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import torch
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
    """

    def __init__(
        self,
        model: TwoTowerEnsemble,
        index: CandidateIndex,
        max_history: int,
        min_rows: int = 1,
    ) -> None:
        self.model = model
        self.min_rows = min_rows
        self.index = index
        self.max_history = max_history
        with torch.inference_mode():
            vectors = torch.split(model.item_vectors(), model.vector_dims, dim=1)
        # By tower: what a history's items, and what candidates, are to it.
        self._query_sides = [GrowingRows(part.contiguous()) for part in vectors[::2]]
        self._candidate_side = GrowingRows(torch.cat(vectors[1::2], dim=1))

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
        query_sides, candidate_side = self._sides(vectors)
        other = copy(self)
        other._query_sides = [
            old.with_rows(item_idx, new)
            for old, new in zip(self._query_sides, query_sides, strict=True)
        ]
        other._candidate_side = self._candidate_side.with_rows(item_idx, candidate_side)
        num_built = len(self.index) - self.index.num_recent
        recent = other._candidate_side.rows[num_built + 1 :].float().cpu().numpy()
        other.index = self.index.with_recent(recent)
        return other

    def _sides(self, vectors: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        parts = torch.split(vectors.to(self.embeddings.device), self.model.vector_dims, dim=1)
        return parts[::2], torch.cat(parts[1::2], dim=1)

    @torch.inference_mode()
    def encode(self, history: HistoryBatch, wanted: Tensor | None = None) -> Tensor:
        """Query embeddings float [B, D], on the model's device.

        Args:
            wanted: float [B, D'], as of ``TwoTowerEnsemble.item_vectors``: what counts as one more,
                the latest event of each history.
        """
        device = self.embeddings.device
        recent = latest_events(history, self.max_history)
        missing = max(self.min_rows - len(recent.item_idx), 0)
        parts = (recent.item_idx, recent.mask, recent.context)
        items, mask, context = (_pad_rows(part, missing).to(device) for part in parts)
        item_idx, positions = torch.unique(items, return_inverse=True)
        tables = [side.rows[item_idx] for side in self._query_sides]
        if wanted is not None:
            query_sides, _ = self._sides(_pad_rows(wanted, missing))
            own = len(item_idx) + torch.arange(len(items), device=device)[:, None]
            positions = torch.cat([positions, own], dim=1)
            mask = torch.cat([mask, torch.ones_like(own, dtype=torch.bool)], dim=1)
            tables = [torch.cat(both) for both in zip(tables, query_sides, strict=True)]
        query = self.model.query_from(tables, positions, mask, context)
        return query[: len(recent.item_idx)]

    def retrieve(self, history: HistoryBatch, k: int) -> Candidates:
        """The ``k`` best candidates; items of the history are never among them."""
        query = self.encode(history)
        exclude = [self.index.exclusion(items) for items in history.item_idx.numpy()]
        scores, found = self.index.search(query.float().cpu().numpy(), k, exclude)
        item_idx = torch.from_numpy(found)
        tower_scores = self.tower_scores(query, item_idx)
        return Candidates(item_idx, torch.from_numpy(scores), tower_scores)

    @torch.inference_mode()
    def tower_scores(self, query: Tensor, item_idx: Tensor) -> Tensor:
        """Each tower's part of the scores of items int64 [B, K], 0 = none: float32 [B, K, H].

        Args:
            query: float [B, D].
        """
        num_rows, device = len(item_idx), self.embeddings.device
        # A product of one row is rounded otherwise than one of several.
        missing = 1 if num_rows == 1 and self.min_rows > 1 else 0
        queries, padded = _pad_rows(query.to(device), missing), _pad_rows(item_idx, missing)
        dims = self.model.embedding_dims
        by_tower = zip(
            torch.split(queries, dims, dim=1),
            torch.split(self.embeddings[padded.to(device)], dims, dim=2),
            strict=True,
        )
        scores = torch.stack([(c @ q[:, :, None])[:, :, 0] for q, c in by_tower], dim=2)
        return scores[:num_rows].float().cpu() * (item_idx > 0)[:, :, None]


def _pad_rows(batch: Tensor, number: int) -> Tensor:
    """A batch [B, n] with ``number`` further rows of zeros."""
    return torch.nn.functional.pad(batch, (0, 0, 0, number))
