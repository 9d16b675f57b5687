"""Stage 2 as it is served: signals of the candidates, then the cross-encoder."""

import torch
from torch import Tensor

from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.retriever import Candidates
from recsys.schema import HistoryBatch
from recsys.signals import SignalExtractor


class Reranker:
    """A trained cross-encoder with the signals it was trained on.

    Args:
        model: in evaluation mode. max_history: the latest events that the model attends to.
    """

    def __init__(self, model: CrossEncoder, extractor: SignalExtractor, max_history: int) -> None:
        self.model = model
        self.extractor = extractor
        self.max_history = max_history

    @torch.inference_mode()
    def scores(self, history: HistoryBatch, candidates: Candidates) -> Tensor:
        """Scores float32 [B, K] on the CPU, -inf where there is no candidate."""
        item_idx = candidates.item_idx
        signals = self.extractor.signals(history, item_idx, candidates.tower_scores)
        batch = self.extractor.ranking_batch(history, item_idx, signals, self.max_history)
        device = self.model.text.device
        scores: Tensor = self.model(RankingBatch(*(part.to(device) for part in batch)))
        return scores.float().cpu()
