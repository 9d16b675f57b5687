"""Building blocks shared by the towers and the cross-encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """Pre-norm residual feed-forward block: x + W2 dropout(activation(W1 norm(x))).

    Shape: float [..., dim] -> float [..., dim].
    """

    def __init__(
        self, dim: int, hidden_dim: int, dropout: float, activation: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden_dim),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class StandardizedLinear(nn.Module):
    """An affine projection of frozen features, standardised by fixed statistics first.

    Text vectors share a large common component; without centring it dominates the projection. The
    statistics are buffers, so that an item added later is treated as the training items were.

    Args:
        mean: float [F]. scale: float [F], multiplies the centred features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, out_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.linear = nn.Linear(len(mean), out_dim)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        # Standardised in the weights, since there are more features than weights.
        weight = self.linear.weight * self.scale
        return F.linear(features, weight, self.linear.bias - weight @ self.mean)

    def standardize(self, features: Tensor) -> Tensor:
        """Centred and scaled features, float [..., F]."""
        return (features - self.mean) * self.scale


def weighted_sum_pool(table: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
    """Sum of table rows by weight: out[b] = sum_l weights[b, l] * table[positions[b, l]].

    Args:
        table: float [n, D]. positions: int64 [B, L], rows of the table.
        weights: float [B, L]; 0 where padded.

    Returns:
        float [B, D], without a [B, L, D] intermediate.
    """
    # Where histories are of many lengths, most places are padding.
    used = weights != 0
    number = used.sum(dim=1)
    return F.embedding_bag(
        positions[used],
        table,
        offsets=number.cumsum(dim=0) - number,
        mode="sum",
        per_sample_weights=weights[used].to(table.dtype),
    )


def drop_rows(x: Tensor, probability: float, training: bool) -> Tensor:
    """Zero whole rows of x [n, D] with the given probability in training, rescaling the others."""
    if not training or probability == 0.0:
        return x
    keep = torch.rand(len(x), 1, device=x.device) >= probability
    return x * keep / (1.0 - probability)
