"""Stage 2 on a CPU: one list at a time through ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recsys.encoded_history import EncodedHistory, HistoryEncoder
from recsys.errors import InputError
from recsys.list_scorer import ListInputs
from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_lookup import PairLookup
from recsys.signals import SignalExtractor

_FATAL = 4
# Slower than the two nodes that it replaces.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxReranker:
    """Runs the exported form of a cross-encoder, safe to call from several threads at a time.

    Each list uses one core. That makes a list independent of its neighbours, and a batch of lists
    is no faster; see ``ListScorer``.

    Args:
        graph: from ``export_list_scorer`` of ``model``. encoder: of the histories that are to come.

    Raises:
        InputError: when the graph is none that this code and ONNX Runtime can run.
    """

    def __init__(
        self,
        graph: bytes,
        model: CrossEncoder,
        extractor: SignalExtractor,
        encoder: HistoryEncoder,
    ) -> None:
        self._session = _session(graph)
        self.encoder = encoder
        self._pairs = PairLookup(model, extractor.pairs, extractor.log_counts.numpy())

    def scores(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See ``Reranker``."""
        scores = np.full(item_idx.shape, -np.inf, np.float32)
        # For all lists at once: each call of numpy costs, and gives up the interpreter's lock.
        lengths = (item_idx > 0).sum(axis=1).tolist()
        recent = np.stack([history.recent for history in histories])
        biases = self._pairs.attention_biases(item_idx, recent)
        feedback = self._pairs.mean_feedback(item_idx)
        for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
            if not length:
                continue
            candidates = item_idx[row, :length]
            known, rows = history.known, candidates
            if known is None:
                known, rows = self.encoder.known(history, candidates), np.arange(length)
            inputs = (
                biases[row, :length],
                history.memory,
                known,
                rows,
                feedback[row, :length],
            )
            feed = dict(zip(ListInputs._fields, inputs, strict=True))
            (scores[row, :length],) = self._session.run(None, feed)
        return scores


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    expected, remedy = "a graph of stage 2 that can be run", "run: python train.py stage=all"
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
        )
    except Exception as error:  # each kind of failure has a class of its own, none of them public
        reason = str(error).splitlines()[0]
        raise InputError(expected, f"one that ONNX Runtime refuses ({reason})", remedy) from error
    names = [one.name for one in session.get_inputs()]
    if names != list(ListInputs._fields):
        raise InputError(f"{expected}, with inputs {ListInputs._fields}", f"{names}", remedy)
    return session
