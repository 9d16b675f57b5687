"""Stage 1's LightningModule: each tower of the ensemble learns by its own objective.

Towers without one were fitted before, in closed form, and stay as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from recsys.data.datamodule import TrainingBatch, ValidationBatch
from recsys.losses import CandidateFn
from recsys.models.layers import weighted_sum_pool
from recsys.models.two_tower import ItemEncoder, TwoTower, TwoTowerEnsemble
from recsys.schema import HistoryBatch
from recsys.training.history_dropout import Shown, first_events, some_events
from recsys.training.schedule import one_cycle

RetrievalLoss = Callable[[Tensor, CandidateFn, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """How one tower is trained.

    loss: one of ``recsys.losses``. input_dropout: share of each history's events that the query
    does not see. l2: weight of the squared norm of the item vectors that a step encodes.
    new_user_share: share of a batch whose users are treated as new ones: the query sees a few of
    their events (``first_events``), and no attributes of every other one. new_user_weight: of the
    loss of those users.
    """

    loss: RetrievalLoss
    input_dropout: float
    l2: float
    learning_rate: float
    new_user_share: float = 0.0
    new_user_weight: float = 0.0


class RetrievalModule(pl.LightningModule):
    """Trains a ``TwoTowerEnsemble``; validates it by recall@k over the whole catalogue.

    Whoever trains it has to ``standardize`` it at the end.

    Args:
        item_counts: int64 [N + 1], training events per item.
        calibration: histories on which the towers' scores are put on one scale.
        total_steps: length of the learning-rate schedule (one cycle, Smith 2018); training may stop
            before it.
        unknown_context: float [A], the attributes of a user of whom nothing is known.
    """

    item_counts: Tensor
    unknown_context: Tensor

    def __init__(
        self,
        model: TwoTowerEnsemble,
        objectives: Sequence[Objective | None],
        item_counts: Tensor,
        calibration: HistoryBatch,
        unknown_context: Tensor,
        *,
        total_steps: int,
        validation_k: int = 100,
    ) -> None:
        super().__init__()
        self.model = model
        pairs = zip(model.members, objectives, strict=True)
        self.trained = [(tower, goal) for tower, goal in pairs if goal is not None]
        self.register_buffer("item_counts", item_counts, persistent=False)
        self.register_buffer("unknown_context", unknown_context, persistent=False)
        self.calibration = calibration
        self.total_steps = total_steps
        self.validation_k = validation_k

    def training_step(self, batch: TrainingBatch, _: int) -> Tensor:
        losses = [self._tower_loss(tower, goal, batch) for tower, goal in self.trained]
        total = torch.stack(losses).sum()
        size = len(batch.weights)
        if len(losses) > 1:
            for name, loss in enumerate(losses):
                self.log(f"train/loss_{name}", loss, on_step=False, on_epoch=True, batch_size=size)
        self.log("train/loss", total, on_step=False, on_epoch=True, batch_size=size, prog_bar=True)
        return total

    def _tower_loss(self, tower: TwoTower, objective: Objective, batch: TrainingBatch) -> Tensor:
        features = self.model.features
        history, weights = batch
        items, _ = _distinct(history.item_idx, len(features))
        queries = _ItemsOfStep(tower.query_tower.items, features, items)
        candidates = _ItemsOfStep(tower.candidate_tower.items, features, items[:0])
        device = weights.device
        is_new = torch.rand(len(weights), device=device) < objective.new_user_share
        known, new = (history.rows(rows) for rows in (~is_new, is_new))
        exponent = tower.length_exponent
        total = torch.zeros((), device=device)
        if len(known.mask):
            shown = some_events(known.mask, objective.input_dropout, exponent)
            targets = TrainingBatch(known, weights[~is_new])
            total = total + self._loss(tower, objective, targets, shown, queries, candidates)
        if len(new.mask):
            anonymous = torch.rand(len(new.mask), 1, device=device) < 0.5
            context = torch.where(anonymous, self.unknown_context, new.context)
            shown = first_events(new.mask, exponent)
            targets = TrainingBatch(new._replace(context=context), weights[is_new])
            loss = self._loss(tower, objective, targets, shown, queries, candidates)
            total = total + objective.new_user_weight * loss
        return total

    def _loss(
        self,
        tower: TwoTower,
        objective: Objective,
        batch: TrainingBatch,
        shown: Shown,
        query_items: "_ItemsOfStep",
        candidate_items: "_ItemsOfStep",
    ) -> Tensor:
        history, mask, context = batch.history.item_idx, batch.history.mask, batch.history.context
        item_idx, positions = _distinct(history, len(self.item_counts))
        table = query_items(item_idx)
        encoded: list[Tensor] = []

        def candidates(wanted: Tensor) -> Tensor:
            embedding = candidate_items(wanted).float()
            encoded.append(embedding)
            return embedding

        pooled = weighted_sum_pool(table, positions, shown.weights)
        query = tower.encode_history(pooled, context).float()
        # Mixed precision ends here: sums over a whole catalogue need float32.
        with torch.autocast(query.device.type, enabled=False):
            hidden = mask & ~shown.visible
            counts, weights = self.item_counts, batch.weights
            loss = objective.loss(
                query, candidates, history, shown.visible, hidden, counts, weights
            )
            dim = tower.embedding_dim - int(tower.use_bias)
            norms = [table.float().square().sum()] + [e[:, :dim].square().sum() for e in encoded]
            total: Tensor = loss + objective.l2 * torch.stack(norms).sum()
            return total

    def standardize(self) -> None:
        """Put the towers' scores on one scale, as they stand now."""
        batch = self.calibration
        weights = None if batch.weights is None else batch.weights.to(self.device)
        item_idx, mask, context = (
            part.to(self.device) for part in (batch.item_idx, batch.mask, batch.context)
        )
        self.model.standardize(item_idx, mask, context, weights)

    @torch.no_grad()
    def on_validation_epoch_start(self) -> None:
        self.standardize()
        self._catalog = self.model.all_candidates()

    def validation_step(self, batch: ValidationBatch, _: int) -> None:
        history, mask, context = batch.history.item_idx, batch.history.mask, batch.history.context
        scores = self.model.query(history, mask, context, batch.history.weights) @ self._catalog.T
        scores = scores.scatter(1, history, -torch.inf)
        scores[:, 0] = -torch.inf
        ranked = scores.topk(min(self.validation_k, scores.shape[1] - 1), dim=1).indices
        found = (ranked[:, :, None] == batch.targets[:, None, :]).any(dim=1)
        recall = (found * batch.weights).sum(dim=1) / batch.weights.sum(dim=1)
        self.log(
            f"val/recall@{self.validation_k}",
            recall.mean(),
            batch_size=len(history),
            prog_bar=True,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": list(tower.parameters()), "lr": goal.learning_rate}
            for tower, goal in self.trained
        ]
        optimizer = torch.optim.Adam(groups, fused=True)
        peaks = [goal.learning_rate for _, goal in self.trained]
        return one_cycle(optimizer, peaks, self.total_steps)


def _distinct(item_idx: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """As ``torch.unique`` with ``return_inverse``, for indices below ``size``: without sorting."""
    present = torch.zeros(size, dtype=torch.bool, device=item_idx.device)
    present[item_idx] = True
    return present.nonzero()[:, 0], (present.cumsum(dim=0) - 1)[item_idx]


class _ItemsOfStep:
    """Encodes items within one step; what their content says of them once, for all that ask.

    Args:
        needed: int64 [n], rising: items to begin with; more are asked for as need be.
    """

    def __init__(self, encoder: ItemEncoder, features: Tensor, needed: Tensor) -> None:
        self.encoder = encoder
        self.features = features
        self._prepare(needed)

    def _prepare(self, needed: Tensor) -> None:
        self.needed = needed
        self.content = None
        if len(needed) and self.encoder.projection is not None:
            first, last = int(needed[0]), int(needed[-1])
            # Most often all items are needed, and a copy of all their features takes a while.
            in_a_row = last - first + 1 == len(needed)
            rows = self.features[first : last + 1] if in_a_row else self.features[needed]
            self.content = self.encoder.projection(rows)

    def __call__(self, wanted: Tensor) -> Tensor:
        """item_idx int64 [m], rising -> float [m, D], without the ids that drop out this time."""
        if torch.equal(wanted, self.needed):
            return self.encoder.with_content(wanted, self.content)
        rows = torch.searchsorted(self.needed, wanted).clamp(max=max(len(self.needed) - 1, 0))
        if not len(self.needed) or not torch.equal(self.needed[rows], wanted):
            self._prepare(wanted)
            return self.encoder.with_content(wanted, self.content)
        content = None if self.content is None else self.content.index_select(0, rows)
        return self.encoder.with_content(wanted, content)
