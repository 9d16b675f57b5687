"""The one inference path: evaluation, batch scoring and HTTP all call ``Recommender.recommend``."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifact import Artifact, Stage2, load_artifact
from recsys.data.vocabulary import Vocabulary
from recsys.encoded_history import EncodedHistory, HistoryCache, HistoryEncoder, ListFeatures
from recsys.errors import InputError
from recsys.onnx_reranker import OnnxReranker
from recsys.ranking import order, tie_hash
from recsys.reranker import BatchReranker, Reranker
from recsys.retriever import Retriever
from recsys.schema import TITLE, ExternalId, HistoryBatch, RankedList, Request, Source

# Bounds memory; a list does not depend on which requests share its batch.
BATCH_SIZE = 64
# See ``Retriever``.
MIN_ROWS = 16


Step = Literal["encode", "search", "rerank", "rules"]
"""What making lists consists of; the first two are stage 1, the others stage 2."""

Watch = Callable[[Step], AbstractContextManager[object]]
"""Called as a step begins, and left as it ends."""


def unwatched(step: Step) -> AbstractContextManager[object]:  # noqa: ARG001
    """Nobody looks."""
    return nullcontext()


class Retrieved(NamedTuple):
    """What stage 1 found for some requests, and what stage 2 needs besides.

    users: whose stored history is used, by index; 0 = nobody's. histories: of each request.
    exclude: int64 [E] of each request. item_idx: int64 [B, K], the candidates, best first,
    0 = none. scores: float32 [B, K], -inf where none.
    """

    requests: Sequence[Request]
    users: Sequence[int]
    histories: Sequence[EncodedHistory]
    exclude: Sequence[NDArray[np.int64]]
    item_idx: NDArray[np.int64]
    scores: NDArray[np.float32]


class Recommender:
    """Recommends from a trained bundle; safe to call from several threads at a time.

    Args:
        artifact: models, histories, vocabularies and catalogue, as loaded or just trained.
        device: where the models run, ``cpu`` or ``cuda``.
        cache_bytes: memory for encoded histories of stored users, which makes the next list of the
            same user cheaper; 0 keeps nothing.
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
        stage2 = artifact.stage2
        self.encoder = HistoryEncoder(self.retriever, None, 1)
        self.reranker: Reranker | None = None
        if stage2 is not None:
            self.encoder, self.reranker = _reranking(stage2, self.retriever, device)
        self.cache = HistoryCache(cache_bytes)
        counts = artifact.histories.item_counts(len(artifact.items))
        self._hashes: NDArray[np.int64] = tie_hash(torch.arange(len(counts))).numpy()
        by_popularity = order(counts[1:], self._hashes[1:]) + 1
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

    def retrieve(
        self, requests: Sequence[Request], *, rerank: bool = True, watch: Watch = unwatched
    ) -> Retrieved:
        """The first half of ``recommend``, for up to ``BATCH_SIZE`` requests.

        Args:
            rerank: whether ``rerank`` is to follow, which wants more candidates. watch: told of
                ``encode`` and ``search``.

        Raises:
            InputError: when a ``top_k`` is below 1.
        """
        fewest = min(request.top_k for request in requests)
        if fewest < 1:
            raise InputError("top_k of at least 1", str(fewest), "ask for one item or more")
        # No list is longer than the catalogue, and what is allocated must not be.
        top_ks = np.array([min(request.top_k, len(self.items)) for request in requests])
        wanted = int(top_ks.max())
        reranks = rerank and self.reranker is not None
        if reranks:
            wanted = max(wanted, self.num_candidates)
        with watch("encode"):
            users, histories = self._encoded(requests)
            exclude = [self._known_items(request.exclude) for request in requests]
        with watch("search"):
            index, queries = self.retriever.index, np.stack([one.query for one in histories])
            excluded = [
                index.exclusion(np.concatenate([one.seen.items, more])) if len(more) else one.seen
                for one, more in zip(histories, exclude, strict=True)
            ]
            scores, item_idx = index.search(queries, wanted, excluded)
        if reranks and wanted > self.num_candidates:
            # A row's candidates must not depend on how many a neighbour in the batch asked for,
            # since signals are standardised within a list.
            limits = np.maximum(top_ks, self.num_candidates)[:, None]
            item_idx[np.arange(wanted) >= limits] = 0
        return Retrieved(requests, users, histories, exclude, item_idx, scores)

    def rerank(self, retrieved: Retrieved, *, watch: Watch = unwatched) -> list[RankedList]:
        """The second half of ``recommend``; stage 1's order when the bundle has no stage 2.

        Args:
            watch: told of ``rerank`` and ``rules``.
        """
        if self.reranker is None:
            with watch("rules"):
                return self.as_retrieved(retrieved)
        item_idx = retrieved.item_idx
        with watch("rerank"):
            features = self._features(self.reranker, retrieved)
            scores = self.reranker.scores(retrieved.histories, features)
        with watch("rules"):
            wanted = max(request.top_k for request in retrieved.requests)
            item_idx = item_idx[:, : scores.shape[1]]
            best = order(scores, self._hashes[item_idx])[:, :wanted]
            item_idx = np.take_along_axis(item_idx, best, axis=1)
            scores = np.take_along_axis(scores, best, axis=1)
            return self._lists(retrieved, item_idx, scores, "reranked")

    def as_retrieved(self, retrieved: Retrieved) -> list[RankedList]:
        """The answers in stage 1's order."""
        return self._lists(retrieved, retrieved.item_idx, retrieved.scores, "retrieved")

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
        exclude = [self._seen(request), self._known_items(request.exclude)]
        return self._popular_list(request, np.concatenate(exclude))

    def _lists(
        self,
        retrieved: Retrieved,
        item_idx: NDArray[np.int64],
        scores: NDArray[np.float32],
        source: Source,
    ) -> list[RankedList]:
        """item_idx, scores: [B, K], best first, 0 = none and last."""
        real = item_idx > 0
        ends = real.sum(axis=1).cumsum().tolist()
        item_ids = self.items.decode(item_idx[real])
        answers: list[RankedList] = []
        for row, (request, start, end) in enumerate(
            zip(retrieved.requests, [0, *ends], ends, strict=False)
        ):
            if len(retrieved.histories[row].seen.items):
                found = item_ids[start:end][: request.top_k]
                answers.append(
                    RankedList(request.user_id, found, scores[row, : len(found)], source)
                )
            else:
                answers.append(self._popular_list(request, retrieved.exclude[row]))
        return answers

    def _features(self, reranker: Reranker, retrieved: Retrieved) -> list[ListFeatures]:
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
                if retrieved.users[row]:
                    self.cache.put(retrieved.users[row], histories[row]._replace(features=one))
        return [one for one in found if one is not None]

    def _encoded(self, requests: Sequence[Request]) -> tuple[list[int], list[EncodedHistory]]:
        """Users whose stored histories are used (else 0), and all histories.

        Stored ones come from the cache where they are.
        """
        users = self._user_idx(requests)
        stored = [0 if r.history is not None else u for r, u in zip(requests, users, strict=True)]
        found = self.cache.get(stored)
        rows = [row for row, one in enumerate(found) if one is None]
        if rows:
            batch = self._histories([requests[row] for row in rows], [users[row] for row in rows])
            for row, one in zip(rows, self.encoder.encode(batch), strict=True):
                found[row] = one
                if stored[row]:
                    self.cache.put(stored[row], one)
        return stored, [one for one in found if one is not None]

    def _histories(self, requests: Sequence[Request], users: Sequence[int]) -> HistoryBatch:
        """Stored histories of known users and given ones, padded: [B, L]."""
        user_idx = np.array(users, dtype=np.int64)
        by_user = np.array([request.history is None for request in requests])
        # A known user's attributes count with a history given in the request, too.
        context = torch.from_numpy(self.histories.context[user_idx])
        batch = self.histories.pad(user_idx * by_user)._replace(context=context)
        given = {
            row: self._known_items(request.history)
            for row, request in enumerate(requests)
            if request.history is not None
        }
        if not given:
            return batch
        width = max(batch.mask.shape[1], *(len(items) for items in given.values()))
        item_idx, timestamps, mask = (_widened(part, width) for part in batch[:3])
        for row, items in given.items():
            item_idx[row, : len(items)] = torch.from_numpy(items)
            # Without times of their own, the events count as a sitting that ends now, where "now"
            # is the end of the training data.
            seconds_ago = torch.arange(len(items) - 1, -1, -1)
            timestamps[row, : len(items)] = self._latest_event - seconds_ago
            mask[row, : len(items)] = True
        return HistoryBatch(item_idx, timestamps, mask, context)

    def _seen(self, request: Request) -> NDArray[np.int64]:
        """The items of a request's history."""
        if request.history is not None:
            return self._known_items(request.history)
        (user,) = self._user_idx([request])
        batch = self.histories.pad(np.array([user]))
        return batch.item_idx[batch.mask].numpy()

    def _user_idx(self, requests: Sequence[Request]) -> list[int]:
        """0 for who is not known."""
        ids = {request.user_id for request in requests if request.user_id is not None}
        known = dict(zip(ids, self.users.encode(ids).tolist(), strict=True))
        return [0 if r.user_id is None else known[r.user_id] for r in requests]

    def _known_items(self, item_ids: Sequence[ExternalId]) -> NDArray[np.int64]:
        if not len(item_ids):
            return np.zeros(0, np.int64)
        encoded = self.items.encode(item_ids)
        return encoded[encoded > 0]

    def _popular_list(self, request: Request, exclude: NDArray[np.int64]) -> RankedList:
        allowed = ~np.isin(self._popular, exclude)
        found = self.items.decode(self._popular[allowed][: request.top_k])
        scores = self._popular_scores[allowed][: len(found)]
        return RankedList(request.user_id, found, scores, "popular")


def _reranking(
    stage2: Stage2, retriever: Retriever, device: str
) -> tuple[HistoryEncoder, Reranker]:
    model, extractor = stage2.cross_encoder, stage2.extractor
    if device == "cpu" and stage2.graph is not None:
        encoder = HistoryEncoder(retriever, extractor, stage2.max_history, exported=model)
        return encoder, OnnxReranker(stage2.graph, model, extractor, encoder)
    encoder = HistoryEncoder(retriever, extractor, stage2.max_history)
    return encoder, BatchReranker(model.to(device), extractor, encoder)


def _widened(padded: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(padded, (0, width - padded.shape[1]))
