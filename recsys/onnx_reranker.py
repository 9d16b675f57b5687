"""Stage 2 on a CPU: one list at a time through ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from recsys.encoded_history import EncodedHistory
from recsys.list_scorer import ListInputs
from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_lookup import PairLookup
from recsys.reranker import own_signals
from recsys.signals import SignalExtractor

_SILENT = 3
# Slower than the two nodes that it replaces.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxReranker:
    """Runs the exported form of a cross-encoder, safe to call from several threads at a time.

    Each list uses one core. That makes a list independent of its neighbours, and a batch of lists
    is no faster; see ``ListScorer``.

    Args:
        graph: from ``export_list_scorer`` of ``model``. embeddings: float32 [N + 1, D], of the
            candidates.
    """

    def __init__(
        self,
        graph: bytes,
        model: CrossEncoder,
        extractor: SignalExtractor,
        embeddings: NDArray[np.float32],
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        self._session = onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOW_FUSIONS,
        )
        self.extractor = extractor
        self.embeddings = np.ascontiguousarray(embeddings)
        self._pairs = PairLookup(model, extractor.pairs)

    @torch.inference_mode()
    def scores(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See ``Reranker``."""
        scores = np.full(item_idx.shape, -np.inf, np.float32)
        lengths = (item_idx > 0).sum(axis=1).tolist()
        for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
            if length:
                scores[row, :length] = self._list_scores(history, item_idx[row, :length])
        return scores

    def _list_scores(
        self, history: EncodedHistory, candidates: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores [K] of candidates int64 [K], all real."""
        inputs = (
            candidates,
            self._pairs.attention_biases(candidates, history.recent),
            history.recent_age,
            own_signals(self.extractor, history, torch.from_numpy(candidates)).numpy(),
            self._pairs.mean_feedback(candidates),
            history.query_by_tower,
            self.embeddings,
        )
        feed = dict(zip(ListInputs._fields, inputs, strict=True))
        (scores,) = self._session.run(None, feed)
        found: NDArray[np.float32] = scores
        return found
