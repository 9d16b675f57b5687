"""Explanations beside the lists that others wait for."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import faiss
import torch

from recsys.api.batcher import OverloadedError
from recsys.api.schemas import MAX_EXPLAINED, HistoryReason, ItemExplanation
from recsys.explanations import explain
from recsys.recommender import Recommender
from recsys.request import Request
from recsys.schema import RankedList

_SECONDS_TO_RETRY = 1


class Explainer:
    """Explains one list at a time, in a thread of its own."""

    def __init__(self) -> None:
        # One core: what has been set for other threads does not hold for this one.
        self._thread = ThreadPoolExecutor(1, "explanations", faiss.omp_set_num_threads, (1,))
        self._waiting = 0

    async def explain(
        self, recommender: Recommender, request: Request, ranked: RankedList, seconds: float
    ) -> list[ItemExplanation] | None:
        """Of each item of the list; None when ``seconds`` are not enough.

        Raises:
            OverloadedError: when too many lists wait.
        """
        if self._waiting >= MAX_EXPLAINED:
            raise OverloadedError(_SECONDS_TO_RETRY)
        self._waiting += 1
        until = time.monotonic() + seconds
        try:
            # One that nobody waits for any more is not begun, or given up on its way.
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, _explained, recommender, request, ranked, until
                )
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the thread once what it does is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _explained(
    recommender: Recommender, request: Request, ranked: RankedList, until: float
) -> list[ItemExplanation]:
    torch.set_num_threads(1)  # of this thread; the others have lists to make
    explanations = explain(recommender, request, ranked, until=until)
    touched = ranked.touched or [None] * len(ranked.item_ids)
    return [
        ItemExplanation(
            item_id=one.item_id,
            score=score,
            rank=rank,
            rule=rule,
            retrieved_rank=one.retrieved_rank,
            because=[
                HistoryReason(item_id=reason.item_id, contribution=reason.contribution)
                for reason in one.because
            ],
        )
        for rank, (one, score, rule) in enumerate(
            zip(explanations, ranked.scores.tolist(), touched, strict=True), 1
        )
    ]
