"""How two items go together, as a dot product: in sessions, in histories, by text.

A weight per pair of items, W, is kept as W ~ R diag(s) R' with few columns and s = +-1: its leading
eigenvectors, scaled by the roots of the eigenvalues. What a whole history says of a candidate is
then one dot product with the sum of its items' rows, and costs the same for any catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.signals.item_graph import ItemGraph

RELATIONS = ("session", "co_occurrence", "text")
_ROUNDS, _OVERSAMPLED = 8, 16


@dataclass(frozen=True)
class Relations:
    """Vectors of all items, in blocks of columns of one width each, in the order of ``RELATIONS``.

    vectors: float32 [N + 1, 3 r], row 0 zeros. signs: float32 [3 r], +1 or -1.
    """

    vectors: Tensor
    signs: Tensor

    @property
    def width(self) -> int:
        """Of a block, r."""
        return len(self.signs) // len(RELATIONS)

    @classmethod
    def fit(cls, graphs: Sequence[ItemGraph], text: Tensor) -> "Relations":
        """Of item graphs, and text float32 [N + 1, r], whose width the graphs are brought to."""
        factors = [factorized(graph, text.shape[1]) for graph in graphs]
        vectors = torch.cat([*(vectors for vectors, _ in factors), text], dim=1)
        return cls(
            vectors, torch.cat([*(signs for _, signs in factors), torch.ones(text.shape[1])])
        )

    def check(self, num_items: int) -> None:
        """For tensors from outside.

        Raises:
            ValueError: when they are not as described above, of items 1..num_items.
        """
        if {self.vectors.dtype, self.signs.dtype} != {torch.float32}:
            raise ValueError("relations of other types")
        if self.signs.ndim != 1 or not len(self.signs) or len(self.signs) % len(RELATIONS):
            raise ValueError(f"signs of other than {len(RELATIONS)} blocks")
        if self.vectors.shape != (num_items + 1, len(self.signs)):
            raise ValueError(f"relations {list(self.vectors.shape)} of {num_items} items")
        if not (self.signs.abs() == 1).all() or not self.vectors.isfinite().all():
            raise ValueError("relations that are not finite, or signs other than 1 and -1")

    @property
    def blocks(self) -> Tensor:
        """The sign of each column, in the place of its relation: float32 [3 r, 3], the rest 0.

        ``(left * right) @ blocks`` is how two vectors go together, by relation.
        """
        one_hot = torch.eye(len(RELATIONS)).repeat_interleave(self.width, dim=0)
        return self.signs[:, None] * one_hot

    def with_itself(self) -> Tensor:
        """Each relation of each item with itself: float32 [N + 1, 3]."""
        return self.vectors.square() @ self.blocks

    def later(self, text: Tensor) -> "Relations":
        """Of items without events, by their text float32 [m, r] alone."""
        missing = self.vectors.shape[1] - text.shape[1]
        return Relations(torch.nn.functional.pad(text, (missing, 0)), self.signs)


def factorized(graph: ItemGraph, rank: int) -> tuple[Tensor, Tensor]:
    """Vectors float32 [N + 1, rank] and signs [rank] of a graph's weights, by subspace iteration.

    Of the square roots of the weights: a few pairs would outweigh all others. No pair of an item
    with itself is asked for, so the diagonal is free, and is set to what the vectors make of it,
    round by round (as in principal factor analysis).

    Halko et al. 2011, "Finding structure with randomness", algorithms 4.4 and 5.3.
    """
    size = graph.num_items + 1
    row, column = np.divmod(graph.keys.numpy(), size)
    weights = np.sqrt(np.maximum(graph.weights.numpy(), 0.0))
    matrix = csr_matrix((weights, (row, column)), shape=(size, size), dtype=np.float32)
    width = min(rank + _OVERSAMPLED, size)
    basis = np.random.default_rng(0).normal(size=(size, width)).astype(np.float32)
    diagonal = np.zeros((size, 1), np.float32)
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(matrix @ basis + diagonal * basis)
        image = matrix @ basis + diagonal * basis
        values, rotation = np.linalg.eigh(basis.T @ image)
        best = np.argsort(-np.abs(values))[:rank]
        values, vectors = values[best], basis @ rotation[:, best]
        diagonal = (vectors * vectors) @ values[:, None]
    vectors = vectors * np.sqrt(np.abs(values))
    vectors[0] = 0.0
    missing = (0, rank - len(values))
    signs = np.where(values < 0, np.float32(-1.0), np.float32(1.0))
    pad = torch.nn.functional.pad
    return (
        pad(torch.from_numpy(vectors), missing),
        pad(torch.from_numpy(signs), missing, value=1.0),
    )
