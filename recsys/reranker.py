"""Stage 2 as it is served: signals of the candidates, then the cross-encoder."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoded_history import EncodedHistory, HistoryEncoder, ListFeatures
from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.signals import SignalExtractor


class Reranker(Protocol):
    """Scores lists of candidates, from features that may have been computed before.

    model: the same in PyTorch.
    """

    model: CrossEncoder

    def features(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> list[ListFeatures]:
        """Of each history with its candidates int64 [B, K], in stage-1 order, 0 = none and last.

        They do not depend on what shares the batch.
        """

    def scores(
        self, histories: Sequence[EncodedHistory], features: Sequence[ListFeatures]
    ) -> NDArray[np.float32]:
        """Scores [B, K] of the candidates, K being those of the longest list.

        -inf where there is no candidate.
        """

    def with_text(self, text: Tensor, encoder: HistoryEncoder) -> "Reranker":
        """For more items: float32 [M + 1, T], the first the same. This object stays as it is.

        Args:
            encoder: of the histories that are to come then.
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

    def features(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> list[ListFeatures]:
        """See ``Reranker``: the signals."""
        # Row by row: a list must not depend on the padding of its neighbours.
        lists = [row[row > 0] for row in item_idx]
        return [
            ListFeatures(items, [self.encoder.signals(history, items).numpy()])
            for history, items in zip(histories, lists, strict=True)
        ]

    @torch.inference_mode()
    def scores(
        self, histories: Sequence[EncodedHistory], features: Sequence[ListFeatures]
    ) -> NDArray[np.float32]:
        """See ``Reranker``."""
        candidates = _stacked([torch.from_numpy(one.item_idx) for one in features])
        signals = _stacked([torch.from_numpy(one.arrays[0][0]) for one in features])
        recent = torch.from_numpy(np.stack([one.recent for one in histories]))
        age = torch.from_numpy(np.stack([one.recent_age for one in histories]))
        batch = RankingBatch(
            candidates, signals, recent, recent > 0, age, self.extractor.pairs(candidates, recent)
        )
        device = self.model.text.device
        scores: Tensor = self.model(RankingBatch(*(part.to(device) for part in batch)))
        found: NDArray[np.float32] = scores.float().cpu().numpy()
        return found

    def with_text(self, text: Tensor, encoder: HistoryEncoder) -> "BatchReranker":
        """See ``Reranker``."""
        assert encoder.extractor is not None
        return BatchReranker(self.model.with_text(text), encoder.extractor, encoder)


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """[B, K, ...], padded with 0."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
