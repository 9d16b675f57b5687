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

    biases: float16 [K, 1 + L, layers * heads], what the attention of each candidate, all of them
    real and in stage-1 order, adds for the null token and each of the latest events; -inf where
    there is none. memory: float32 [2, layers, heads, 1 + L, d], from ``attention_memory``. known:
    float32 [n, H + O], what the history tells of items: stage 1's scores by tower and
    ``SignalExtractor.own_signals``. rows: int64 [K], the candidates' rows of it. feedback: float32
    [K, P], mean pair signals with the best other candidates.
    """

    biases: Tensor
    memory: Tensor
    known: Tensor
    rows: Tensor
    feedback: Tensor


class ListScorer(nn.Module):
    """A trained cross-encoder together with the signals that depend on the whole list.

    Args:
        model: one without text tokens. num_towers: of stage 1.
    """

    def __init__(self, model: CrossEncoder, num_towers: int) -> None:
        super().__init__()
        self.model = model.eval()
        self.num_towers = num_towers

    def forward(
        self, biases: Tensor, memory: Tensor, known: Tensor, rows: Tensor, feedback: Tensor
    ) -> Tensor:
        """``ListInputs`` -> scores float32 [K]."""
        model = self.model
        # An embedding look-up, since an index in brackets becomes ONNX's much slower GatherND.
        found = F.embedding(rows, known)
        tower_scores, own = found[:, : self.num_towers], found[:, self.num_towers :]
        signals = list_signals(tower_scores, own, feedback)
        x = model.signals(signals)
        by_head = biases.permute(2, 0, 1).float().view(*memory.shape[1:3], *biases.shape[:2])
        for layer, (attention, feed_forward) in enumerate(model.layers):
            key, value = memory[0, layer][None], memory[1, layer][None]
            x = feed_forward(attention.attend(x, key, value, by_head[layer][None]))
        return model.scores(x, signals)


def attention_memory(model: CrossEncoder, history_age: Tensor) -> Tensor:
    """Keys and values of all layers for events of this age: float32 [2, layers, heads, 1 + L, d].

    Args:
        history_age: float32 [L]; see ``RankingBatch``.
    """
    history = model.history_norm(model.history_age(history_age[None, :, None]))
    both = [torch.cat(attention.keys_and_values(history)) for attention, _ in model.layers]
    return torch.stack(both, dim=1)


def can_export(model: CrossEncoder) -> bool:
    """Whether there is such a graph for the model: text tokens are not part of it."""
    return model.text_projections is None


def export_list_scorer(model: CrossEncoder, num_towers: int, max_history: int) -> bytes:
    """The graph as ONNX, with its weights."""
    num_candidates = 30
    num_biases = sum(attention.num_heads for attention, _ in model.layers)
    example = ListInputs(
        biases=torch.zeros(num_candidates, 1 + max_history, num_biases, dtype=torch.float16),
        memory=attention_memory(model, torch.zeros(max_history)).detach(),
        known=torch.zeros(num_candidates + 5, num_towers + NUM_OWN_SIGNALS),
        rows=torch.ones(num_candidates, dtype=torch.int64),
        feedback=torch.zeros(num_candidates, len(PAIR_NAMES)),
    )
    per_candidate = {0: torch.export.Dim("K")}
    dynamic: dict[str, dict[int, Any] | None] = {
        "biases": per_candidate,
        "memory": None,
        "known": {0: torch.export.Dim("n")},
        "rows": per_candidate,
        "feedback": per_candidate,
    }
    with _quiet():
        program = torch.onnx.export(
            ListScorer(model, num_towers),
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
