"""The one inference path: evaluation, batch scoring and HTTP all call ``Recommender.recommend``."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.artifact import Artifact, Stage2, load_artifact
from recsys.candidate_search import CandidateSearch
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.feature_store.online import OnlineFeatures
from recsys.growing import GrowingRows
from recsys.index import Exclusion
from recsys.list_builder import ListBuilder
from recsys.list_rules import ListRules
from recsys.live_items import ItemProjector
from recsys.models.new_users import NewUserBlend, opening_lift
from recsys.onnx_query import OnnxQuery
from recsys.onnx_scorer import OnnxScorer
from recsys.popularity import Popularity
from recsys.ranking import order, tie_hash
from recsys.request import Request
from recsys.request_encoder import RequestEncoder
from recsys.reranker import Reranker, TorchScorer
from recsys.retrieved import IsLate, Retrieved, Watch, never_late, unwatched
from recsys.retriever import Retriever
from recsys.rules import ItemTable, Rules
from recsys.rules.ids import checked_rules
from recsys.schema import ITEM_ID, TITLE, ExternalId, HistoryBatch, RankedList, Source
from recsys.user_histories import UserHistories

# Bounds memory; a list does not depend on which requests share its batch.
BATCH_SIZE = 64
# See ``Retriever``.
MIN_ROWS = 16


class Recommender:
    """Recommends from a trained bundle; safe to call from several threads at a time.

    Args:
        artifact: models, histories, vocabularies and catalogue, as loaded or just trained.
        device: where the models run, ``cpu`` or ``cuda``.
        stage2: whether it re-ranks, where the bundle can; None: if its training found that it pays.

    ``features`` and ``popularity`` may be told of events since training. ``revision`` counts the
    times that ``with_items`` led here. ``stored_positions`` is the caller's own note of which
    version of later items it has given.
    """

    def __init__(
        self, artifact: Artifact, device: str = "cpu", *, stage2: bool | None = None
    ) -> None:
        self.artifact = artifact
        self.model_version = artifact.version
        self.manifest = artifact.manifest
        self.users: Vocabulary = artifact.users
        self.items: Vocabulary = artifact.items
        self.item_frame: pd.DataFrame = artifact.item_frame
        self.num_candidates = artifact.num_candidates
        self.revision = 0
        self.stored_positions: Mapping[ExternalId, int] = {}
        self.histories = UserHistories(
            artifact.histories,
            artifact.users,
            artifact.items,
            artifact.manifest.get("user_attributes", []),
            artifact.event_types,
            artifact.dismissed,
            artifact.event_weights,
        )
        two_tower = artifact.two_tower.to(device)
        self.retriever = Retriever(
            two_tower,
            artifact.index,
            artifact.max_query_history,
            MIN_ROWS,
            OnnxQuery(two_tower) if device == "cpu" else None,
        )
        # Which leaves the artifact's model one for reading alone.
        self.retriever.share_vectors()
        if stage2 is None:
            stage2 = artifact.manifest.get("serve") != "stage1"
        parts = artifact.stage2 if stage2 else None
        self.reranker = None if parts is None else _reranker(parts, artifact.text, device)
        new_users = artifact.new_users
        self.features = OnlineFeatures(
            artifact.histories, len(artifact.items), new_users.half_life_days
        )
        self.popularity = Popularity(self.features)
        self._blend = None
        if new_users.gate is not None:
            lift = opening_lift(artifact.histories, len(artifact.items))
            self._blend = NewUserBlend(new_users.gate, lift, self.retriever.embeddings)
        self._titles: list[str] = artifact.item_frame[TITLE].tolist()
        self._hashes = _hashes(0, len(artifact.items) + 1)
        self._text = GrowingRows(artifact.text)
        table = ItemTable.from_frame(artifact.item_frame)
        self.rules = ListRules(table, self.items, self._text.rows)
        self._connect()

    @classmethod
    def load(
        cls, bundle: Path, device: str = "cpu", *, stage2: bool | None = None
    ) -> "Recommender":
        """Load a bundle; arguments as of the class.

        Raises:
            InputError: when the bundle is missing or damaged.
        """
        return cls(load_artifact(bundle), device, stage2=stage2)

    def _connect(self) -> None:
        """Make what consists of the parts that there are now."""
        # No method of this object, which would keep it alive: what is replaced is freed at once.
        project = partial(_projected, self.artifact)
        self._requests = RequestEncoder(self.histories, self.retriever, project, self._blend)
        self._search = CandidateSearch(
            self.retriever,
            self.rules,
            self._text.rows,
            self._hashes,
            self.popularity,
            self._blend,
        )
        self._builder = ListBuilder(self.items, self.rules, self._search, self.popularity)

    def with_items(self, frame: pd.DataFrame, text: NDArray[np.float32]) -> "Recommender":
        """A recommender with more items, or others in their place; this one goes on as it is.

        An item that training has met keeps its vectors, which say more than its text does; of any
        other, content decides (see ``ContentMap``).

        Args:
            frame: of the items, each once, as in ``Dataset.items``.
            text: float32 [m, T], of their texts by ``catalog.texts``, in the same order.
        """
        known = self.items.encode(frame[ITEM_ID])
        other = copy(self)
        other.revision += 1
        other.items = self.items.extended(frame[ITEM_ID][known == 0].tolist())
        item_idx = other.items.encode(frame[ITEM_ID])
        later = item_idx > len(self.artifact.items)
        if later.any():
            vectors = _projector(self.artifact).vectors(frame[later], text[later])
            positions = torch.from_numpy(item_idx[later])
            other._text = self._text.with_rows(positions, vectors.text)
            other.retriever = self.retriever.with_vectors(positions, vectors.towers)
            other.retriever.share_vectors()  # else the model would keep the tables of before
            if self.reranker is not None:
                other.reranker = self.reranker.with_items(positions, vectors.text)
            other.histories = self.histories.with_items(other.items)
            other.features.grow(len(other.items))
            new = _hashes(len(self._hashes), len(other.items) + 1)
            other._hashes = np.append(self._hashes, new)
        other.rules = self.rules.with_items(other.items, item_idx, frame, other._text.rows)
        titles = [*self._titles, *[""] * (len(other.items) - len(self.items))]
        for item, title in zip(item_idx.tolist(), frame[TITLE].tolist(), strict=True):
            titles[item - 1] = title
        other._titles = titles
        other._connect()
        return other

    def recommend(self, requests: Sequence[Request], *, rerank: bool = True) -> list[RankedList]:
        """One ranked list per request, in the same order.

        Who has neither a known item in the history nor a context or a text gets the most popular
        items. Items of the history, as far as the rules leave them out, and of ``exclude`` are
        never returned; a list is shorter than ``top_k`` only where too few other items exist.

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
        _check_top_k(requests)
        # No list is longer than the catalogue, and what is allocated must not be.
        limits = np.array([min(request.top_k, len(self.items)) for request in requests])
        # There must be some to choose from.
        chooses = np.array([request.rules.arranges for request in requests])
        if rerank and self.reranker is not None:
            chooses[:] = True
        limits[chooses] = np.maximum(limits[chooses], self.num_candidates)
        with watch("encode"):
            encoded = self._requests.encoded(requests)
        with watch("search"):
            excluded = self._excluded(requests, encoded.history)
            scores, item_idx = self._search.search(
                requests, encoded.queries, excluded, limits, encoded.popular_shares
            )
        return Retrieved(requests, encoded, excluded, item_idx, scores)

    def rerank(
        self, retrieved: Retrieved, *, watch: Watch = unwatched, is_late: IsLate = never_late
    ) -> list[RankedList]:
        """The second half of ``recommend``; stage 1's order when the bundle has no stage 2.

        Args:
            watch: told of ``rerank`` and ``rules``. is_late: see ``ListBuilder.lists``.
        """
        if self.reranker is None:
            with watch("rules"):
                return self.as_retrieved(retrieved, is_late)
        item_idx, scores = retrieved.item_idx, retrieved.scores.copy()
        # Stage 2 has learned nothing of wishes, nor of newcomers: their lists stay as they are.
        as_found = [
            request.text_vector is not None or share > 0
            for request, share in zip(
                retrieved.requests, retrieved.encoded.popular_shares.tolist(), strict=True
            )
        ]
        with watch("rerank"):
            own = np.flatnonzero(~np.array(as_found))
            if len(own):
                some = retrieved if len(own) == len(scores) else retrieved.of(own.tolist())
                scores[own] = self._reranked(self.reranker, some)
        with watch("rules"):
            wanted = max(
                scores.shape[1] if request.rules.arranges else request.top_k
                for request in retrieved.requests
            )
            best = order(scores, self._hashes[item_idx])[:, :wanted]
            item_idx = np.take_along_axis(item_idx, best, axis=1)
            scores = np.take_along_axis(scores, best, axis=1)
            sources: list[Source] = ["retrieved" if own else "reranked" for own in as_found]
            return self._builder.lists(retrieved, item_idx, scores, sources, is_late)

    def _reranked(self, reranker: Reranker, retrieved: Retrieved) -> NDArray[np.float32]:
        """Stage 2's scores float32 [B, K]; -inf where there is no candidate."""
        queries, scores, item_idx = map(
            torch.from_numpy, (retrieved.encoded.queries, retrieved.scores, retrieved.item_idx)
        )
        by_tower = self.retriever.tower_scores(queries, item_idx, scores)
        return reranker.scores(retrieved.encoded.history, retrieved.item_idx, by_tower)

    def as_retrieved(self, retrieved: Retrieved, is_late: IsLate = never_late) -> list[RankedList]:
        """The answers in stage 1's order; ``is_late`` as of ``rerank``."""
        sources: list[Source] = ["retrieved"] * len(retrieved.requests)
        item_idx, scores = retrieved.item_idx, retrieved.scores
        return self._builder.lists(retrieved, item_idx, scores, sources, is_late)

    def popular(self, requests: Sequence[Request]) -> list[RankedList]:
        """The most popular items, without those of a request's history: needs no model.

        For whoever has waited too long already: what takes long is left out, such as diversity.

        Raises:
            InputError: when a ``top_k`` is below 1.
        """
        _check_top_k(requests)
        batch = self.histories.batch(requests)
        item_idx, mask = batch.item_idx.numpy(), batch.mask.numpy()
        # Requests that came together share what they leave out.
        more: dict[tuple[int, ...], NDArray[np.int64]] = {}
        excluded = []
        for row, request in enumerate(requests):
            unwanted = _unwanted(request)
            key = tuple(map(id, unwanted))
            if key not in more:
                more[key] = self.histories.known_items(list(chain(*unwanted)))
            seen = self._seen(request, item_idx[row, mask[row]])
            gone = self.histories.dismissed(request)
            excluded.append(np.concatenate([seen, more[key], gone]))
        return self._builder.last_resorts(requests, excluded)

    def checked_rules(self, config: Mapping[str, Any]) -> Rules:
        """Rules from plain values, see ``Rules.from_config``.

        Raises:
            InputError: as there, for ids of items of another type than the catalogue's, and for
                types of events that are not known.
        """
        rules = checked_rules(config, self.items.holds_integers)
        self.histories.check_types(rules.exclude_types)
        return rules

    def titles(self, item_ids: Sequence[ExternalId]) -> list[str]:
        """The titles of items of the catalogue, in the same order."""
        return [self._titles[item - 1] for item in self.items.encode(item_ids).tolist()]

    def returnable(self, request: Request, item_ids: Sequence[ExternalId]) -> list[ExternalId]:
        """Those of the items that a list for the request may hold."""
        (excluded,) = self._excluded([request], self.histories.batch([request]))
        items = self.histories.known_items(item_ids)
        return self.items.decode(items[~np.isin(items, excluded.items)])

    def _excluded(self, requests: Sequence[Request], history: HistoryBatch) -> list[Exclusion]:
        """What must not be returned: items of the history, and as each request has it."""
        item_idx = history.item_idx.numpy()
        ends = history.mask.sum(dim=1).tolist()
        excluded = []
        for row, (request, end) in enumerate(zip(requests, ends, strict=True)):
            rules = request.rules
            items = self._seen(request, item_idx[row, :end])
            more = self.histories.known_items(list(chain(*_unwanted(request))))
            gone = self.histories.dismissed(request)
            if len(more) or len(gone):
                items = np.concatenate([items, more, gone])
            excluded.append(self.retriever.index.exclusion(items, self.rules.mask(rules)))
        return excluded

    def _seen(self, request: Request, history: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the history's items that must not be returned, since the user has had them."""
        rules = request.rules
        if not rules.exclude_seen:
            return history[:0]
        if rules.exclude_types is None:
            return history
        return self.histories.had_by(request, rules.exclude_types)


def _unwanted(request: Request) -> tuple[Sequence[ExternalId], ...]:
    """What must not be returned besides what ``Recommender._seen`` says: lists of ids."""
    events, rules = request.events, request.rules
    # What is left out by type, older items among them, is not told by the history alone.
    by_type = rules.exclude_types is not None
    keeps_older_away = rules.exclude_seen and request.history is None and not by_type
    return request.exclude, events.dismissed, events.older if keeps_older_away else ()


def _projector(artifact: Artifact) -> ItemProjector:
    """Turns content into vectors: of items without training events, and of texts."""
    content_map = artifact.two_tower.content_map
    assert content_map is not None  # as any trained ensemble has
    return ItemProjector(content_map, artifact.attribute_names)


def _projected(artifact: Artifact, text_vector: NDArray[np.float32]) -> Tensor:
    return _projector(artifact).text_vectors(text_vector[None]).towers


def _hashes(first: int, end: int) -> NDArray[np.int64]:
    """``tie_hash`` of items from ``first`` up to ``end``."""
    hashes: NDArray[np.int64] = tie_hash(torch.arange(first, end)).numpy()
    return hashes


def _check_top_k(requests: Sequence[Request]) -> None:
    fewest = min(request.top_k for request in requests)
    if fewest < 1:
        raise InputError("top_k of at least 1", str(fewest), "ask for one item or more")


def _reranker(stage2: Stage2, text: Tensor, device: str) -> Reranker:
    model, graph = stage2.cross_encoder.to(device), stage2.graph
    scorer = TorchScorer(model) if graph is None or device != "cpu" else OnnxScorer(graph)
    return Reranker(model, stage2.extractor, stage2.reduction, text, scorer)
