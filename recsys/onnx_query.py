"""Stage 1's queries on a CPU: the query towers through ONNX Runtime.

On the few histories of a batch PyTorch's calls take several times as long as the arithmetic.
"""

import torch
from torch import Tensor

from recsys.models.two_tower import TwoTowerEnsemble
from recsys.onnx_export import QUERY_INPUTS, export_query
from recsys.onnx_session import one_core_session


class OnnxQuery:
    """Runs ``TwoTowerEnsemble.query_from_sums`` on one core; safe to call from several threads.

    Args:
        model: in evaluation mode, on the CPU. What changes in it later has no effect.
    """

    def __init__(self, model: TwoTowerEnsemble) -> None:
        self._session = one_core_session(export_query(model))
        # Context is missing without user attributes, length where no tower divides by it.
        self._names = {one.name for one in self._session.get_inputs()}

    def __call__(self, sums: Tensor, length: Tensor, context: Tensor) -> Tensor:
        """Query embeddings float32 [B, D]; arguments, float32, as of ``query_from_sums``."""
        parts = zip(QUERY_INPUTS, (sums, length, context), strict=True)
        values = {name: part.numpy() for name, part in parts if name in self._names}
        (query,) = self._session.run(None, values)
        return torch.from_numpy(query)
