"""Stage 2 for one list at a time, in the form that is exported to ONNX.

From what is looked up per item and per user to scores, in one graph: ONNX Runtime fuses it, runs it
within a core's own cache and without Python. One list at a time is faster on a CPU than a batch,
whose intermediate results no longer fit there, and a list cannot depend on its neighbours.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_signals import PAIR_NAMES
from recsys.signals import NUM_OWN_SIGNALS, list_signals


class ListInputs(NamedTuple):
    """What the graph reads of one list, in this order.

    candidates: int64 [K], all real, in stage-1 order. biases: float32 [K, 1 + L, layers * heads],
    what the attention adds for the null token and each of the latest events, -inf where there is
    none. history_age: float32 [L]; see ``RankingBatch``. own: float32 [K, O]; see
    ``SignalExtractor.own_signals``. feedback: float32 [K, P], mean pair signals with the best other
    candidates. query: float32 [D, H], the query embedding, each tower's part in a column of its
    own. embeddings: float32 [N + 1, D], of the candidates.
    """

    candidates: Tensor
    biases: Tensor
    history_age: Tensor
    own: Tensor
    feedback: Tensor
    query: Tensor
    embeddings: Tensor


class ListScorer(nn.Module):
    """A trained cross-encoder together with the signals that depend on the whole list.

    Args:
        model: one without text tokens.
    """

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(
        self,
        candidates: Tensor,
        biases: Tensor,
        history_age: Tensor,
        own: Tensor,
        feedback: Tensor,
        query: Tensor,
        embeddings: Tensor,
    ) -> Tensor:
        """``ListInputs`` -> scores float32 [K]."""
        model = self.model
        # An embedding look-up, since an index in brackets becomes ONNX's much slower GatherND.
        tower_scores = F.embedding(candidates, embeddings) @ query
        signals = list_signals(tower_scores, own, feedback)
        x = model.signals(signals)
        memory = model.history_norm(model.history_age(history_age[:, None]))
        by_layer = biases.permute(2, 0, 1).float().chunk(len(model.attention))
        for (attention, feed_forward), bias in zip(model.layers, by_layer, strict=True):
            x = feed_forward(attention.attend(x, memory, bias))
        return model.scores(x, signals)


def can_export(model: CrossEncoder) -> bool:
    """Whether there is such a graph for the model: text tokens are not part of it."""
    return model.text_projections is None


def export_list_scorer(model: CrossEncoder, num_towers: int, max_history: int) -> bytes:
    """The graph as ONNX, with its weights."""
    # Sizes that differ from each other, so that none is taken for another.
    num_candidates, num_items, embedding_dim = 30, 10, 5 * num_towers
    num_biases = sum(attention.num_heads for attention, _ in model.layers)
    example = ListInputs(
        candidates=torch.ones(num_candidates, dtype=torch.int64),
        biases=torch.zeros(num_candidates, 1 + max_history, num_biases, dtype=torch.float16),
        history_age=torch.zeros(max_history),
        own=torch.zeros(num_candidates, NUM_OWN_SIGNALS),
        feedback=torch.zeros(num_candidates, len(PAIR_NAMES)),
        query=torch.zeros(embedding_dim, num_towers),
        embeddings=torch.zeros(num_items + 1, embedding_dim),
    )
    per_candidate, dim = {0: torch.export.Dim("K")}, torch.export.Dim("D")
    dynamic: dict[str, dict[int, Any] | None] = {
        "candidates": per_candidate,
        "biases": per_candidate,
        "history_age": None,
        "own": per_candidate,
        "feedback": per_candidate,
        "query": {0: dim},
        "embeddings": {0: torch.export.Dim("N"), 1: dim},
    }
    with _quiet():
        program = torch.onnx.export(
            ListScorer(model),
            tuple(example),
            input_names=list(ListInputs._fields),
            output_names=["scores"],
            dynamic_shapes=tuple(dynamic[name] for name in ListInputs._fields),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages it could use and of its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
