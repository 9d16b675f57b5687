"""Stage 2 as it is served: signals of the candidates, then the cross-encoder."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoded_history import EncodedHistory, HistoryEncoder
from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.signals import SignalExtractor


class Reranker(Protocol):
    """Scores lists of candidates."""

    def scores(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores [B, K] of candidates int64 [B, K], in stage-1 order, 0 = none and last.

        -inf where there is no candidate.
        """


class BatchReranker:
    """Runs the cross-encoder on a batch of lists: for a GPU, and where there is no exported graph.

    Args:
        model: in evaluation mode. encoder: of the histories that are to come.
    """

    def __init__(
        self, model: CrossEncoder, extractor: SignalExtractor, encoder: HistoryEncoder
    ) -> None:
        self.model = model
        self.extractor = extractor
        self.encoder = encoder

    @torch.inference_mode()
    def scores(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See ``Reranker``."""
        candidates = torch.from_numpy(item_idx)
        # Row by row: a list must not depend on the padding of its neighbours.
        rows = [self.encoder.known(one, item_idx[row]) for row, one in enumerate(histories)]
        known, num_towers = torch.from_numpy(np.stack(rows)), self.encoder.num_towers
        tower_scores, own = known[:, :, :num_towers], known[:, :, num_towers:]
        signals = self.extractor.list_signals(candidates, tower_scores, own)
        recent = torch.from_numpy(np.stack([one.recent for one in histories]))
        age = torch.from_numpy(np.stack([one.recent_age for one in histories]))
        batch = RankingBatch(
            candidates, signals, recent, recent > 0, age, self.extractor.pairs(candidates, recent)
        )
        device = self.model.text.device
        scores: Tensor = self.model(RankingBatch(*(part.to(device) for part in batch)))
        found: NDArray[np.float32] = scores.float().cpu().numpy()
        return found
