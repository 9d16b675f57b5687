"""The one inference path: evaluation, batch scoring and HTTP all call ``Recommender.recommend``."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recsys.artifact import Artifact, Stage2, load_artifact
from recsys.data.vocabulary import Vocabulary
from recsys.encoded_history import EncodedHistory, HistoryCache, HistoryEncoder, ListFeatures
from recsys.errors import InputError
from recsys.feature_store.online import OnlineFeatures
from recsys.growing import GrowingRows
from recsys.index import Exclusion
from recsys.list_rules import Candidates, ListRules
from recsys.live_items import ItemProjector
from recsys.models.cross_encoder import CrossEncoder
from recsys.onnx_reranker import OnnxReranker
from recsys.popularity import Popularity
from recsys.ranking import order, tie_hash, top_k
from recsys.request import Request
from recsys.reranker import BatchReranker, Reranker
from recsys.retriever import Retriever
from recsys.rules import ItemTable
from recsys.schema import ITEM_ID, TITLE, ExternalId, RankedList, Source
from recsys.user_histories import UserHistories

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

    keys: whose history it is that is kept for later lists; None where it is not. histories: of each
    request. excluded: what each must not get. item_idx: int64 [B, K], the candidates, best first,
    0 = none. scores: float32 [B, K], -inf where none.
    """

    requests: Sequence[Request]
    keys: Sequence[ExternalId | None]
    histories: Sequence[EncodedHistory]
    excluded: Sequence[Exclusion]
    item_idx: NDArray[np.int64]
    scores: NDArray[np.float32]


class Recommender:
    """Recommends from a trained bundle; safe to call from several threads at a time.

    Args:
        artifact: models, histories, vocabularies and catalogue, as loaded or just trained.
        device: where the models run, ``cpu`` or ``cuda``.
        cache_bytes: memory for encoded histories of stored users, which makes the next list of the
            same user cheaper; 0 keeps nothing.

    ``features`` and ``popularity`` may be told of events since training. ``revision`` counts the
    times that ``with_items`` led here. ``stored_positions`` is the caller's own note of which
    version of later items it has given.
    """

    def __init__(self, artifact: Artifact, device: str = "cpu", cache_bytes: int = 0) -> None:
        self.artifact = artifact
        self.model_version = artifact.version
        self.manifest = artifact.manifest
        self.users: Vocabulary = artifact.users
        self.items: Vocabulary = artifact.items
        self.item_frame: pd.DataFrame = artifact.item_frame
        self.num_candidates = artifact.num_candidates
        self.histories = UserHistories(
            artifact.histories,
            artifact.users,
            artifact.items,
            artifact.manifest.get("user_attributes", []),
        )
        self.retriever = Retriever(
            artifact.two_tower.to(device), artifact.index, artifact.max_query_history, MIN_ROWS
        )
        stage2 = artifact.stage2
        self.encoder = HistoryEncoder(self.retriever, None, 1)
        self.reranker: Reranker | None = None
        if stage2 is not None:
            self.encoder, self.reranker = _reranking(stage2, self.retriever, device)
        self.cache = HistoryCache(cache_bytes)
        self.revision = 0
        self.stored_positions: Mapping[ExternalId, int] = {}
        self._text = GrowingRows(artifact.text)
        self.rules = ListRules(
            ItemTable.from_frame(artifact.item_frame), artifact.items, artifact.text
        )
        self._titles: list[str] = artifact.item_frame[TITLE].tolist()
        every = torch.arange(len(artifact.items) + 1)
        self._hashes: NDArray[np.int64] = tie_hash(every).numpy()
        self.features = OnlineFeatures(artifact.histories, len(artifact.items))
        self.popularity = Popularity(self.features)

    @classmethod
    def load(cls, bundle: Path, device: str = "cpu", cache_bytes: int = 0) -> "Recommender":
        """Load a bundle; arguments as of the class.

        Raises:
            InputError: when the bundle is missing or damaged.
        """
        return cls(load_artifact(bundle), device, cache_bytes)

    @cached_property
    def projector(self) -> ItemProjector:
        """Turns content into vectors: of items without training events, and of texts."""
        content_map = self.artifact.two_tower.content_map
        assert content_map is not None  # as any trained ensemble has
        return ItemProjector(content_map, self.artifact.attribute_names)

    @property
    def cross_encoder(self) -> CrossEncoder | None:
        """Stage 2's model, in PyTorch, for all items; None where there is no stage 2."""
        return None if self.reranker is None else self.reranker.model

    def with_items(self, frame: pd.DataFrame, text: NDArray[np.float32]) -> "Recommender":
        """A recommender with more items, or others in their place; this one goes on as it is.

        An item that training has met keeps its vectors, which say more than its text does; of any
        other, content decides (see ``ContentMap``).

        Args:
            frame: of the items, each once, as in ``Dataset.items``.
            text: float32 [m, T], of their texts by ``catalog.texts``, in the same order.
        """
        known = self.items.encode(frame[ITEM_ID])
        later = known > len(self.artifact.items)
        other = copy(self)
        other.revision += 1
        other._set_titles(known, frame[TITLE].tolist())
        if later.any():
            other.cache = HistoryCache(self.cache.max_bytes)  # for histories with these items
            vectors = self.projector.vectors(frame[later], text[later])
            changed = torch.from_numpy(known[later])
            other._text = self._text.replaced(changed, vectors.text)
            other._set_retriever(self.retriever.with_vectors(changed, vectors.towers))
        if (new := known == 0).any():
            other._append(frame[new], text[new])
        item_idx = other.items.encode(frame[ITEM_ID])
        other.rules = self.rules.with_items(other.items, item_idx, frame, other._text.rows)
        return other

    def _set_titles(self, item_idx: NDArray[np.int64], titles: Sequence[str]) -> None:
        changed = list(self._titles)
        for item, title in zip(item_idx.tolist(), titles, strict=True):
            if item:
                changed[item - 1] = title
        self._titles = changed

    def _append(self, frame: pd.DataFrame, text: NDArray[np.float32]) -> None:
        """In place, of an object that nobody else has yet."""
        first = len(self.items) + 1
        vectors = self.projector.vectors(frame, text)
        self.items = self.items.extended(frame[ITEM_ID].tolist())
        self.histories = self.histories.with_items(self.items)
        self._titles = [*self._titles, *frame[TITLE]]
        self._text = self._text.extended(vectors.text)
        new = np.arange(first, len(self.items) + 1)
        self._hashes = np.append(self._hashes, tie_hash(torch.from_numpy(new)).numpy())
        self.features.grow(len(self.items))
        self._set_retriever(self.retriever.with_items(vectors.towers))

    def _set_retriever(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self.encoder = self.encoder.with_text(self._text.rows, retriever)
        if self.reranker is not None:
            self.reranker = self.reranker.with_text(self._text.rows, self.encoder)

    def recommend(self, requests: Sequence[Request], *, rerank: bool = True) -> list[RankedList]:
        """One ranked list per request, in the same order.

        Who has neither a known item in the history nor a context or a text gets the most popular
        items. Items of the history
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
            keys, histories = self._encoded(requests)
        with watch("search"):
            queries = np.stack([one.query for one in histories])
            excluded = [
                self._excluded(request, one.seen)
                for request, one in zip(requests, histories, strict=True)
            ]
            scores, item_idx = self.retriever.index.search(queries, wanted, excluded)
            for row, request in enumerate(requests):
                if request.text_vector is not None:
                    scores[row], item_idx[row] = self._search_by_text(
                        queries[row], request.text_vector, excluded[row], wanted
                    )
        if reranks and wanted > self.num_candidates:
            # A row's candidates must not depend on how many a neighbour in the batch asked for,
            # since signals are standardised within a list.
            limits = np.maximum(top_ks, self.num_candidates)[:, None]
            item_idx[np.arange(wanted) >= limits] = 0
        for row, request in enumerate(requests):
            if request.rules.pin or request.rules.boost:
                self._put_in_named(request, queries[row], excluded[row], item_idx[row], scores[row])
        return Retrieved(requests, keys, histories, excluded, item_idx, scores)

    def _put_in_named(
        self,
        request: Request,
        query: NDArray[np.float32],
        excluded: Exclusion,
        item_idx: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        """Have the items that rules name among the candidates [K], in place of the last ones."""
        pins = self.rules.named(request.rules)
        pins = pins[~np.isin(pins, excluded.items) & ~np.isin(pins, item_idx)]
        if not len(pins):
            return
        number = int((item_idx > 0).sum())
        first = max(0, min(number, len(item_idx) - len(pins)))
        pins = pins[: len(item_idx) - first]
        item_idx[first : first + len(pins)] = pins
        by_tower = self.retriever.tower_scores(
            torch.from_numpy(query)[None], torch.from_numpy(pins)[None]
        )
        scores[first : first + len(pins)] = by_tower.sum(dim=2)[0].numpy()
        # In order, as stage 1 would have them.
        used = slice(0, max(number, first + len(pins)))
        best = order(scores[used], self._hashes[item_idx[used]])
        item_idx[used], scores[used] = item_idx[used][best], scores[used][best]

    def _search_by_text(
        self,
        query: NDArray[np.float32],
        text_vector: NDArray[np.float32],
        excluded: Exclusion,
        k: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and items [k] by what the towers make of a text, and by likeness of texts.

        What people like of all kinds outweighs the kind in the former, and the latter knows nothing
        of what people like; of both, brought to unit variance over the catalogue, the sum.
        """
        likeness = self._text.rows[1:] @ torch.from_numpy(text_vector)
        taste = self.retriever.embeddings[1:].float().cpu() @ torch.from_numpy(query)
        scores = sum(
            ((part - part.mean()) / part.std().clamp(min=1e-6) for part in (taste, likeness)),
            start=torch.zeros(len(taste)),
        )
        scores[torch.from_numpy(excluded.items) - 1] = -torch.inf
        item_idx = torch.arange(1, len(scores) + 1)
        best, items = top_k(scores[None], item_idx, k)
        missing = (0, k - best.shape[1])
        best = torch.nn.functional.pad(best, missing, value=-torch.inf)
        return best[0].numpy(), torch.nn.functional.pad(items, missing)[0].numpy()

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
            by_text = [request.text_vector is not None for request in retrieved.requests]
            # Stage 2 has learned nothing of wishes: their lists stay as they are.
            scores[by_text] = retrieved.scores[by_text, : scores.shape[1]]
        with watch("rules"):
            item_idx = item_idx[:, : scores.shape[1]]
            wanted = max(
                scores.shape[1] if request.rules.arranges else request.top_k
                for request in retrieved.requests
            )
            best = order(scores, self._hashes[item_idx])[:, :wanted]
            item_idx = np.take_along_axis(item_idx, best, axis=1)
            scores = np.take_along_axis(scores, best, axis=1)
            sources: list[Source] = ["retrieved" if own else "reranked" for own in by_text]
            return self._lists(retrieved, item_idx, scores, sources)

    def as_retrieved(self, retrieved: Retrieved) -> list[RankedList]:
        """The answers in stage 1's order."""
        sources: list[Source] = ["retrieved"] * len(retrieved.requests)
        return self._lists(retrieved, retrieved.item_idx, retrieved.scores, sources)

    def titles(self, item_ids: Sequence[ExternalId]) -> list[str]:
        """The titles of items of the catalogue, in the same order."""
        return [self._titles[item - 1] for item in self.items.encode(item_ids).tolist()]

    def returnable(self, request: Request, item_ids: Sequence[ExternalId]) -> list[ExternalId]:
        """Those of the items that a list for the request may hold."""
        excluded = self._excluded(request, Exclusion(self.histories.seen(request)))
        items = self.histories.known_items(item_ids)
        return self.items.decode(items[~np.isin(items, excluded.items)])

    def popular(self, request: Request) -> RankedList:
        """The most popular items, without those of the request's history: needs no model.

        Raises:
            InputError: when ``top_k`` is below 1.
        """
        if request.top_k < 1:
            raise InputError("top_k of at least 1", str(request.top_k), "ask for one item or more")
        seen = Exclusion(self.histories.seen(request))
        return self._popular_list(request, self._excluded(request, seen))

    def _popular_list(self, request: Request, excluded: Exclusion) -> RankedList:
        items, scores = self.popularity.ranked(len(self.items))
        allowed = ~np.isin(items, excluded.items)
        candidates = Candidates(items[allowed], scores[allowed])
        return self._list(request, candidates, "popular", lambda: candidates)

    def _lists(
        self,
        retrieved: Retrieved,
        item_idx: NDArray[np.int64],
        scores: NDArray[np.float32],
        sources: Sequence[Source],
    ) -> list[RankedList]:
        """item_idx, scores: [B, K], best first, 0 = none and last."""
        real = item_idx > 0
        ends = real.sum(axis=1).cumsum().tolist()
        item_ids = self.items.decode(item_idx[real])
        answers: list[RankedList] = []
        for row, (request, start, end) in enumerate(
            zip(retrieved.requests, [0, *ends], ends, strict=False)
        ):
            if not _tells_a_taste(request, retrieved.histories[row]):
                answers.append(self._popular_list(request, retrieved.excluded[row]))
            elif request.rules.arranges or end - start < request.top_k:
                own = slice(0, end - start)
                candidates = Candidates(item_idx[row, own], scores[row, own])
                everything = partial(self._all_candidates, retrieved, row)
                answers.append(self._list(request, candidates, sources[row], everything))
            else:
                found = item_ids[start:end][: request.top_k]
                answers.append(
                    RankedList(request.user_id, found, scores[row, : len(found)], sources[row])
                )
        return answers

    def _list(
        self,
        request: Request,
        candidates: Candidates,
        source: Source,
        all_candidates: Callable[[], Candidates],
    ) -> RankedList:
        """A list that rules may arrange, or that may be short."""
        touched: Sequence[str | None] = ()
        is_capped = False
        item_idx, scores = candidates.item_idx[: request.top_k], candidates.scores[: request.top_k]
        if request.rules.arranges:
            arranged = self.rules.arranged(request, candidates, all_candidates)
            item_idx, scores, touched = arranged.item_idx, arranged.scores, arranged.touched
            is_capped = arranged.is_capped
        return RankedList(
            request.user_id,
            self.items.decode(item_idx),
            scores,
            source,
            touched,
            self.rules.notes(request, len(item_idx), is_capped=is_capped),
        )

    def _all_candidates(self, retrieved: Retrieved, row: int) -> Candidates:
        """All items that one request's list may hold, in stage 1's order."""
        query = retrieved.histories[row].query[None]
        scores, item_idx = self.retriever.index.search(
            query, len(self.items), [retrieved.excluded[row]]
        )
        real = item_idx[0] > 0
        return Candidates(item_idx[0][real], scores[0][real])

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
                if (key := retrieved.keys[row]) is not None:
                    self.cache.put(key, histories[row]._replace(features=one))
        return [one for one in found if one is not None]

    def _encoded(
        self, requests: Sequence[Request]
    ) -> tuple[list[ExternalId | None], list[EncodedHistory]]:
        """Keys in the cache (None: not kept there) and histories, from the cache where they are."""
        known = self.histories.user_idx(requests)
        keys = [
            request.user_id if _is_stored(request) and (user or request.events.version) else None
            for request, user in zip(requests, known, strict=True)
        ]
        versions = [request.events.version for request in requests]
        found = self.cache.get(keys, versions)
        rows = [row for row, one in enumerate(found) if one is None]
        if rows:
            for row, one in zip(
                rows, self._newly_encoded([requests[r] for r in rows]), strict=True
            ):
                encoded = found[row] = one._replace(version=versions[row])
                if (key := keys[row]) is not None:
                    self.cache.put(key, encoded)
        return keys, [one for one in found if one is not None]

    def _newly_encoded(self, requests: Sequence[Request]) -> list[EncodedHistory]:
        encoded = self.encoder.encode(self.histories.batch(requests))
        for row, request in enumerate(requests):
            if request.text_vector is not None:
                wanted = self.projector.text_vectors(request.text_vector[None]).towers
                batch = self.histories.batch([request])
                (encoded[row],) = self.encoder.encode(batch, wanted)
        return encoded

    def _excluded(self, request: Request, seen: Exclusion) -> Exclusion:
        """What must not be returned: of the history, and as the request has it.

        Args:
            seen: the items of the history.
        """
        rules, dismissed = request.rules, request.events.dismissed
        mask = self.rules.mask(rules)
        more = self.histories.known_items([*request.exclude, *dismissed])
        if mask is None and rules.exclude_seen and not len(more):
            return seen
        items = np.concatenate([seen.items, more]) if rules.exclude_seen else more
        return self.retriever.index.exclusion(items, mask)


def _reranking(
    stage2: Stage2, retriever: Retriever, device: str
) -> tuple[HistoryEncoder, Reranker]:
    model, extractor = stage2.cross_encoder, stage2.extractor
    if device == "cpu" and stage2.graph is not None:
        encoder = HistoryEncoder(retriever, extractor, stage2.max_history, exported=model)
        return encoder, OnnxReranker(stage2.graph, model, extractor, encoder)
    encoder = HistoryEncoder(retriever, extractor, stage2.max_history)
    return encoder, BatchReranker(model.to(device), extractor, encoder)


def _tells_a_taste(request: Request, history: EncodedHistory) -> bool:
    """Whether anything is known that a list could be made of."""
    has_more = request.context is not None or request.text_vector is not None
    return has_more or len(history.seen.items) > 0


def _is_stored(request: Request) -> bool:
    """Whether the history is that of the user's id, and nothing of it comes with the request."""
    return request.history is None and request.context is None and request.text_vector is None
