"""Stage 2 on a CPU: ``ListScorer`` as exported, through ONNX Runtime."""

import torch
from torch import Tensor

from recsys.errors import InputError
from recsys.list_scorer import ItemTables
from recsys.onnx_export import INPUTS, check_graph
from recsys.onnx_session import one_core_session
from recsys.signals.list_signals import ListInputs


class OnnxScorer:
    """Runs a graph of ``export_list_scorer``, on one core; safe to call from several threads.

    Raises:
        InputError: when the graph is none that this code and ONNX Runtime can run.
    """

    def __init__(self, graph: bytes) -> None:
        expected, remedy = "a graph of stage 2 that can be run", "run: python train.py stage=all"
        try:
            check_graph(graph)
        except ValueError as error:
            raise InputError(expected, f"one that holds {error}", remedy) from error
        try:
            self._session = one_core_session(graph)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                expected, f"one that ONNX Runtime refuses ({reason})", remedy
            ) from error
        # Without attention there is no use for all of them.
        self._names = {one.name for one in self._session.get_inputs()}
        if not self._names <= set(INPUTS):
            found = ", ".join(sorted(self._names - set(INPUTS)))
            raise InputError(f"{expected}, with inputs {INPUTS}", found[:200], remedy)

    def __call__(self, inputs: ListInputs, tables: ItemTables) -> Tensor:
        """See ``ScoreLists``; the tables are not copied."""
        values = {
            name: part.contiguous().numpy()
            for name, part in zip(INPUTS, (*inputs, *tables), strict=True)
            if name in self._names
        }
        (scores,) = self._session.run(None, values)
        return torch.from_numpy(scores)
