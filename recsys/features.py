"""Content features of items: frozen text vectors beside attributes, with fixed statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Total variance that each block has after standardisation. Attributes repeat what the text says of
# the genre, so they enter more quietly (chosen on validation rows of MovieLens-100K).
TEXT_VARIANCE = 3.0
ATTRIBUTE_VARIANCE = 0.5


@dataclass(frozen=True)
class ContentFeatures:
    """values: float32 [N + 1, F], raw features, row 0 zeros. mean, scale: float32 [F]."""

    values: Tensor
    mean: Tensor
    scale: Tensor


def content_features(text: Tensor, attributes: Tensor, item_counts: Tensor) -> ContentFeatures:
    """Join text vectors and attributes, and take their statistics over the items seen in training.

    Args:
        text: float32 [N + 1, T]. attributes: float32 [N + 1, A]. item_counts: int64 [N + 1],
            training events per item.
    """
    seen = item_counts > 0
    scales = [
        _block_scale(block[seen], variance)
        for block, variance in ((text, TEXT_VARIANCE), (attributes, ATTRIBUTE_VARIANCE))
    ]
    values = torch.cat([text, attributes], dim=1)
    return ContentFeatures(values, values[seen].mean(dim=0), torch.cat(scales))


def _block_scale(block: Tensor, variance: float) -> Tensor:
    """One factor for a whole block, so that the directions within it keep their proportions."""
    total = block.var(dim=0, correction=0).sum() if len(block) and block.shape[1] else None
    factor = (variance / total).sqrt() if total is not None and total > 0 else torch.tensor(1.0)
    return factor.expand(block.shape[1])
