"""How two items go together: in sessions, in histories, by text."""

from copy import copy

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
            del self.session, self.co_occurrence  # the table has it all

    def with_text(self, text: Tensor) -> "PairSignals":
        """For more items, which text alone connects: float32 [M + 1, T], the first the same.

        This object stays as it is.
        """
        other = copy(self)
        other.text = text
        return other

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
        rows, columns = self._known(candidates), self._known(history)
        pairs = (rows * self.num_rows)[:, :, None] + columns[:, None, :]
        # Much faster than indexing by a tensor of three dimensions.
        found = self.table.index_select(0, pairs.flatten())
        found = found.view(*pairs.shape, self.table.shape[1])
        if len(self.text) > self.num_rows:
            self._add_later_items(found, candidates, history)
        return found

    def _add_later_items(self, found: Tensor, candidates: Tensor, history: Tensor) -> None:
        """Write what the table lacks: the text signals of pairs with an item that came later."""
        later = (candidates >= self.num_rows)[:, :, None] | (history >= self.num_rows)[:, None, :]
        if later.any():
            number = PAIR_NAMES.index("text")
            text = _scaled(self._text(candidates, history), _SCALES[number])
            found[..., number] = torch.where(later, text, found[..., number])

    def _computed(self, candidates: Tensor, history: Tensor) -> Tensor:
        rows, columns = self._known(candidates)[:, :, None], self._known(history)[:, None, :]
        signals = (
            self.session(rows, columns),
            self.co_occurrence(rows, columns),
            self._text(candidates, history),
        )
        scaled = [_scaled(*one) for one in zip(signals, _SCALES, strict=True)]
        return torch.stack(scaled, dim=3)

    def _text(self, candidates: Tensor, history: Tensor) -> Tensor:
        return self.text[candidates] @ self.text[history].transpose(1, 2)

    def _known(self, items: Tensor) -> Tensor:
        """Items that came later have nothing in the graphs, as padding has."""
        if len(self.text) == self.num_rows:
            return items
        return items.masked_fill(items >= self.num_rows, 0)


def _scaled(signal: Tensor, scale: float) -> Tensor:
    # log1p: session weights are heavy-tailed; for the two cosines it is close to linear.
    return (signal.clamp(min=0) * scale).log1p()
