"""Stage 2 for a few lists of one length, in the form that is exported to ONNX.

From the signals of candidates to scores, in one graph: ONNX Runtime runs it without Python, and a
few lists at a time fit into a core's own cache. Nothing in it crosses lists.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from recsys.models.cross_encoder import CrossEncoder
from recsys.pair_signals import PAIR_NAMES

T = TypeVar("T")

_OPERATORS = {
    *("Add", "Concat", "Gather", "Gelu", "Gemm", "LayerNormalization", "MatMul", "Mul", "Reshape"),
    *("Shape", "Slice", "Softmax", "Squeeze", "Transpose", "Unsqueeze"),
}
_PLAIN_ATTRIBUTES = (1, 2, 3, 6, 7)
"""Of ``onnx.AttributeProto``: FLOAT, INT, STRING, FLOATS, INTS."""
_MAX_NODES = 5_000


class ListInputs(NamedTuple, Generic[T]):
    """What the graph reads of B lists of K candidates each, in this order.

    signals: float32 [B, K, S], see ``RankingBatch``. keys, values: float32 [layers, B, heads,
    1 + L, d], as from ``attention_memory``. biases: float32 [layers, B, heads, K, 1 + L], as from
    ``attention_biases``.
    """

    signals: T
    keys: T
    values: T
    biases: T


class ListScorer(nn.Module):
    """A trained cross-encoder over inputs that can be kept.

    Args:
        model: one without text tokens.
    """

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, signals: Tensor, keys: Tensor, values: Tensor, biases: Tensor) -> Tensor:
        """``ListInputs`` -> scores float32 [B * K]."""
        model = self.model
        # In two dimensions, since ONNX's Gemm adds biases on the way, which its MatMul does not.
        signals = signals.flatten(end_dim=1)
        x = model.signals(signals)
        for number, (attention, feed_forward) in enumerate(model.layers):
            x = feed_forward(attention.attend(x, keys[number], values[number], biases[number]))
        return model.scores(x, signals)


def attention_memory(model: CrossEncoder, history_age: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for events of these ages: float32 [layers, B, heads, 1 + L, d] each.

    Args:
        history_age: float32 [B, L]; see ``RankingBatch``.
    """
    history = model.history_norm(model.history_age(history_age[:, :, None]))
    both = [attention.keys_and_values(history) for attention, _ in model.layers]
    keys, values = zip(*both, strict=True)
    return torch.stack(keys), torch.stack(values)


def attention_biases(model: CrossEncoder, history_mask: Tensor, pairs: Tensor) -> Tensor:
    """Biases of candidates and events: float32 [layers, B, heads, K, 1 + L].

    Args:
        history_mask: bool [B, L]. pairs: float32 [B, K, L, P]; see ``RankingBatch``.
    """
    return torch.stack([attention.biases(history_mask, pairs) for attention, _ in model.layers])


def can_export(model: CrossEncoder) -> bool:
    """Whether there is such a graph for the model: one of attention layers, without text tokens."""
    return model.text_projections is None and len(model.layers) > 0


def export_list_scorer(model: CrossEncoder, max_history: int) -> bytes:
    """The graph as ONNX, with its weights."""
    num_lists, num_candidates = 3, 30
    pairs = torch.zeros(num_lists, num_candidates, max_history, len(PAIR_NAMES))
    ages = torch.zeros(num_lists, max_history)
    keys, values = attention_memory(model, ages)
    example = ListInputs(
        signals=torch.zeros(num_lists, num_candidates, model.linear.in_features),
        keys=keys.detach(),
        values=values.detach(),
        biases=attention_biases(model, ages == 0, pairs).detach(),
    )
    lists, candidates = torch.export.Dim("B"), torch.export.Dim("K")
    dynamic = ListInputs[dict[int, Any]](
        signals={0: lists, 1: candidates},
        keys={1: lists},
        values={1: lists},
        biases={1: lists, 3: candidates},
    )
    with _quiet():
        program = torch.onnx.export(
            ListScorer(model),
            tuple(example),
            input_names=list(ListInputs._fields),
            output_names=["scores"],
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    content: bytes = program.model_proto.SerializeToString()
    return content


def check_graph(content: bytes) -> None:
    """For a graph from outside: whether it is made of what ``export_list_scorer`` uses, alone.

    A graph of ONNX is a program: it may name files to read, loop, and reserve memory at will.

    Raises:
        ValueError: when it is not.
    """
    import onnx  # where a graph is there to be run

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, which has several implementations
        raise ValueError("no ONNX") from error
    if model.functions or model.training_info or len(model.graph.node) > _MAX_NODES:
        raise ValueError(f"functions of its own, or more than {_MAX_NODES} nodes")
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise ValueError("weights in another file")
    if model.graph.sparse_initializer:
        raise ValueError("sparse weights")
    for node in model.graph.node:
        if node.domain or node.op_type not in _OPERATORS:
            raise ValueError(
                " ".join(filter(None, ("the operator", node.domain[:40], node.op_type[:40])))
            )
        if any(part.type not in _PLAIN_ATTRIBUTES for part in node.attribute):
            raise ValueError(f"an attribute of {node.op_type} that is more than numbers")


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
