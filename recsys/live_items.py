"""Items that come in while the recommender runs: from texts and attributes to vectors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.catalog import Catalog
from recsys.data.vocabulary import Vocabulary
from recsys.models.content_map import ContentMap
from recsys.schema import ITEM_ID


class ItemVectors(NamedTuple):
    """text: float32 [m, T]. towers: float32 [m, D'], as of ``TwoTowerEnsemble.item_vectors``."""

    text: Tensor
    towers: Tensor


class ItemProjector:
    """Gives items without training events the vectors that training gives to such items.

    Args:
        content_map: from the content of an item to its vectors.
        attribute_names: of ``Catalog``, in the order in which they follow the text in the content.
    """

    def __init__(self, content_map: ContentMap, attribute_names: Sequence[str]) -> None:
        self.content_map = content_map
        self.attribute_names = list(attribute_names)
        # The average item's: of a text alone nothing else is known.
        dim = len(content_map.mean) - len(self.attribute_names)
        self.average_attributes = content_map.mean[dim:]

    @torch.inference_mode()
    def vectors(self, frame: pd.DataFrame, text: NDArray[Any]) -> ItemVectors:
        """Of items as in ``Dataset.items``, with text vectors float32 [m, T]."""
        rows = Vocabulary(frame[ITEM_ID].tolist())
        catalog = Catalog.from_frame(frame, rows, self.attribute_names)
        attributes = torch.from_numpy(catalog.attributes[1:])
        return self._projected(torch.from_numpy(text), attributes)

    @torch.inference_mode()
    def text_vectors(self, text: NDArray[Any]) -> ItemVectors:
        """Of texts that say what is wanted, as if they were items: float32 [m, T]."""
        attributes = self.average_attributes.expand(len(text), -1)
        return self._projected(torch.from_numpy(text), attributes)

    def _projected(self, text: Tensor, attributes: Tensor) -> ItemVectors:
        content = torch.cat([text, attributes], dim=1)
        return ItemVectors(text, self.content_map(content))
