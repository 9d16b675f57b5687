"""Kernel ridge regression of item vectors on content: what places an item without events."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.features import ContentFeatures
from recsys.models.content_map import ContentMap
from recsys.models.two_tower import TwoTowerEnsemble

_SMALLEST = 1e-12


@dataclass(frozen=True)
class KernelRidge:
    """How a ``ContentMap`` is fitted.

    l2: ridge penalty, in units of items. bandwidth: of the kernel exp(-d^2 / bandwidth), in units
    of the mean squared distance of two items. max_landmarks: the most items to learn from, drawn at
    random; time grows with the cube, memory with the square (1 GB for 5,000).
    """

    l2: float = 2.0
    bandwidth: float = 0.5
    max_landmarks: int = 5_000

    @torch.no_grad()
    def fit(self, content: ContentFeatures, vectors: Tensor, seen: Tensor) -> ContentMap:
        """Learn from the items with events.

        Args:
            vectors: float [N + 1, D]. seen: bool [N + 1], items with events.
        """
        device = vectors.device
        items = seen.nonzero()[:, 0].cpu()
        if len(items) > self.max_landmarks:
            drawn = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
            items = items[drawn[: self.max_landmarks].sort().values]
        num_features, dim = content.values.shape[1], vectors.shape[1]
        fitted = ContentMap(len(items), num_features, dim).to(device)
        fitted.mean.copy_(content.mean)
        fitted.scale.copy_(content.scale)
        known = content.values.to(device)[items]
        fitted.landmarks.copy_((known - fitted.mean) * fitted.scale)
        # The mean squared distance of two rows is twice their total variance.
        spread = 2.0 * fitted.landmarks.var(dim=0, correction=0).sum()
        fitted.bandwidth.copy_((self.bandwidth * spread).clamp(min=_SMALLEST))
        targets = vectors[items].double()
        intercept = targets.mean(dim=0)
        gram = fitted.kernel(known).double()
        gram.diagonal().add_(self.l2)
        factor = torch.linalg.cholesky(gram)
        fitted.coefficients.copy_(torch.cholesky_solve(targets - intercept, factor))
        fitted.intercept.copy_(intercept)
        return fitted


@torch.no_grad()
def fix_items(
    model: TwoTowerEnsemble, content: ContentFeatures, seen: Tensor, regression: KernelRidge
) -> None:
    """Give each item of a trained model the vectors that it is served with, and add the map.

    Items with events keep the vectors that they have. The others are placed by content: gradient
    steps fit the content of items with events, and more closely than generalises to items without,
    so a regression on the trained vectors does it better.

    Args:
        seen: bool [N + 1], items with events.
    """
    vectors = model.item_vectors()
    content_map = regression.fit(content, vectors, seen)
    vectors[~seen] = content_map(model.features[~seen])
    vectors[0] = 0.0
    model.fix_items(vectors, content_map)
