"""Ridge regression of trained item vectors on content: what places an item without events."""

import torch
from torch import Tensor

from recsys.models.two_tower import ItemEncoder


@torch.no_grad()
def fit_content_map(
    encoder: ItemEncoder, vectors: Tensor, features: Tensor, seen: Tensor, l2: float
) -> None:
    """Make an encoder give ``vectors``, and as much of them as it can by content.

    Items with events keep their vectors: their id embedding is what content leaves unexplained.
    An item without any has no id embedding, and the vector that its content predicts. Without a
    projection, all of a vector is id embedding.

    Args:
        vectors: float [N + 1, D]. features: raw content, float [N + 1, F]. seen: bool [N + 1],
            items with events. l2: ridge penalty, in units of items.
    """
    rest = vectors.double()
    if encoder.projection is not None:
        standardized = encoder.projection.standardize(features).double()
        known = standardized[seen]
        mean_features, mean = known.mean(dim=0), rest[seen].mean(dim=0)
        centred = known - mean_features
        gram = centred.T @ centred
        gram.diagonal().add_(l2)
        slope = torch.linalg.solve(gram, centred.T @ (rest[seen] - mean))  # [F, D]
        bias = mean - mean_features @ slope
        encoder.projection.linear.weight.copy_(slope.T)
        encoder.projection.linear.bias.copy_(bias)
        rest = rest - standardized @ slope - bias
    encoder.id_embedding.weight.copy_(rest * seen[:, None])
