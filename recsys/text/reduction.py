"""Frozen text vectors, brought to few dimensions."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextReduction:
    """The principal components of a catalogue's text vectors.

    mean: float32 [T]. components: float32 [T, r].
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, text: Tensor, width: int) -> "TextReduction":
        """Of text float32 [N + 1, T]; row 0, and rows of zeros, do not count."""
        rows = text[1:][text[1:].any(dim=1)]
        components = torch.zeros(text.shape[1], width)
        if not len(rows):
            return cls(torch.zeros(text.shape[1]), components)
        mean = rows.mean(dim=0)
        covariance = (rows - mean).double().T @ (rows - mean).double()
        _, vectors = torch.linalg.eigh(covariance)
        best = vectors.flip(1)[:, :width].float()
        components[:, : best.shape[1]] = best
        return cls(mean, components)

    def check(self, text_dim: int, width: int) -> None:
        """For tensors from outside.

        Raises:
            ValueError: when they do not lead from ``text_dim`` to ``width`` dimensions.
        """
        if {self.mean.dtype, self.components.dtype} != {torch.float32}:
            raise ValueError("a reduction of other types")
        if self.mean.shape != (text_dim,) or self.components.shape != (text_dim, width):
            raise ValueError(f"a reduction {list(self.components.shape)} of {text_dim} dimensions")

    def __call__(self, text: Tensor) -> Tensor:
        """Of text float32 [n, T], unit vectors float32 [n, r]; of no text, zeros."""
        reduced = (text - self.mean) @ self.components * text.any(dim=1, keepdim=True)
        return torch.nn.functional.normalize(reduced, dim=1)
