import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import cold_item_draw
from benchmarks.cold_item_draw import ColdItems, draw_cold_items, hold_out_items
from benchmarks.cold_items import (
    choose_regularizations,
    evaluate_ranker,
    evaluate_recommender,
    measure_baselines,
    measure_two_tower,
)
from recsys.baselines import Popularity, fit_als
from recsys.evaluation import Targets
from tests.benchmarks.conftest import FirstItems

ROOT = Path(__file__).parents[2]
ALS = partial(fit_als, factors=4, regularization=1.0, iterations=3)


@pytest.fixture
def draw(data, monkeypatch) -> ColdItems:
    """Half of the items, so that more are cold than a list holds."""
    monkeypatch.setattr(cold_item_draw, "SHARE", 0.5)
    return draw_cold_items(data, seed=0)


def test_a_draw_leaves_no_training_row_of_a_cold_item(data):
    draw = draw_cold_items(data, seed=1)
    cold_ids = data.items.decode(np.flatnonzero(draw.cold))
    assert len(cold_ids) == 6
    assert not draw.data.split.train["item_id"].isin(cold_ids).any()
    assert not draw.data.train.item_counts(60)[draw.cold].any()
    warm = data.split.train[~data.split.train["item_id"].isin(cold_ids)]
    assert len(draw.data.train) == len(warm)


def test_cold_items_stay_in_the_catalogue_under_the_same_index(data):
    draw = draw_cold_items(data, seed=1)
    assert draw.data.items.ids.equals(data.items.ids)
    np.testing.assert_array_equal(draw.data.catalog.attributes, data.catalog.attributes)


def test_every_interaction_with_a_cold_item_is_relevant(data):
    draw = draw_cold_items(data, seed=1)
    rows = pd.concat([data.split.train, data.split.test])
    cold_ids = data.items.decode(np.flatnonzero(draw.cold))
    assert len(draw.targets.items) == rows["item_id"].isin(cold_ids).sum()
    assert draw.targets.num_relevant.sum() == len(draw.targets.items)


def test_draws_differ_by_seed_alone(data):
    first, again, other = (draw_cold_items(data, seed).cold for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_leaked_training_row_is_refused(data):
    draw = draw_cold_items(data, seed=0)
    with pytest.raises(AssertionError, match="training rows"):
        replace(draw, data=data)


def test_recall_among_cold_items_equals_a_hand_computed_case(draw):
    """The ranker prefers small indices: of 30 cold items a list holds the first 20."""
    cold = np.flatnonzero(draw.cold)
    relevant = [cold[0], cold[19], cold[20], cold[29], cold[3]]
    targets = Targets(
        user_idx=np.array([1, 2]),
        rows=torch.tensor([0, 0, 0, 0, 1]),
        items=torch.tensor(relevant),
        num_relevant=torch.tensor([4, 1]),
    )
    ranker = Popularity(-np.arange(61, dtype=np.float32))
    figures = evaluate_ranker(ranker, replace(draw, targets=targets), seed=0)
    assert figures["cold"]["recall@20"] == pytest.approx((2 / 4 + 1) / 2)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)
    first, second = (1 + 1 / np.log2(21)) / ideal, 1 / np.log2(5)
    assert figures["cold"]["ndcg@20"] == pytest.approx((first + second) / 2)


def test_the_recommender_is_asked_for_cold_items_alone_and_scored_alike(draw):
    recommender = FirstItems(draw.data.items.ids.tolist())
    figures = evaluate_recommender(recommender, draw, rerank=False)
    warm_ids = set(draw.data.items.decode(np.flatnonzero(~draw.cold)[1:]))
    half = len(recommender.requests) // 2
    assert half == len(draw.targets)
    assert all(set(request.exclude) == warm_ids for request in recommender.requests[:half])
    assert not any(request.exclude for request in recommender.requests[half:])
    expected = evaluate_ranker(Popularity(-np.arange(61, dtype=np.float32)), draw, seed=0)
    assert figures["cold"] == pytest.approx(expected["cold"])


def test_a_user_without_training_rows_left_still_counts(data):
    """Holding out all items of a user leaves nobody to know, yet something to find."""
    rows = pd.concat([data.split.train, data.split.test])
    of_user = rows.loc[rows["user_id"] == "u7", "item_id"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold_item_draw, "SHARE", 1.0)
        draw = hold_out_items(data, data.items.encode(of_user), seed=0)
    assert "u7" not in draw.data.users
    assert len(draw.targets) == 40
    recommender = FirstItems(draw.data.items.ids.tolist())
    evaluate_recommender(recommender, draw, rerank=False)
    assert recommender.requests[0].user_id is None
    assert recommender.requests[1].user_id is not None


def test_penalties_are_chosen_without_the_cold_items(draw):
    """Whatever users did with the cold items, the choice is the same."""
    features = {"ridge": [np.random.default_rng(0).random((61, 3), dtype=np.float32)]}
    blind = replace(draw.data, split=replace(draw.data.split, test=draw.data.split.test[:0]))
    chosen = [choose_regularizations(data, features, ALS, 0) for data in (draw.data, blind)]
    assert chosen[0] == chosen[1]


def test_the_oracle_is_best_and_each_ranker_has_figures_for_both_candidate_sets(draw):
    text = np.random.default_rng(0).random((61, 8), dtype=np.float32)
    content = measure_baselines(draw, text, ALS, seed=0)
    assert len(content["systems"]) == 7
    assert all(set(figures) == {"cold", "catalogue"} for figures in content["systems"].values())
    recalls = {name: f["cold"]["recall@20"] for name, f in content["systems"].items()}
    assert max(recalls, key=recalls.__getitem__) == "oracle: true popularity"


def test_variants_of_the_two_tower_see_no_blanked_content(draw):
    seen = []

    def train(data, text):
        seen.append((bool(text.any()), bool(data.catalog.attributes.any())))
        return FirstItems(data.items.ids.tolist())

    systems = measure_two_tower(draw, torch.ones(61, 4), train, stage2=True)
    assert seen == [(True, True), (False, True), (False, False)]
    assert len(systems) == 6


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json(tmp_path):
    output = tmp_path / "figures.json"
    quick = ["data=sample", "retrieval.epochs=1", "retrieval.validate_every=1"]
    command = [sys.executable, "benchmarks/cold_items.py", "--draws", "1", "--output", str(output)]
    done = subprocess.run(
        [*command, *quick],
        cwd=ROOT,
        env={**os.environ, "RECSYS_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "40 cold items" in done.stdout
    assert "two-tower, without text" in output.read_text()
    page = output.with_suffix(".md").read_text()
    assert "| two-tower, without text |" in page
    assert "places 11, 14, 17 for the best cold items" in page
    assert "| two-tower, difference |" in page
