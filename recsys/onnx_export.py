"""Stage 2's ``ListScorer`` as an ONNX graph: written after training, checked before it is run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recsys.list_scorer import ItemTables, ListScorer
from recsys.signals.list_signals import ListInputs

INPUTS = (*ListInputs._fields, *ItemTables._fields)
"""Of the graph, in this order."""

_OPERATORS = {
    *("Add", "Cast", "Clip", "Concat", "Constant", "Div", "Equal", "Exp", "Expand", "Gather"),
    *("Gelu", "Gemm", "Greater", "GreaterOrEqual", "LayerNormalization", "Less", "Log", "MatMul"),
    *(
        "Max",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "And",
        "Pad",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceLogSumExp",
    ),
    *("ReduceMax", "ReduceSum", "Reshape", "Shape", "Slice", "Softmax", "Softplus", "Split"),
    *("Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
_PLAIN_ATTRIBUTES = (1, 2, 3, 4, 6, 7)
"""Of ``onnx.AttributeProto``: FLOAT, INT, STRING, TENSOR, FLOATS, INTS."""
_MAX_NODES = 5_000


def export_list_scorer(scorer: ListScorer, inputs: ListInputs, tables: ItemTables) -> bytes:
    """The graph, with the cross-encoder's weights; tables and lists are given when it runs.

    Args:
        inputs, tables: examples. There may be more or fewer lists, candidates and items, but not
            of other widths.
    """
    lists, candidates, items = (torch.export.Dim(name) for name in ("B", "K", "N"))
    dynamic: dict[str, dict[int, Any]] = {
        **{name: {0: lists} for name in ListInputs._fields},
        **{
            name: {0: lists, 1: candidates} for name in ("candidates", "tower_scores", "popularity")
        },
        **{name: {0: items} for name in ItemTables._fields},
        "signs": {},
    }
    with _quiet():
        program = torch.onnx.export(
            scorer.eval(),
            (*inputs, *tables),
            input_names=list(INPUTS),
            output_names=["scores"],
            dynamic_shapes=tuple(dynamic[name] for name in INPUTS),
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
