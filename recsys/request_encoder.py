"""What requests tell of a taste: histories, and stage 1's queries of them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.models.new_users import NewUserBlend
from recsys.request import Request
from recsys.retrieved import EncodedRequests
from recsys.retriever import Retriever
from recsys.schema import HistoryBatch
from recsys.user_histories import UserHistories

MIN_SHARE = 0.02
"""Of popularity: with less of it a list is hardly another one, and is left to the stages."""


class RequestEncoder:
    """Encodes what requests tell of a taste.

    Args:
        histories: of the users. retriever: encodes queries. project: from a text vector float32
            [T] to what the towers make of it, float [1, D'], see ``ItemProjector``. blend: for
            users whom training has not seen; None leaves them to stage 1.
    """

    def __init__(
        self,
        histories: UserHistories,
        retriever: Retriever,
        project: Callable[[NDArray[np.float32]], Tensor],
        blend: NewUserBlend | None,
    ) -> None:
        self.histories = histories
        self.retriever = retriever
        self.project = project
        self.blend = blend

    def encoded(self, requests: Sequence[Request]) -> EncodedRequests:
        """All requests, in their order."""
        history = self.histories.batch(requests)
        queries = self.retriever.encode(history).float().cpu().numpy()
        for row, request in enumerate(requests):
            if request.text_vector is not None:
                own, wanted = self.histories.batch([request]), self.project(request.text_vector)
                queries[row] = self.retriever.encode(own, wanted)[0].float().cpu().numpy()
        shares = np.zeros(len(requests))
        if self.blend is not None:
            known = self.histories.user_idx(requests)
            for row, request in enumerate(requests):
                if known[row] == 0 or request.history is not None:
                    shares[row] = self._popular_share(request, history, row)
        return EncodedRequests(history, queries, shares)

    def _popular_share(self, request: Request, history: HistoryBatch, row: int) -> float:
        """Of popularity in the scores of somebody whom training has not seen."""
        if self.blend is None or request.text_vector is not None:
            return 0.0
        share = self.blend.share(history.item_idx[row][history.mask[row]])
        return share if share >= MIN_SHARE else 0.0
