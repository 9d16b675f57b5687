"""Stage 1 as it is served: encode the history, search the index, split the scores by tower."""

from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
        device = self.embeddings.device
        recent = latest_events(history, self.max_history)
        length = recent.mask.sum(dim=1)
        # Where histories are of many lengths, most places are padding.
        items, starts = recent.item_idx[recent.mask], length.cumsum(dim=0) - length
        by_place, weights = self.model.event_counts(recent.mask, recent.weights), None
        if by_place is not None:
            weights = by_place[recent.mask].to(device, self._query_side.rows.dtype)
            # Not by ``sum``, which of wider batches is rounded otherwise.
            length = by_place.cumsum(dim=1)[:, -1]
        sums = F.embedding_bag(
            items.to(device),
            self._query_side.rows,
            starts.to(device),
            mode="sum",
            per_sample_weights=weights,
        )
        if wanted is not None:
            half_life = self.model.counting.half_life
            left = 1.0 if half_life is None else 2.0 ** (-1.0 / half_life)
            sums, length = left * sums + self._sides(wanted)[0], left * length + 1
        missing = max(self.min_rows - len(length), 0)
        query = self.model.query_from_sums(
            _pad_rows(sums, missing),
            F.pad(length, (0, missing)).to(device),
            _pad_rows(recent.context, missing).to(device),
        )
        return query[: len(length)]

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
        device, dims = self.embeddings.device, self.model.embedding_dims
        queries, items = query.to(device), item_idx.to(device)
        # Those of compressed vectors are approximate.
        is_known = total is not None and self.index.exact_scores
        parts: list[Tensor] = []
        wholes = torch.split(self.embeddings, dims, dim=1)
        sides = zip(torch.split(queries, dims, dim=1), wholes, self._narrow_sides, strict=True)
        for part, whole, narrow in sides:
            if narrow is None and is_known:
                parts.append(torch.zeros(items.shape, device=device))
            else:
                rows = whole if narrow is None else narrow.rows
                # Not by a product of matrices, which of one row is rounded otherwise.
                parts.append((F.embedding(items, rows) * part[:, None]).sum(dim=2))
        scores = torch.stack(parts, dim=2).float().cpu()
        if is_known and total is not None:
            scores[:, :, self._widest] = total - scores.sum(dim=2)
        # Not by a product: an empty slot's total is no number.
        return scores.masked_fill((item_idx == 0)[:, :, None], 0.0)


def _pad_rows(batch: Tensor, number: int) -> Tensor:
    """A batch [B, n] with ``number`` further rows of zeros."""
    return F.pad(batch, (0, 0, 0, number))
