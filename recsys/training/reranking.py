"""Stage 2's LightningModule and its batches of out-of-fold lists."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from recsys.list_scorer import event_mask
from recsys.losses import listwise_softmax
from recsys.metrics import ndcg_at_k, recall_at_k
from recsys.models.cross_encoder import CrossEncoder, RankingBatch
from recsys.training.background import InBackground
from recsys.training.folds import CandidateLists
from recsys.training.schedule import one_cycle

VALIDATION_SHARE = 0.1
"""The share of users whose lists are kept out of stage 2's training, to watch it."""
_EXAMPLE_LISTS = 1024


class LabelledBatch(NamedTuple):
    """Lists to learn from, of real candidates and, behind them, padding.

    Args:
        inputs: what the cross-encoder reads, but for tokens, which depend on what it learns: their
            places hold reduced text, float32 [B, K, r] and [B, 1 + L, r]. mask: bool [B, K], True =
            a real candidate. ranks: int64 [B, K], in stage 1's order, from 1. relevance: bool
            [B, K]. num_relevant: int64 [B], held-out events of each user. gains: float32 [B, K],
            how much relevant candidates count. wanted: float32 [B, W], see ``CandidateLists``.
    """

    inputs: RankingBatch
    mask: Tensor
    ranks: Tensor
    relevance: Tensor
    num_relevant: Tensor
    gains: Tensor
    wanted: Tensor


class ListDataModule(pl.LightningDataModule):
    """Batches of lists, each from one fold, since a fold has signals of its own.

    Args:
        reduced_text: float32 [N + 1, r]. list_length: candidates of a list that are learned from:
            the relevant ones, and random others.
    """

    def __init__(
        self,
        folds: Sequence[CandidateLists],
        reduced_text: Tensor,
        *,
        batch_size: int,
        list_length: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.folds = list(folds)
        self.reduced_text = reduced_text
        self.batch_size = batch_size
        self.list_length = list_length
        self.seed = seed
        users = np.unique(np.concatenate([fold.user_idx for fold in folds]))
        shuffled = np.random.default_rng(seed).permutation(users)
        self.validation_users = shuffled[: max(1, int(VALIDATION_SHARE * len(users)))]
        self.batches = _ShuffledFoldBatches(self._rows(False), batch_size, seed)

    def _rows(self, validation: bool) -> list[NDArray[np.int64]]:
        return [
            np.flatnonzero(np.isin(fold.user_idx, self.validation_users) == validation)
            for fold in self.folds
        ]

    @property
    def kept_rows(self) -> list[NDArray[np.int64]]:
        """Of each fold the rows that are kept aside, in the order of ``val_dataloader``."""
        return self._rows(True)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch's order of lists."""
        self.batches.start_epoch(epoch)

    def train_dataloader(self) -> InBackground[LabelledBatch]:
        dataset = _FoldBatches(self.folds, self.reduced_text, self.list_length)
        return InBackground(DataLoader(dataset, sampler=self.batches, batch_size=None))

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        batches = [
            _Batch(fold, rows[start : start + self.batch_size])
            for fold, rows in enumerate(self._rows(True))
            for start in range(0, len(rows), self.batch_size)
        ]
        dataset = _FoldBatches(self.folds, self.reduced_text, None)
        return DataLoader(dataset, sampler=batches, batch_size=None)

    def example(self) -> LabelledBatch:
        """Lists enough for the scales of what is read of them."""
        dataset = _FoldBatches(self.folds, self.reduced_text, None)
        return dataset[_Batch(0, np.arange(min(len(self.folds[0]), _EXAMPLE_LISTS)))]


class _Batch(NamedTuple):
    """Rows of one fold; seed: of the candidates that are chosen from."""

    fold: int
    rows: NDArray[np.int64]
    seed: Sequence[int] = ()


class _FoldBatches(Dataset[LabelledBatch]):
    def __init__(
        self, folds: Sequence[CandidateLists], reduced_text: Tensor, list_length: int | None
    ) -> None:
        self.folds = folds
        self.reduced_text = reduced_text
        self.list_length = list_length

    def __getitem__(self, batch: _Batch) -> LabelledBatch:
        fold, rows = self.folds[batch.fold], torch.from_numpy(batch.rows)
        inputs, relevance = fold.inputs(batch.rows), fold.relevance[rows]
        columns = self._columns(inputs.candidates, relevance, batch.seed)
        candidates = inputs.candidates.gather(1, columns)
        signals = fold.extractor.signals(inputs)
        places = columns + signals.shape[1] * torch.arange(len(rows))[:, None]
        events, relations = inputs.recent, fold.extractor.relations
        # Look-ups by ``embedding``, which copies rows, where indexing would copy numbers.
        return LabelledBatch(
            RankingBatch(
                F.embedding(places, signals.flatten(end_dim=1)),
                F.embedding(candidates, self.reduced_text),
                F.embedding(events, self.reduced_text),
                event_mask(events),
                inputs.age,
                inputs.strength,
                F.embedding(candidates, relations.vectors),
                F.embedding(events, relations.vectors),
                relations.blocks,
            ),
            candidates > 0,
            columns + 1,
            relevance.gather(1, columns),
            fold.num_relevant[rows],
            fold.gains[rows].gather(1, columns),
            fold.wanted[rows],
        )

    def _columns(self, candidates: Tensor, relevance: Tensor, seed: Sequence[int]) -> Tensor:
        """Of the candidates [B, K] that are taken: int64 [B, k], rising."""
        width = candidates.shape[1]
        if self.list_length is None or self.list_length >= width:
            return torch.arange(width).expand(len(candidates), -1)
        rng = np.random.default_rng(seed)
        chance = torch.from_numpy(rng.random(candidates.shape, np.float32))
        first = chance + relevance.float() - 2.0 * (candidates == 0)
        return first.topk(self.list_length, dim=1).indices.sort(dim=1).values


class _ShuffledFoldBatches(Sampler[_Batch]):
    """Depends on (seed, epoch) alone; see ``ShuffledBatches``."""

    def __init__(self, rows: list[NDArray[np.int64]], batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-len(rows) // self.batch_size) for rows in self.rows)

    def __iter__(self) -> Iterator[_Batch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches = []
        for fold, rows in enumerate(self.rows):
            shuffled = rng.permutation(rows)
            batches += [
                _Batch(fold, shuffled[start : start + self.batch_size])
                for start in range(0, len(rows), self.batch_size)
            ]
        for number in rng.permutation(len(batches)).tolist():
            yield batches[number]._replace(seed=(self.seed, self.epoch, number))


def with_tokens(model: CrossEncoder, inputs: RankingBatch) -> RankingBatch:
    """The cross-encoder's own tokens in the place of the texts of a ``LabelledBatch``."""
    return inputs._replace(
        candidate_tokens=model.tokens(inputs.candidate_tokens).candidates,
        history_tokens=model.tokens(inputs.history_tokens).history,
    )


class RerankingModule(pl.LightningModule):
    """Trains a ``CrossEncoder`` list-wise; an exponential moving average of it is what is served.

    Args:
        average_share: the moving average reaches back over about this share of all steps.
        total_steps: length of the one-cycle learning-rate schedule.
    """

    def __init__(
        self,
        model: CrossEncoder,
        *,
        learning_rate: float,
        weight_decay: float,
        average_share: float,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        decay = 1.0 - 1.0 / max(average_share * total_steps, 1.0)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(model, multi_avg_fn=average)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.total_steps = total_steps

    def training_step(self, batch: LabelledBatch, _: int) -> Tensor:
        scores = self.model(with_tokens(self.model, batch.inputs))
        loss = listwise_softmax(scores, batch.relevance, batch.mask, batch.ranks, batch.gains)
        size = len(scores)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        self.averaged.update_parameters(self.model)

    def validation_step(self, batch: LabelledBatch, _: int) -> None:
        model = self.served_model
        scores = model(with_tokens(model, batch.inputs)).masked_fill(~batch.mask, -torch.inf)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :100]
        hits = batch.relevance.gather(1, order)
        values = {
            "val/ndcg@10": ndcg_at_k(hits, batch.num_relevant, 10).mean(),
            "val/ndcg@100": ndcg_at_k(hits, batch.num_relevant, 100).mean(),
            "val/recall@100": recall_at_k(hits, batch.num_relevant, 100).mean(),
        }
        for name, value in values.items():
            # One figure fits beside the bar on a narrow terminal.
            self.log(name, value, batch_size=len(scores), prog_bar=name == "val/ndcg@10")

    @property
    def served_model(self) -> CrossEncoder:
        """The averaged model, in evaluation mode."""
        model = self.averaged.module.eval()
        assert isinstance(model, CrossEncoder)
        return model

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        return one_cycle(optimizer, self.learning_rate, self.total_steps)
