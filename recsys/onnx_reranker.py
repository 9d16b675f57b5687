"""Stage 2 on a CPU: a few lists at a time through ONNX Runtime."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoded_history import EncodedHistory, HistoryEncoder, ListFeatures
from recsys.errors import InputError
from recsys.list_scorer import ListInputs, attention_biases, check_graph
from recsys.models.cross_encoder import CrossEncoder
from recsys.signals import SignalExtractor

_FATAL = 4
_LISTS_AT_A_TIME = 16
"""One by one, calls cost more; more at a time do not fit into a core's second-level cache."""
_FEWEST_CANDIDATES = 16
"""Shorter lists run alone: matrix products take other ways, and round otherwise, for few rows."""
# Slower than the two nodes that it replaces.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxReranker:
    """Runs the exported form of a cross-encoder, safe to call from several threads at a time.

    A batch uses one core. A list's scores are the same to the bit whatever shares its batch, since
    lists that run together have the same length, and no padding.

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
        self.model = model
        self.extractor = extractor
        self.encoder = encoder

    def features(
        self, histories: Sequence[EncodedHistory], item_idx: NDArray[np.int64]
    ) -> list[ListFeatures]:
        """See ``Reranker``: signals and attention biases."""
        # Row by row: a list must not depend on the padding of its neighbours.
        lists = [row[row > 0] for row in item_idx]
        return [self._features(*one) for one in zip(histories, lists, strict=True)]

    @torch.inference_mode()
    def _features(self, history: EncodedHistory, items: NDArray[np.int64]) -> ListFeatures:
        signals = self.encoder.signals(history, items)
        recent = torch.from_numpy(history.recent)[None]
        pairs = self.extractor.pairs(torch.from_numpy(items)[None], recent)
        biases = attention_biases(self.model, recent > 0, pairs)
        return ListFeatures(items, (signals.numpy(), biases.numpy()))

    def scores(
        self, histories: Sequence[EncodedHistory], features: Sequence[ListFeatures]
    ) -> NDArray[np.float32]:
        """See ``Reranker``."""
        lengths = np.array([len(one.item_idx) for one in features])
        scores = np.full((len(features), lengths.max()), -np.inf, np.float32)
        for length, rows in _alike(lengths):
            signals, biases = zip(*(features[row].arrays for row in rows), strict=True)
            keys, values = zip(*(histories[row].memory for row in rows), strict=True)
            inputs = ListInputs[NDArray[Any]](
                np.concatenate(signals),
                np.concatenate(keys, axis=1),
                np.concatenate(values, axis=1),
                np.concatenate(biases, axis=1),
            )
            (found,) = self._session.run(None, inputs._asdict())
            scores[rows, :length] = found.reshape(len(rows), length)
        return scores

    def with_text(self, text: Tensor, encoder: HistoryEncoder) -> "OnnxReranker":
        """See ``Reranker``; the graph itself reads no text."""
        assert encoder.extractor is not None
        other = copy(self)
        other.model = self.model.with_text(text)
        other.encoder, other.extractor = encoder, encoder.extractor
        return other


def _alike(lengths: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Rows that run together, and their length; rows without candidates are left out."""
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == length)
        size = _LISTS_AT_A_TIME if length >= _FEWEST_CANDIDATES else 1
        for start in range(0, len(rows), size):
            yield length, rows[start : start + size]


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    expected, remedy = "a graph of stage 2 that can be run", "run: python train.py stage=all"
    try:
        check_graph(graph)
    except ValueError as error:
        raise InputError(expected, f"one that holds {error}", remedy) from error
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
