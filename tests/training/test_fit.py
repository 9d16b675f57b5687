"""Training recovers what was planted, repeats itself, and survives interruptions."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from recsys import losses
from recsys.data.histories import Histories
from recsys.index.builders import FlatIndexBuilder
from recsys.text.reduction import TextReduction
from recsys.training import stage1, stage2
from recsys.training.folds import CandidateLists, out_of_fold_lists
from recsys.training.stage1 import build_retriever, fit_two_tower, search
from recsys.training.stage2 import RerankingRecipe, fit_stage2
from tests.training.conftest import NUM_GROUPS, NUM_USERS, recipe, run


class Interrupt(pl.Callback):
    """Ends training like a crash at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt("interrupted by the test")


def modules_of(monkeypatch: pytest.MonkeyPatch, module: object) -> list[pl.LightningModule]:
    """The modules that are fitted from now on."""
    original, fitted = module.fit, []

    def fit(trained: pl.LightningModule, *arguments: object, **options: object) -> None:
        fitted.append(trained)
        original(trained, *arguments, **options)

    monkeypatch.setattr(module, "fit", fit)
    return fitted


def interrupting(monkeypatch: pytest.MonkeyPatch, module: object, epoch: int) -> None:
    original = module.fit

    def fit(*arguments: object, **options: object) -> None:
        callbacks = [*options.pop("callbacks", ()), Interrupt(epoch)]
        original(*arguments, **options, callbacks=callbacks)

    monkeypatch.setattr(module, "fit", fit)


def assert_equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for (name, one), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)


LOSSES = [
    losses.full_softmax,
    partial(losses.sampled_softmax, num_negatives=32),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_recovers_the_planted_groups(loss, planted, text, attributes, tmp_path) -> None:
    model = fit_two_tower(recipe(loss), 30, planted, text, attributes, run(tmp_path))
    retriever = build_retriever(model, planted, FlatIndexBuilder().build, 100)
    users = np.arange(1, NUM_USERS + 1)
    found = retriever.retrieve(planted.pad(users), 4).item_idx.numpy()
    # Four liked items are left for each user; by chance a quarter would be of the right group.
    assert ((found - 1) % NUM_GROUPS == (users % NUM_GROUPS)[:, None]).mean() > 0.9


def test_the_same_seed_gives_the_same_model_and_another_another(
    planted, text, attributes, tmp_path
) -> None:
    fitted = [
        fit_two_tower(recipe(seed=seed), 2, planted, text, attributes, run(tmp_path / str(i)))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert_equal_weights(fitted[0], fitted[1])
    with pytest.raises(AssertionError):
        assert_equal_weights(fitted[0], fitted[2])


def test_an_interrupted_search_goes_on_to_the_same_result(
    planted, text, attributes, tmp_path, monkeypatch
) -> None:
    arguments = (recipe(epochs=20), planted, text, attributes)
    fitted = modules_of(monkeypatch, stage1)
    expected = search(*arguments, run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupting(patch, stage1, epoch=12)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            search(*arguments, run(tmp_path / "broken"))
    resumed = search(*arguments, run(tmp_path / "broken", resume=True))
    assert resumed[:2] == expected[:2]
    np.testing.assert_allclose(resumed.curves.frame(), expected.curves.frame(), atol=1e-6)
    whole, broken, after = fitted
    assert_equal_weights(whole.model, after.model)
    with pytest.raises(AssertionError):
        assert_equal_weights(whole.model, broken.model)


@pytest.mark.parametrize("epoch", [5, 25])  # before and after the first checkpoint
def test_an_interrupted_fit_goes_on_to_the_same_weights(
    epoch: int, planted, text, attributes, tmp_path, monkeypatch
) -> None:
    arguments = (recipe(), 30, planted, text, attributes)
    expected = fit_two_tower(*arguments, run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupting(patch, stage1, epoch=epoch)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit_two_tower(*arguments, run(tmp_path / "broken"))
    assert (tmp_path / "broken" / "last.ckpt").exists() == (epoch > 20)
    resumed = fit_two_tower(*arguments, run(tmp_path / "broken", resume=True))
    assert_equal_weights(expected, resumed)


def test_a_finished_fit_is_loaded_and_not_trained_again(
    planted, text, attributes, tmp_path, monkeypatch
) -> None:
    arguments = (recipe(), 3, planted, text, attributes)
    first = fit_two_tower(*arguments, run(tmp_path))
    interrupting(monkeypatch, stage1, epoch=0)
    assert_equal_weights(first, fit_two_tower(*arguments, run(tmp_path, resume=True)))


def test_without_resume_an_old_checkpoint_is_not_used(planted, text, attributes, tmp_path) -> None:
    fit_two_tower(recipe(seed=5), 3, planted, text, attributes, run(tmp_path / "used"))
    again = fit_two_tower(recipe(), 3, planted, text, attributes, run(tmp_path / "used"))
    fresh = fit_two_tower(recipe(), 3, planted, text, attributes, run(tmp_path / "fresh"))
    assert_equal_weights(again, fresh)


def test_validation_events_are_never_trained_on(planted, text, attributes, tmp_path) -> None:
    """The loss sees each event of a batch; none of them may be a held-out one."""
    remaining, held_out = stage1.hold_out_like("random", planted, 2, 0.1, 0)
    pairs = set(zip(held_out.user_idx.tolist(), held_out.item_idx.tolist(), strict=True))
    histories = {
        frozenset(remaining.pad(np.array([user])).item_idx[0].tolist()): user
        for user in range(1, NUM_USERS + 1)
    }
    seen: set[tuple[int, int]] = set()

    def watched(query, candidates, history, visible, hidden, counts, weights):
        for row, mask in zip(history.tolist(), (visible | hidden).tolist(), strict=True):
            items = [item for item, real in zip(row, mask, strict=True) if real]
            seen.update((histories[frozenset(items)], item) for item in items)
        return losses.full_softmax(query, candidates, history, visible, hidden, counts, weights)

    search(recipe(watched, epochs=2, validate_every=1), planted, text, attributes, run(tmp_path))
    assert len(seen) == len(remaining)
    assert not seen & pairs


def test_bf16_trains_to_finite_weights(planted, text, attributes, tmp_path) -> None:
    mixed = run(tmp_path, precision="bf16-mixed")
    model = fit_two_tower(recipe(), 3, planted, text, attributes, mixed)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert model.all_candidates().dtype == torch.float32


RANK = 6


@pytest.fixture(scope="module")
def lists(planted: Histories, text: Tensor, attributes: Tensor, tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("folds")

    def fit_retriever(train: Histories, fold: int):
        model = fit_two_tower(recipe(), 5, train, text, attributes, run(folder / str(fold)))
        return build_retriever(model, train, FlatIndexBuilder().build, 100)

    return out_of_fold_lists(
        planted,
        TextReduction.fit(text, RANK)(text),
        fit_retriever,
        num_folds=2,
        num_candidates=20,
        max_history=10,
        seed=0,
    )


def reranking(epochs: int) -> RerankingRecipe:
    shape = {"dim": 8, "num_heads": 2, "num_layers": 1, "text_rank": 3, "dropout": 0.1}
    return RerankingRecipe(
        cross_encoder=shape,
        max_history=10,
        relation_rank=RANK,
        list_length=15,
        batch_size=16,
        epochs=epochs,
        learning_rate=0.01,
        weight_decay=0.01,
        average_share=0.2,
        seed=0,
    )


def stage2_model(lists: list[CandidateLists], planted, text, where) -> torch.nn.Module:
    fitted, _, _ = fit_stage2(
        reranking(3), lists, planted, TextReduction.fit(text, RANK), text, where
    )
    return fitted.cross_encoder


def test_an_interrupted_stage_2_goes_on_to_the_same_weights(
    lists, planted, text, tmp_path: Path, monkeypatch
) -> None:
    expected = stage2_model(lists, planted, text, run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupting(patch, stage2, epoch=1)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            stage2_model(lists, planted, text, run(tmp_path / "broken"))
    resumed = stage2_model(lists, planted, text, run(tmp_path / "broken", resume=True))
    assert_equal_weights(expected, resumed)


def test_a_finished_stage_2_is_loaded_and_not_trained_again(
    lists, planted, text, tmp_path: Path, monkeypatch
) -> None:
    first = stage2_model(lists, planted, text, run(tmp_path))
    interrupting(monkeypatch, stage2, epoch=0)
    assert_equal_weights(first, stage2_model(lists, planted, text, run(tmp_path, resume=True)))


def test_the_same_seed_gives_the_same_stage_2(lists, planted, text, tmp_path: Path) -> None:
    first = stage2_model(lists, planted, text, run(tmp_path / "0"))
    assert_equal_weights(first, stage2_model(lists, planted, text, run(tmp_path / "1")))


def test_stage_2_learns_to_rank_better_than_it_found_the_lists(
    lists, planted, text, tmp_path
) -> None:
    reduction = TextReduction.fit(text, RANK)
    fitted, curves, _ = fit_stage2(reranking(6), lists, planted, reduction, text, run(tmp_path))
    loss = curves.frame()["train/loss"]
    assert loss.iloc[-1] < 0.95 * loss.iloc[0]
    assert not fitted.cross_encoder.training
