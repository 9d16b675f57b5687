"""What stage 1 hands to stage 2, and the steps in which lists are made."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.index import Exclusion
from recsys.request import Request
from recsys.schema import HistoryBatch

Step = Literal["encode", "search", "rerank", "rules"]
"""What making lists consists of; the first two are stage 1, the others stage 2."""

Watch = Callable[[Step], AbstractContextManager[object]]
"""Called as a step begins, and left as it ends."""


IsLate = Callable[[int], bool]
"""Asked of a list, by its row, before rules make it that take long: whether to leave that out."""


def never_late(row: int) -> bool:  # noqa: ARG001
    """There is all the time in the world."""
    return False


def always_late(row: int) -> bool:  # noqa: ARG001
    """Somebody waits for it right now."""
    return True


def unwatched(step: Step) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nobody looks."""
    return nullcontext()


class EncodedRequests(NamedTuple):
    """What requests tell of a taste.

    history: [B, L], complete. queries: float32 [B, D], query embeddings. popular_shares: [B], of
    popularity in the scores, see ``NewUserBlend``.
    """

    history: HistoryBatch
    queries: NDArray[np.float32]
    popular_shares: NDArray[np.float64]

    def of(self, rows: Sequence[int]) -> "EncodedRequests":
        """Some of the requests."""
        history = self.history.rows(torch.tensor(rows))
        return EncodedRequests(history, self.queries[rows], self.popular_shares[rows])


class Retrieved(NamedTuple):
    """What stage 1 found for some requests, and what stage 2 needs besides.

    excluded: what each must not get. item_idx: int64 [B, K], the candidates, best first, 0 = none.
    scores: float32 [B, K], -inf where none.
    """

    requests: Sequence[Request]
    encoded: EncodedRequests
    excluded: Sequence[Exclusion]
    item_idx: NDArray[np.int64]
    scores: NDArray[np.float32]

    def of(self, rows: Sequence[int]) -> "Retrieved":
        """Some of the requests."""
        return Retrieved(
            [self.requests[row] for row in rows],
            self.encoded.of(rows),
            [self.excluded[row] for row in rows],
            self.item_idx[rows],
            self.scores[rows],
        )
