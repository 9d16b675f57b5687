"""From the content of an item to its vectors in all towers, for items that training never met."""

import torch
from torch import Tensor, nn

_CHUNK = 4096


class ContentMap(nn.Module):
    """Kernel regression over items whose vectors are known: alike in content, alike in vectors.

    A radial kernel, since what one actor, sequel or genre says of a taste does not add up linearly.

    Args:
        num_landmarks: how many items it compares with. num_features: F. dim: D, of all vectors of
            an item side by side.
    """

    mean: Tensor
    scale: Tensor
    landmarks: Tensor
    bandwidth: Tensor
    coefficients: Tensor
    intercept: Tensor

    def __init__(self, num_landmarks: int, num_features: int, dim: int) -> None:
        super().__init__()
        # Buffers, so that an item added later is treated as the training items were.
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("landmarks", torch.zeros(num_landmarks, num_features))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("coefficients", torch.zeros(num_landmarks, dim))
        self.register_buffer("intercept", torch.zeros(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Raw content float [n, F] -> vectors float [n, D]."""
        parts = [
            self.kernel(part) @ self.coefficients + self.intercept
            for part in torch.split(features, _CHUNK)
        ]
        return torch.cat(parts)

    def kernel(self, features: Tensor) -> Tensor:
        """Likeness to the landmarks, in (0, 1]: raw content float [n, F] -> float [n, M]."""
        standardized = (features - self.mean) * self.scale
        return torch.exp(-torch.cdist(standardized, self.landmarks).square() / self.bandwidth)
