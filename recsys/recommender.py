"""The one inference path: evaluation, batch scoring and HTTP all call ``Recommender.recommend``."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifact import Artifact, load_artifact
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.ranking import tie_hash, top_k
from recsys.reranker import Reranker
from recsys.retriever import Candidates, Retriever
from recsys.schema import TITLE, ExternalId, HistoryBatch, RankedList, Request, Source

# Bounds memory; a list does not depend on which requests share its batch.
BATCH_SIZE = 64
# See ``Retriever``.
MIN_ROWS = 16


class Retrieved(NamedTuple):
    """What stage 1 found for some requests, and what stage 2 needs besides.

    user_idx: int64 [B], whose stored history a row has; 0 where it is another. history: [B, L].
    exclude: int64 [B, E], padded with 0. candidates: [B, K].
    """

    requests: Sequence[Request]
    user_idx: NDArray[np.int64]
    history: HistoryBatch
    exclude: NDArray[np.int64]
    candidates: Candidates


class Recommender:
    """Recommends from a trained bundle.

    Args:
        artifact: models, histories, vocabularies and catalogue, as loaded or just trained.
        device: where the models run, ``cpu`` or ``cuda``.
        cache_bytes: memory for what stored histories tell of all items, which makes the next list
            of the same user cheaper; 0 keeps nothing.
    """

    def __init__(self, artifact: Artifact, device: str = "cpu", cache_bytes: int = 0) -> None:
        self.artifact = artifact
        self.model_version = artifact.version
        self.manifest = artifact.manifest
        self.users: Vocabulary = artifact.users
        self.items: Vocabulary = artifact.items
        self.item_frame: pd.DataFrame = artifact.item_frame
        self.num_candidates = artifact.num_candidates
        self.histories = artifact.histories
        self.retriever = Retriever(
            artifact.two_tower.to(device), artifact.index, artifact.max_query_history, MIN_ROWS
        )
        self.reranker: Reranker | None = None
        if artifact.stage2 is not None:
            stage2 = artifact.stage2
            self.reranker = Reranker(
                stage2.cross_encoder.to(device), stage2.extractor, stage2.max_history, cache_bytes
            )
        counts = artifact.histories.item_counts(len(artifact.items))
        hashes = tie_hash(torch.arange(len(counts))).numpy()
        by_popularity = np.lexsort((hashes[1:], -counts[1:])) + 1
        self._popular: NDArray[np.int64] = by_popularity.astype(np.int64)
        self._popular_scores = counts[self._popular].astype(np.float32)
        self._latest_event = int(artifact.histories.timestamps.max(initial=0))

    @classmethod
    def load(cls, bundle: Path, device: str = "cpu", cache_bytes: int = 0) -> "Recommender":
        """Load a bundle; arguments as of the class.

        Raises:
            InputError: when the bundle is missing or damaged.
        """
        return cls(load_artifact(bundle), device, cache_bytes)

    def recommend(self, requests: Sequence[Request], *, rerank: bool = True) -> list[RankedList]:
        """One ranked list per request, in the same order.

        A user or a history without any known item gets the most popular items. Items of the history
        and of ``exclude`` are never returned; a list is shorter than ``top_k`` only where too few
        other items exist.

        Args:
            rerank: False returns stage 1's order, also when the bundle has a stage 2.

        Raises:
            InputError: when a ``top_k`` is below 1.
        """
        answers: list[RankedList] = []
        for start in range(0, len(requests), BATCH_SIZE):
            retrieved = self.retrieve(requests[start : start + BATCH_SIZE], rerank=rerank)
            answers += self.rerank(retrieved) if rerank else self.as_retrieved(retrieved)
        return answers

    def retrieve(self, requests: Sequence[Request], *, rerank: bool = True) -> Retrieved:
        """The first half of ``recommend``, for up to ``BATCH_SIZE`` requests.

        Args:
            rerank: whether ``rerank`` is to follow, which wants more candidates.

        Raises:
            InputError: when a ``top_k`` is below 1.
        """
        fewest = min(request.top_k for request in requests)
        if fewest < 1:
            raise InputError("top_k of at least 1", str(fewest), "ask for one item or more")
        # No list is longer than the catalogue, and what is allocated must not be.
        top_ks = torch.tensor([min(request.top_k, len(self.items)) for request in requests])
        wanted = int(top_ks.max())
        user_idx, history = self._histories(requests)
        exclude = self._excluded(requests)
        if self.reranker is None or not rerank:
            found = self.retriever.retrieve(history, wanted, exclude)
            return Retrieved(requests, user_idx, history, exclude, found)
        found = self.retriever.retrieve(history, max(self.num_candidates, wanted), exclude)
        # A row's candidates must not depend on how many a neighbour in the batch asked for, since
        # signals are standardised within a list.
        limits = top_ks.clamp(min=self.num_candidates)[:, None]
        own = torch.arange(found.item_idx.shape[1]) < limits
        found = found._replace(item_idx=found.item_idx * own)
        return Retrieved(requests, user_idx, history, exclude, found)

    def rerank(self, retrieved: Retrieved) -> list[RankedList]:
        """The second half of ``recommend``; stage 1's order when the bundle has no stage 2."""
        if self.reranker is None:
            return self.as_retrieved(retrieved)
        scores = self.reranker.scores(retrieved.user_idx, retrieved.history, retrieved.candidates)
        wanted = min(max(request.top_k for request in retrieved.requests), len(self.items))
        best_scores, best = top_k(scores, retrieved.candidates.item_idx, wanted)
        return self._lists(retrieved, best, best_scores, "reranked")

    def as_retrieved(self, retrieved: Retrieved) -> list[RankedList]:
        """The answers in stage 1's order."""
        found = retrieved.candidates
        return self._lists(retrieved, found.item_idx, found.scores, "retrieved")

    def titles(self, item_ids: Sequence[ExternalId]) -> list[str]:
        """The titles of items of the catalogue, in the same order."""
        rows = self.items.encode(item_ids) - 1
        titles: list[str] = self.item_frame[TITLE].iloc[rows].tolist()
        return titles

    def popular(self, request: Request) -> RankedList:
        """The most popular items, without those of the request's history: needs no model.

        Raises:
            InputError: when ``top_k`` is below 1.
        """
        if request.top_k < 1:
            raise InputError("top_k of at least 1", str(request.top_k), "ask for one item or more")
        history = self._histories([request])[1].item_idx[0].numpy()
        return self._popular_list(request, np.concatenate([history, self._excluded([request])[0]]))

    def _lists(
        self, retrieved: Retrieved, item_idx: Tensor, scores: Tensor, source: Source
    ) -> list[RankedList]:
        """item_idx, scores: [B, K], best first, 0 = none."""
        known = retrieved.history.mask.any(dim=1).tolist()
        answers: list[RankedList] = []
        for row, request in enumerate(retrieved.requests):
            if known[row]:
                found = item_idx[row, : request.top_k].numpy()
                found = found[found > 0]
                best = scores[row, : len(found)].numpy()
                answers.append(self._list(request, found, best, source))
            else:
                answers.append(self._popular_list(request, retrieved.exclude[row]))
        return answers

    def _histories(self, requests: Sequence[Request]) -> tuple[NDArray[np.int64], HistoryBatch]:
        """Stored histories of known users and given ones: padded, [B, L]; and whose are stored."""
        stored = np.zeros(len(requests), dtype=np.int64)
        users = np.array([self._user_idx(r.user_id) for r in requests], dtype=np.int64)
        by_user = [row for row, r in enumerate(requests) if r.history is None]
        stored[by_user] = users[by_user]
        # A known user's attributes count with a history given in the request, too.
        context = torch.from_numpy(self.histories.context[users])
        batch = self.histories.pad(stored)._replace(context=context)
        given = {
            row: self._known_items(request.history)
            for row, request in enumerate(requests)
            if request.history is not None
        }
        if not given:
            return stored, batch
        width = max(batch.mask.shape[1], *(len(items) for items in given.values()))
        item_idx, timestamps, mask = (_widened(part, width) for part in batch[:3])
        for row, items in given.items():
            item_idx[row, : len(items)] = torch.from_numpy(items)
            # Without times of their own, the events count as a sitting that ends now, where "now"
            # is the end of the training data.
            seconds_ago = torch.arange(len(items) - 1, -1, -1)
            timestamps[row, : len(items)] = self._latest_event - seconds_ago
            mask[row, : len(items)] = True
        return stored, HistoryBatch(item_idx, timestamps, mask, context)

    def _user_idx(self, user_id: ExternalId | None) -> int:
        return 0 if user_id is None else int(self.users.encode([user_id])[0])

    def _known_items(self, item_ids: Sequence[ExternalId]) -> NDArray[np.int64]:
        encoded = self.items.encode(item_ids) if len(item_ids) else np.zeros(0, np.int64)
        return encoded[encoded > 0]

    def _excluded(self, requests: Sequence[Request]) -> NDArray[np.int64]:
        """Items that requests exclude: int64 [B, E], padded with 0."""
        rows = [self._known_items(request.exclude) for request in requests]
        padded = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.int64)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        return padded

    def _popular_list(self, request: Request, exclude: NDArray[np.int64]) -> RankedList:
        allowed = ~np.isin(self._popular, exclude)
        found = self._popular[allowed][: request.top_k]
        return self._list(request, found, self._popular_scores[allowed][: len(found)], "popular")

    def _list(
        self,
        request: Request,
        item_idx: NDArray[np.int64],
        scores: NDArray[np.float32],
        source: Source,
    ) -> RankedList:
        return RankedList(request.user_id, self.items.decode(item_idx), scores, source)


def _widened(padded: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(padded, (0, width - padded.shape[1]))
