"""Stage 2 as it is served: signals of the candidates, then the cross-encoder."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.history_cache import HistoryCache
from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.retriever import Candidates
from recsys.schema import HistoryBatch
from recsys.signals import SignalExtractor


class Reranker:
    """A trained cross-encoder with the signals it was trained on.

    Args:
        model: in evaluation mode. max_history: the latest events that the model attends to.
        cache_bytes: for what stored histories tell of all items; 0 keeps nothing.
    """

    def __init__(
        self,
        model: CrossEncoder,
        extractor: SignalExtractor,
        max_history: int,
        cache_bytes: int = 0,
    ) -> None:
        self.model = model
        self.cache = HistoryCache(extractor, cache_bytes) if cache_bytes else None
        self.extractor = extractor
        self.max_history = max_history

    @torch.inference_mode()
    def scores(
        self, user_idx: NDArray[np.int64], history: HistoryBatch, candidates: Candidates
    ) -> Tensor:
        """Scores float32 [B, K] on the CPU, -inf where there is no candidate.

        Args:
            user_idx: int64 [B], whose stored history a row is; 0 where it is another.
        """
        item_idx = candidates.item_idx
        own = None
        if self.cache is not None:
            own = self.cache.own_signals(user_idx, history, item_idx)
        signals = self.extractor.signals(history, item_idx, candidates.tower_scores, own)
        batch = self.extractor.ranking_batch(history, item_idx, signals, self.max_history)
        batch = _widened(batch, self.max_history)
        device = self.model.text.device
        scores: Tensor = self.model(RankingBatch(*(part.to(device) for part in batch)))
        return scores.float().cpu()


def _widened(batch: RankingBatch, num_events: int) -> RankingBatch:
    """The same with padding up to ``num_events`` events.

    Sums over fewer places are rounded otherwise: a list would depend on its neighbours' histories.
    """
    missing = num_events - batch.history.shape[1]
    return batch._replace(
        history=F.pad(batch.history, (0, missing)),
        history_mask=F.pad(batch.history_mask, (0, missing)),
        history_age=F.pad(batch.history_age, (0, missing)),
        pairs=F.pad(batch.pairs, (0, 0, 0, missing)),
    )
