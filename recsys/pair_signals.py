"""How two items go together: in sessions, in histories, by text."""

import torch
from torch import Tensor

from recsys.item_graph import ItemGraph
from recsys.shared_tensors import computed_once

PAIR_NAMES = ("session", "co_occurrence", "text")
# Scales that bring each pair signal to about unit spread on MovieLens-100K.
_SCALES = (20.0, 4.0, 4.0)
# Up to this many pairs of items all are computed once (12 bytes each) and then looked up.
MAX_TABLE_PAIRS = 4_000_000
_TABLE_ROWS = 256


class PairSignals:
    """Signals of pairs of items, from a table where the catalogue is small enough.

    Args:
        session, co_occurrence: item graphs. text: float32 [N + 1, T], L2-normalised; row 0 zeros.
        max_table_pairs: the most pairs (N + 1) ** 2 that a table is made for.
    """

    def __init__(
        self,
        session: ItemGraph,
        co_occurrence: ItemGraph,
        text: Tensor,
        max_table_pairs: int = MAX_TABLE_PAIRS,
    ) -> None:
        self.session = session.lookup()
        self.co_occurrence = co_occurrence.lookup()
        self.text = text
        self.num_rows = len(text)
        self.table: Tensor | None = None
        if self.num_rows**2 <= max_table_pairs:
            graphs = (session.keys, session.weights, co_occurrence.keys, co_occurrence.weights)
            self.table = computed_once([*graphs, text], self._whole_table)
            del self.session, self.co_occurrence, self.text  # the table has it all

    def _whole_table(self) -> Tensor:
        everything = torch.arange(self.num_rows)[None]
        blocks = [
            self._computed(rows, everything)[0]
            for rows in torch.split(everything, _TABLE_ROWS, dim=1)
        ]
        return torch.cat(blocks).flatten(end_dim=1)

    def __call__(self, candidates: Tensor, history: Tensor) -> Tensor:
        """Signals of candidates int64 [B, K] with items int64 [B, L]: float32 [B, K, L, P]."""
        if self.table is None:
            return self._computed(candidates, history)
        pairs = (candidates * self.num_rows)[:, :, None] + history[:, None, :]
        # Much faster than indexing by a tensor of three dimensions.
        found = self.table.index_select(0, pairs.flatten())
        return found.view(*pairs.shape, self.table.shape[1])

    def _computed(self, candidates: Tensor, history: Tensor) -> Tensor:
        rows, columns = candidates[:, :, None], history[:, None, :]
        text = self.text[candidates] @ self.text[history].transpose(1, 2)
        signals = (self.session(rows, columns), self.co_occurrence(rows, columns), text)
        # log1p: session weights are heavy-tailed; for the two cosines it is close to linear.
        scaled = [
            (signal.clamp(min=0) * scale).log1p()
            for signal, scale in zip(signals, _SCALES, strict=True)
        ]
        return torch.stack(scaled, dim=3)
