"""Stage 1 as it is served: encode the history, search the index, split the scores by tower."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.histories import latest_events
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
            self.embeddings = model.all_candidates()

    @torch.inference_mode()
    def retrieve(
        self, history: HistoryBatch, k: int, exclude: NDArray[np.int64] | None = None
    ) -> Candidates:
        """The ``k`` best candidates; items of the history are never among them.

        Args:
            exclude: int64 [B, E], further items to leave out, padded with 0.
        """
        device = self.embeddings.device
        recent = latest_events(history, self.max_history)
        num_rows = len(recent.item_idx)
        missing = max(self.min_rows - num_rows, 0)
        parts = (recent.item_idx, recent.mask, recent.context)
        query = self.model.query(*(_pad_rows(part, missing).to(device) for part in parts))
        seen = history.item_idx.numpy()
        excluded = seen if exclude is None else np.concatenate([seen, exclude], axis=1)
        scores, found = self.index.search(query[:num_rows].float().cpu().numpy(), k, excluded)

        item_idx = torch.from_numpy(found)
        dims = self.model.embedding_dims
        # A product of one row, too, is rounded otherwise than one of several.
        padded = _pad_rows(item_idx, min(missing, 1))
        by_tower = zip(
            torch.split(query[: len(padded)], dims, dim=1),
            torch.split(self.embeddings[padded.to(device)], dims, dim=2),
            strict=True,
        )
        tower_scores = torch.stack([(c @ q[:, :, None])[:, :, 0] for q, c in by_tower], dim=2)
        tower_scores = tower_scores[:num_rows].float().cpu() * (item_idx > 0)[:, :, None]
        return Candidates(item_idx, torch.from_numpy(scores), tower_scores)


def _pad_rows(batch: Tensor, number: int) -> Tensor:
    """A batch [B, n] with ``number`` further rows of zeros."""
    return torch.nn.functional.pad(batch, (0, 0, 0, number))
