"""Stage 1 of the folds, trained side by side: the same lists, and resumed as one by one."""

from functools import partial
from pathlib import Path

import pytest
import torch

from recsys.index.builders import FlatIndexBuilder
from recsys.models.history_weights import EventCounting
from recsys.training.folds import CandidateLists, out_of_fold_lists
from recsys.training.stage1 import Run, fold_retriever
from recsys.training.workers import Workers
from tests.training.conftest import recipe, run

FOLDS = 3


@pytest.fixture(scope="module")
def lists_of(planted, text, attributes):
    def lists(fits: Run, workers: Workers, epochs: int = 3) -> list[CandidateLists]:
        return out_of_fold_lists(
            planted,
            text,
            partial(
                fold_retriever,
                recipe=recipe(),
                epochs=epochs,
                counting=EventCounting(),
                text=text,
                attributes=attributes,
                build_index=FlatIndexBuilder().build,
                run=fits,
            ),
            num_folds=FOLDS,
            num_candidates=10,
            max_history=5,
            seed=0,
            workers=workers,
        )

    return lists


def assert_equal(first: list[CandidateLists], second: list[CandidateLists]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.candidates, other.candidates)
        assert torch.equal(one.tower_scores, other.tower_scores)
        assert torch.equal(one.relevance, other.relevance)
        assert torch.equal(one.num_relevant, other.num_relevant)
        assert (one.user_idx == other.user_idx).all()
        assert torch.equal(one.all_signals(), other.all_signals())


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_lists_are_the_same_side_by_side_and_after_a_resume(lists_of, tmp_path: Path) -> None:
    alone = lists_of(run(tmp_path / "alone"), Workers())
    with Workers(2) as two:
        assert_equal(alone, lists_of(run(tmp_path / "two"), two))
        # A finished fold is loaded, and one that was stopped goes on: from its first two epochs.
        written = [tmp_path / "two" / f"fold{fold}" / "last.ckpt" for fold in range(FOLDS)]
        assert all(file.exists() for file in written)
        lists_of(run(tmp_path / "broken"), two, epochs=2)
        (tmp_path / "broken" / "fold1" / "last.ckpt").unlink()
        assert_equal(alone, lists_of(run(tmp_path / "broken", resume=True), two))


def test_an_error_of_a_fold_is_that_of_all(lists_of, tmp_path: Path) -> None:
    with Workers(2) as two, pytest.raises(TypeError, match="no_such_option"):
        lists_of(run(tmp_path, no_such_option=True), two)
