"""The models as ONNX graphs.

Stage 2's ``ListScorer`` is written after training, and checked before it is run. Stage 1's queries
are exported where they are asked for, which takes a tenth of a second.
"""

import io
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recsys.list_scorer import ItemTables, ListScorer
from recsys.models.two_tower import TwoTowerEnsemble
from recsys.signals.list_signals import ListInputs

INPUTS = (*ListInputs._fields, *ItemTables._fields)
"""Of the graph of ``ListScorer``, in this order."""
QUERY_INPUTS = ("sums", "length", "context")
"""Of the graph of ``TwoTowerEnsemble.query_from_sums``, in this order; the exporter leaves out what
no tower reads.
"""

_OPERATORS = {
    *(
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "CumSum",
        "Div",
        "Equal",
        "Flatten",
        "Gather",
    ),
    *(
        "Gemm",
        "Greater",
        "Identity",
        "LayerNormalization",
        "Log",
        "MatMul",
        "Mul",
        "Neg",
        "Not",
    ),
    *(
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Shape",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
    ),
    *("Sub", "Transpose", "Unsqueeze", "Where"),
}
_PLAIN_ATTRIBUTES = (1, 2, 3, 6, 7)
"""Of ``onnx.AttributeProto``: FLOAT, INT, STRING, FLOATS, INTS."""
_MAX_NODES = 5_000
_OPSET = 20
"""The first with Gelu."""
_exporting = threading.Lock()
"""PyTorch exports one model at a time."""


def export_list_scorer(scorer: ListScorer, inputs: ListInputs, tables: ItemTables) -> bytes:
    """The graph, with the cross-encoder's weights; tables and lists are given when it runs.

    Args:
        inputs, tables: examples. There may be more or fewer lists, candidates and items, but not
            of other widths.
    """
    lists, candidates, items = ({place: name} for place, name in ((0, "B"), (1, "K"), (0, "N")))
    axes: dict[str, dict[int, str]] = {
        **dict.fromkeys(ListInputs._fields, lists),
        **dict.fromkeys(ListInputs._fields[:3], lists | candidates),
        **dict.fromkeys(ItemTables._fields[:-1], items),
    }
    with _quiet():
        return _exported(scorer, (*inputs, *tables), INPUTS, "scores", axes)


class _Query(nn.Module):
    """``TwoTowerEnsemble.query_from_sums`` as a module of its own."""

    def __init__(self, model: TwoTowerEnsemble) -> None:
        super().__init__()
        self.model = model

    def forward(self, sums: Tensor, length: Tensor, context: Tensor) -> Tensor:
        return self.model.query_from_sums(sums, length, context)


def export_query(model: TwoTowerEnsemble) -> bytes:
    """The graph of ``query_from_sums``, for any number of histories; float32 all its inputs."""
    parts = [tower.query_tower for tower in model.members]
    width = sum(part.items.dim for part in parts)
    num_context = max(0 if part.context is None else part.context.in_features for part in parts)
    example = torch.zeros(2, width), torch.ones(2), torch.zeros(2, num_context)
    axes = {name: {0: "B"} for name in QUERY_INPUTS}
    return _exported(_Query(model), example, QUERY_INPUTS, "query", axes)


def _exported(
    module: nn.Module,
    example: tuple[Tensor, ...],
    names: Sequence[str],
    output: str,
    axes: Mapping[str, Mapping[int, str]],
) -> bytes:
    graph = io.BytesIO()
    with _exporting:
        torch.onnx.export(
            module.eval(),
            example,
            graph,  # type: ignore[arg-type]
            input_names=list(names),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=_OPSET,
            # The other one takes ten seconds and more for dynamic shapes, this one half a second,
            # for a graph that runs as fast.
            dynamo=False,
        )
    return graph.getvalue()


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
    constants = [
        part.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for part in node.attribute
        if part.type == onnx.AttributeProto.TENSOR
    ]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise ValueError("weights in another file")
    if model.graph.sparse_initializer:
        raise ValueError("sparse weights")
    for node in model.graph.node:
        if node.domain or node.op_type not in _OPERATORS:
            raise ValueError(
                " ".join(filter(None, ("the operator", node.domain[:40], node.op_type[:40])))
            )
        more = (onnx.AttributeProto.TENSOR,) if node.op_type == "Constant" else ()
        if any(part.type not in (*_PLAIN_ATTRIBUTES, *more) for part in node.attribute):
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
