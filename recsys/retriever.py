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
    """

    def __init__(self, model: TwoTowerEnsemble, index: CandidateIndex, max_history: int) -> None:
        self.model = model
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
        query = self.model.query(
            *(part.to(device) for part in (recent.item_idx, recent.mask, recent.context))
        )
        seen = history.item_idx.numpy()
        excluded = seen if exclude is None else np.concatenate([seen, exclude], axis=1)
        scores, found = self.index.search(query.float().cpu().numpy(), k, excluded)

        item_idx = torch.from_numpy(found)
        dims = self.model.embedding_dims
        by_tower = zip(
            torch.split(query, dims, dim=1),
            torch.split(self.embeddings[item_idx.to(device)], dims, dim=2),
            strict=True,
        )
        tower_scores = torch.stack([(c @ q[:, :, None])[:, :, 0] for q, c in by_tower], dim=2)
        tower_scores = tower_scores.float().cpu() * (item_idx > 0)[:, :, None]
        return Candidates(item_idx, torch.from_numpy(scores), tower_scores)
