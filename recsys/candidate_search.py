"""Stage 1's candidates: what the index finds, what a text is like, and what rules name."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.index import Exclusion
from recsys.list_rules import MOST_ARRANGED, ListRules, RankedItems
from recsys.models.new_users import NewUserBlend
from recsys.popularity import Popularity
from recsys.ranking import order, top_k
from recsys.request import Request
from recsys.retriever import Retriever

Items = NDArray[np.int64]
Scores = NDArray[np.float32]

# Of each kind, so that what is good by both is among them.
_MIN_DEPTH = 200


class CandidateSearch:
    """Searches one state of the catalogue.

    Args:
        retriever: with the index. rules: of the same items. text: float32 [N + 1, T]. hashes:
            int64 [N + 1], ``tie_hash`` of the items. popularity: of the items. blend: of it with
            the scores; None where it has no share in any.
    """

    def __init__(
        self,
        retriever: Retriever,
        rules: ListRules,
        text: Tensor,
        hashes: Items,
        popularity: Popularity,
        blend: NewUserBlend | None,
    ) -> None:
        self.popularity = popularity
        self.blend = blend
        self.retriever = retriever
        self.rules = rules
        self.text = text
        self.hashes = hashes

    def search(
        self,
        requests: Sequence[Request],
        queries: Scores,
        excluded: Sequence[Exclusion],
        limits: NDArray[np.int64],
        popular_shares: NDArray[np.float64],
    ) -> tuple[Scores, Items]:
        """Scores and items [B, K] of each request's best candidates; -inf and 0 where none.

        Args:
            queries: float32 [B, D], of the histories. excluded: what each must not get.
            limits: int64 [B], how many candidates each gets. A row's candidates must not depend on
                how many a neighbour in the batch asked for, since signals are standardised within a
                list.
            popular_shares: [B], of popularity in the scores.
        """
        wanted = int(limits.max())
        scores, item_idx = self.retriever.index.search(queries, wanted, excluded)
        for row, request in enumerate(requests):
            if request.text_vector is not None:
                scores[row], item_idx[row] = self._by_text(
                    queries[row], request.text_vector, excluded[row], wanted
                )
            elif popular_shares[row]:
                own = slice(0, limits[row])
                scores[row, own], item_idx[row, own] = self._blended(
                    queries[row], excluded[row], int(limits[row]), popular_shares[row]
                )
        beyond = np.arange(wanted) >= limits[:, None]
        scores[beyond], item_idx[beyond] = -np.inf, 0
        for row, request in enumerate(requests):
            if request.rules.pin or request.rules.boost:
                named, own = self.rules.named(request.rules).wanted, slice(0, limits[row])
                self._put_in(
                    named, queries[row], excluded[row], item_idx[row, own], scores[row, own]
                )
        return scores, item_idx

    def everything(self, query: Scores, excluded: Exclusion) -> RankedItems:
        """Items that one list may hold, in stage 1's order, for a query [D].

        All of them, unless they are more than may be arranged.
        """
        index = self.retriever.index
        scores, item_idx = index.search(query[None], min(len(index), MOST_ARRANGED), [excluded])
        real = item_idx[0] > 0
        return RankedItems(item_idx[0][real], scores[0][real])

    def _by_text(
        self, query: Scores, text_vector: Scores, excluded: Exclusion, k: int
    ) -> tuple[Scores, Items]:
        """Scores and items [k] by what the towers make of a text, and by likeness of texts.

        What people like of all kinds outweighs the kind in the former, and the latter knows nothing
        of what people like; of both, brought to unit variance over the catalogue, the sum.
        """
        likeness = self.text[1:] @ torch.from_numpy(text_vector)
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

    def _blended(
        self, query: Scores, excluded: Exclusion, k: int, share: float
    ) -> tuple[Scores, Items]:
        """Scores and items [k], of the best by stage 1 and of the most popular."""
        assert self.blend is not None
        depth = max(k, _MIN_DEPTH)
        _, by_score = self.retriever.index.search(query[None], depth, [excluded])
        popular, _ = self.popularity.ranked(len(self.retriever.index))
        popular = popular[: depth + len(excluded.items)]
        popular = popular[~np.isin(popular, excluded.items)][:depth]
        items = np.union1d(by_score[by_score > 0], popular)
        own = torch.from_numpy(query)
        by_tower = self.retriever.tower_scores(own[None], torch.from_numpy(items)[None])
        popularity = torch.from_numpy(self.popularity.standardized(items))
        scores = self.blend.scores(own, by_tower[0].sum(dim=1), popularity, share).numpy()
        best = order(scores, self.hashes[items])[:k]
        missing = (0, k - len(best))
        return np.pad(scores[best], missing, constant_values=-np.inf), np.pad(items[best], missing)

    def _put_in(
        self, named: Items, query: Scores, excluded: Exclusion, item_idx: Items, scores: Scores
    ) -> None:
        """Have the items that rules name among the candidates [K], in place of the last others."""
        missing = named[~np.isin(named, excluded.items) & ~np.isin(named, item_idx)]
        if not len(missing):
            return
        number = int((item_idx > 0).sum())
        free = np.flatnonzero(~np.isin(item_idx, named))
        first = max(0, min(int((free < number).sum()), len(free) - len(missing)))
        places = free[first : first + len(missing)]
        missing = missing[: len(places)]
        if not len(missing):  # all candidates are named
            return
        item_idx[places] = missing
        by_tower = self.retriever.tower_scores(
            torch.from_numpy(query)[None], torch.from_numpy(missing)[None]
        )
        scores[places] = by_tower.sum(dim=2)[0].numpy()
        # In order, as stage 1 would have them.
        used = slice(0, max(number, int(places[-1]) + 1))
        best = order(scores[used], self.hashes[item_idx[used]])
        item_idx[used], scores[used] = item_idx[used][best], scores[used][best]
