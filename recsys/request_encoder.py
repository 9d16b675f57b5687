"""The histories of requests, encoded; those of stored users from memory where they are there."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.encoded_history import EncodedHistory, HistoryCache, HistoryEncoder, ListFeatures
from recsys.models.new_users import NewUserBlend
from recsys.request import Request
from recsys.reranker import Reranker
from recsys.retrieved import Retrieved
from recsys.schema import ExternalId
from recsys.user_histories import UserHistories

MIN_SHARE = 0.02
"""Of popularity: with less of it a list is hardly another one, and is left to the stages."""


class RequestEncoder:
    """Encodes what requests tell of a taste.

    Args:
        histories: of the users. encoder: of histories. project: from a text vector float32 [T] to
            what the towers make of it, float [1, D'], see ``ItemProjector``. cache: what is kept of
            stored users. blend: for users whom training has not seen; None leaves them to stage 1.
    """

    def __init__(
        self,
        histories: UserHistories,
        encoder: HistoryEncoder,
        project: Callable[[NDArray[np.float32]], Tensor],
        cache: HistoryCache,
        blend: NewUserBlend | None,
    ) -> None:
        self.histories = histories
        self.encoder = encoder
        self.project = project
        self.cache = cache
        self.blend = blend

    def encoded(
        self, requests: Sequence[Request]
    ) -> tuple[list[ExternalId | None], list[EncodedHistory]]:
        """Keys in the cache (None: not kept there) and histories, from the cache where they are."""
        known = self.histories.user_idx(requests)
        keys = [
            request.user_id if _is_stored(request) and (user or request.events.version) else None
            for request, user in zip(requests, known, strict=True)
        ]
        versions = [request.events.version for request in requests]
        num_items = len(self.histories.items)
        found = self.cache.get(keys, versions, num_items)
        rows = [row for row, one in enumerate(found) if one is None]
        if rows:
            for row, one in zip(rows, self._encoded([requests[r] for r in rows]), strict=True):
                lacks = self.histories.lacks_items_of(requests[row])
                encoded = found[row] = one._replace(
                    version=versions[row],
                    popular_share=self._popular_share(requests[row], known[row], one),
                    catalogue=num_items if lacks else 0,
                )
                if (key := keys[row]) is not None:
                    self.cache.put(key, encoded)
        return keys, [one for one in found if one is not None]

    def _encoded(self, requests: Sequence[Request]) -> list[EncodedHistory]:
        encoded = self.encoder.encode(self.histories.batch(requests))
        for row, request in enumerate(requests):
            if request.text_vector is not None:
                batch = self.histories.batch([request])
                (encoded[row],) = self.encoder.encode(batch, self.project(request.text_vector))
        return encoded

    def _popular_share(self, request: Request, user: int, history: EncodedHistory) -> float:
        """Of popularity in the scores: of histories that training has seen, none."""
        is_new = user == 0 or request.history is not None
        if self.blend is None or not is_new or request.text_vector is not None:
            return 0.0
        share = self.blend.share(history.events.item_idx[history.events.mask])
        return share if share >= MIN_SHARE else 0.0

    def features(self, reranker: Reranker, retrieved: Retrieved) -> list[ListFeatures]:
        """What stage 2 reads of each list; of stored users, kept for their next lists.

        Those most often have the same candidates, and else are computed anew.
        """
        histories, item_idx = retrieved.histories, retrieved.item_idx
        lengths = (item_idx > 0).sum(axis=1).tolist()
        found = [
            one.features
            if one.features is not None and one.features.are_of(item_idx[row, : lengths[row]])
            else None
            for row, one in enumerate(histories)
        ]
        missing = [row for row, one in enumerate(found) if one is None]
        if missing:
            new = reranker.features([histories[row] for row in missing], item_idx[missing])
            for row, one in zip(missing, new, strict=True):
                found[row] = one
                if (key := retrieved.keys[row]) is not None:
                    self.cache.put(key, histories[row]._replace(features=one))
        return [one for one in found if one is not None]


def _is_stored(request: Request) -> bool:
    """Whether the history is that of the user's id, and nothing of it comes with the request."""
    return request.history is None and request.context is None and request.text_vector is None
