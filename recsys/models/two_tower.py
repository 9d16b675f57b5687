"""The two-tower retriever: queries from histories, candidates from content plus an optional id.

A ``TwoTower`` scores by one dot product. A ``TwoTowerEnsemble`` concatenates the embeddings of
several towers, each scaled to unit score variance, so that the sum of their scores is again one dot
product and one FAISS index serves them all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.models.content_map import ContentMap
from recsys.models.history_weights import ALL_ALIKE, event_counts, history_weights
from recsys.models.layers import ResidualMLP, StandardizedLinear, drop_rows, weighted_sum_pool
from recsys.schema import PAD_IDX


class ItemEncoder(nn.Module):
    """Item -> vector: an id embedding plus a projection of its frozen content features.

    ``id_dropout`` drops whole id embeddings in training, so that the content alone learns to carry
    an item (cf. DropoutNet, Volkovs et al. 2017). Once trained, the id embedding holds an item's
    whole vector, and there is no projection any more.

    Args:
        num_items: items are 1..num_items; row 0 is padding.
        projection: content features -> dim; None for an encoder by id alone.
    """

    def __init__(
        self, num_items: int, dim: int, projection: StandardizedLinear | None, id_dropout: float
    ) -> None:
        super().__init__()
        self.id_embedding = nn.Embedding(num_items + 1, dim, padding_idx=PAD_IDX)
        nn.init.normal_(self.id_embedding.weight, std=0.02)
        with torch.no_grad():
            self.id_embedding.weight[PAD_IDX] = 0.0
        self.projection = projection
        self.id_dropout = id_dropout

    @property
    def dim(self) -> int:
        return self.id_embedding.embedding_dim

    def forward(self, item_idx: Tensor, features: Tensor) -> Tensor:
        """item_idx: int64 [n]; features: float [N + 1, F], all items' content -> float [n, D]."""
        content = None if self.projection is None else self.projection(features[item_idx])
        return self.with_content(item_idx, content)

    def with_content(self, item_idx: Tensor, content: Tensor | None) -> Tensor:
        """``forward`` where content has been projected, float [n, D], or there is no projection.

        In training, ids drop out each time.
        """
        embedding: Tensor = self.id_embedding(item_idx)
        embedding = drop_rows(embedding, self.id_dropout, self.training)
        return embedding if content is None else embedding + content

    @torch.no_grad()
    def fix(self, vectors: Tensor) -> None:
        """From now on the items' vectors are float [N + 1, D], row 0 zeros."""
        self.id_embedding.weight.copy_(vectors)
        self.projection = None


class QueryTower(nn.Module):
    """History and context -> query embedding: a sum of item and attribute vectors, then an MLP.

    Args:
        num_context: how many user attributes there are. hidden_dim: of the MLP; 0 for none.
    """

    def __init__(
        self, items: ItemEncoder, num_context: int, dim: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.items = items
        self.context = nn.Linear(num_context, dim, bias=False) if num_context else None
        if self.context is not None:
            nn.init.zeros_(self.context.weight)
        self.mlp = ResidualMLP(dim, hidden_dim, dropout) if hidden_dim else nn.Identity()

    def forward(self, pooled: Tensor, context: Tensor | None) -> Tensor:
        """pooled: float [B, D], of the history's vectors from ``items``; context: float [B, A], or
        None where nothing is known of the users.
        """
        if self.context is not None and context is not None:
            pooled = pooled + self.context(context)
        embedding: Tensor = self.mlp(pooled)
        return embedding


class CandidateTower(nn.Module):
    """Item -> candidate embedding [D]; an item's bias travels as one more dimension.

    The bias is part of the item's encoding: it too is learned from content while the id is dropped,
    so that a new item's popularity is guessed from its text.
    """

    def __init__(self, items: ItemEncoder) -> None:
        super().__init__()
        self.items = items

    def forward(self, item_idx: Tensor, features: Tensor) -> Tensor:
        embedding: Tensor = self.items(item_idx, features)
        return embedding


class TwoTower(nn.Module):
    """A query tower and a candidate tower that meet in one dot product.

    Args:
        num_items: items are 1..num_items. num_context: user attributes.
        feature_mean, feature_scale: float [F], statistics of the content features.
        dim: width of both towers (plus one when ``use_bias``).
        use_content: whether content features enter the towers.
        hidden_dim: width of the query tower's MLP; 0 for a linear query tower.
        dropout: inside that MLP. id_dropout: see ``ItemEncoder``.
        length_exponent: see ``history_weights``.
    """

    def __init__(
        self,
        num_items: int,
        num_context: int,
        feature_mean: Tensor,
        feature_scale: Tensor,
        *,
        dim: int,
        use_content: bool,
        use_bias: bool,
        hidden_dim: int,
        dropout: float,
        id_dropout: float,
        length_exponent: float,
    ) -> None:
        super().__init__()

        def encoder(width: int) -> ItemEncoder:
            projection = StandardizedLinear(feature_mean, feature_scale, width)
            return ItemEncoder(num_items, width, projection if use_content else None, id_dropout)

        self.query_tower = QueryTower(encoder(dim), num_context, dim, hidden_dim, dropout)
        self.candidate_tower = CandidateTower(encoder(dim + int(use_bias)))
        self.use_bias = use_bias
        self.length_exponent = length_exponent
        self.embedding_dim = dim + int(use_bias)

    def encode_history(self, pooled: Tensor, context: Tensor | None) -> Tensor:
        """Query embeddings float [B, embedding_dim]; arguments as in ``QueryTower.forward``."""
        query: Tensor = self.query_tower(pooled, context)
        if self.use_bias:
            query = torch.cat([query, torch.ones_like(query[:, :1])], dim=1)
        return query


class TwoTowerEnsemble(nn.Module):
    """Several two-towers served as one: embeddings concatenated, scores added.

    Args:
        towers: the members.
        features: float [num_items + 1, F], content features of all items; row 0 zeros. Kept as a
            buffer, since histories and candidates are given by index.

    Once trained, it has a ``content_map``: content -> an item's vectors in all ``encoders``.
    ``counting``: what events count in a query, all alike at first. ``weights``: how much
    each member counts in what ``standardize`` makes of it.
    """

    features: Tensor
    scales: Tensor

    def __init__(self, towers: Sequence[TwoTower], features: Tensor) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.members = tuple(towers)
        # Not persistent: the same values are stored once, as the content of the items.
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("scales", torch.ones(len(towers)))
        self.content_map: ContentMap | None = None
        self.counting = ALL_ALIKE
        self.weights = (1.0,) * len(towers)

    @property
    def num_items(self) -> int:
        return len(self.features) - 1

    @property
    def embedding_dims(self) -> list[int]:
        """Width of each member's part of an embedding; their sum is the index's dimension."""
        return [tower.embedding_dim for tower in self.members]

    @property
    def encoders(self) -> list[ItemEncoder]:
        """Those of the histories' items and those of the candidates, tower by tower."""
        return [part.items for t in self.members for part in (t.query_tower, t.candidate_tower)]

    @property
    def vector_dims(self) -> list[int]:
        """Width of each encoder's part of ``item_vectors``."""
        return [encoder.dim for encoder in self.encoders]

    def item_vectors(self) -> Tensor:
        """All items' vectors in all encoders, side by side: float [N + 1, D']."""
        item_idx = torch.arange(self.num_items + 1, device=self.features.device)
        return torch.cat([encoder(item_idx, self.features) for encoder in self.encoders], dim=1)

    def fix_items(self, vectors: Tensor, content_map: ContentMap) -> None:
        """Set the vectors that items have from now on, float [N + 1, D'], and the map for others.

        D' and the order of columns are as in ``item_vectors``.
        """
        parts = torch.split(vectors, self.vector_dims, dim=1)
        for encoder, part in zip(self.encoders, parts, strict=True):
            encoder.fix(part)
        self.content_map = content_map

    def share_items(self, parts: Sequence[Tensor]) -> None:
        """Keep the items' vectors where others have them, float [N + 1 or more, D] of each of
        ``encoders``.

        Content is not looked at any more, and freed. From then on the model is for reading alone.

        Raises:
            ValueError: when the vectors have not been fixed.
        """
        if any(encoder.projection is not None for encoder in self.encoders):
            raise ValueError("vectors that are still made of content can't be kept elsewhere")
        for encoder, part in zip(self.encoders, parts, strict=True):
            encoder.id_embedding.weight.data = part
        self.features = self.features.new_zeros(1).expand(len(self.features), 1)

    def event_counts(self, history_mask: Tensor, weights: Tensor | None) -> Tensor | None:
        """What each event counts in a query: see the function of this name."""
        return event_counts(history_mask, weights, self.counting)

    def query(
        self,
        history: Tensor,
        history_mask: Tensor,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Query embeddings float [B, D] of histories int64 [B, L].

        Args:
            history_mask: bool [B, L]. context: float [B, A]. weights: float [B, L], see
                ``HistoryBatch``.
        """
        pooled = []
        item_idx, positions = torch.unique(history, return_inverse=True)
        counts = self.event_counts(history_mask, weights)
        for tower in self.members:
            table = tower.query_tower.items(item_idx, self.features)
            by_length = history_weights(history_mask, tower.length_exponent, counts)
            pooled.append(weighted_sum_pool(table, positions, by_length))
        return self._query(pooled, context)

    def query_from_sums(self, sums: Tensor, length: Tensor, context: Tensor) -> Tensor:
        """Query embeddings float [B, D] of histories whose vectors have been added up.

        Args:
            sums: float [B, D''], over the items of a history, of their vectors in the query towers
                side by side, each times what it counts (see ``event_counts``). length: [B], the
                sum of these counts. context: float [B, A].
        """
        widths = [tower.query_tower.items.dim for tower in self.members]
        length = length.clamp(min=1)[:, None]
        pooled = [
            part / length**tower.length_exponent if tower.length_exponent else part
            for tower, part in zip(self.members, torch.split(sums, widths, dim=1), strict=True)
        ]
        return self._query(pooled, context)

    def _query(self, pooled: Sequence[Tensor], context: Tensor | None) -> Tensor:
        parts = [
            tower.encode_history(part, context) * scale
            for tower, part, scale in zip(self.members, pooled, self.scales.unbind(), strict=True)
        ]
        return torch.cat(parts, dim=1)

    def candidates(self, item_idx: Tensor) -> Tensor:
        """Candidate embeddings of items: int64 [n] -> float [n, D]."""
        parts = [tower.candidate_tower(item_idx, self.features) for tower in self.members]
        return torch.cat(parts, dim=1)

    def all_candidates(self) -> Tensor:
        """Candidate embeddings float [num_items + 1, D]; row 0 is padding, never search it."""
        return self.candidates(torch.arange(self.num_items + 1, device=self.features.device))

    @torch.no_grad()
    def standardize(
        self,
        history: Tensor,
        history_mask: Tensor,
        context: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Set the scales so that each member's scores have unit variance, times its weight, within
        a user's list.

        The variance of q.c over the catalogue is q' Cov(c) q, so no [B, N] matrix is formed.
        Arguments are those of ``query``.
        """
        self.scales.fill_(1.0)
        queries = torch.split(
            self.query(history, history_mask, context, weights), self.embedding_dims, dim=1
        )
        candidates = torch.split(self.all_candidates()[1:], self.embedding_dims, dim=1)
        for i, (query, candidate) in enumerate(zip(queries, candidates, strict=True)):
            variance = ((query @ candidate.T.cov()) * query).sum(dim=1).mean()
            self.scales[i] = variance.clamp(min=1e-12).rsqrt() * self.weights[i]
